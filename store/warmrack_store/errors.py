"""The error tree: every way warmrack says no, with a code, a message and a hint.

    WarmrackError
    ├── Refusal      the request cannot be served as it stands; never retried
    │   ├── BadRequest, Contradiction, NotSupported, ContextOverflow            (400)
    │   ├── Unauthorized (401), Gated (403)
    │   ├── RepoNotFound, RevisionNotFound, JobNotFound, ...                    (404)
    │   ├── IdempotencyConflict, LockMismatch, AlreadyRunning                   (409)
    │   ├── WontFit, UnsafeFormat, RemoteCode, NoVariant, OfflineMiss, ...      (422)
    │   └── Proof        what was served is not what was asked: Integrity, NotExact
    ├── Transient    retried with backoff: HubUnavailable, RateLimited, HostLost, ModelCold, ...
    ├── Ended        somebody or some clock ended it: Cancelled, Timeout, Expired
    └── Defect       ours: the job fails, the worker lives

The branch decides what happens next; the code is what scripts match on. A library's error is
wrapped once, where the library is called.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Self

PROBLEM_TYPE = "application/problem+json"
"""The media type of a problem document (RFC 9457)."""


class WarmrackError(Exception):
    """Root of the tree. `code` is stable; `message` says what, with the value; `hint` what to do."""

    code: ClassVar[str]
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    hint: str = ""

    def __init__(
        self, message: str, *, hint: str | None = None, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint if hint is not None else type(self).hint
        self.retry_after_seconds = retry_after_seconds

    def to_record(self) -> dict[str, str | bool]:
        """The error as jobs, HTTP answers and `--json` carry it."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "retryable": self.retryable,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> "WarmrackError":
        """The error of a record; an unknown code (from a newer service) becomes its branch's root,
        and a record without a hint gets its kind's."""
        code = str(record.get("code", ""))
        known = {kind.code: kind for kind in leaves()}
        fallback: type[WarmrackError] = Transient if record.get("retryable") else Defect
        kind = known.get(code, fallback)
        hint = record.get("hint")
        return kind(str(record.get("message", "")), hint=None if hint is None else str(hint))

    def to_problem(self) -> dict[str, object]:
        """The error as an RFC 9457 problem document."""
        return {
            "type": f"urn:warmrack:error:{self.code}",
            "title": self.code.replace("-", " "),
            "status": self.status,
            "code": self.code,
            "detail": self.message,
            "hint": self.hint,
            "retryable": self.retryable,
        }

    @classmethod
    def from_problem(cls, problem: Mapping[str, object]) -> "WarmrackError":
        """The error of a problem document, as `from_record` gives it."""
        return cls.from_record({**problem, "message": problem.get("detail", "")})

    def __reduce__(self) -> tuple[type[Self], tuple[str], dict[str, object]]:
        return type(self), (self.message,), self.__dict__


class Refusal(WarmrackError):
    """The request is wrong or cannot be served; asking again gives the same answer."""

    code = "refused"
    hint = "Change what the message names; the same request gets the same answer."
    status = 422
    exit_code = 3


class BadRequest(Refusal):
    """A field is missing, malformed or out of range."""

    code = "bad-request"
    status = 400
    exit_code = 2
    hint = "Correct the named field; the API's schema is at /docs."


class Contradiction(Refusal):
    """Two fields of the request exclude each other."""

    code = "contradiction"
    status = 400
    exit_code = 2
    hint = "Drop one of the two fields that are named."


class NotSupported(Refusal):
    """A known field or value that this version does not serve."""

    code = "not-supported"
    status = 400
    hint = "Leave the field at its default, or use a version that serves it."


class ContextOverflow(Refusal):
    """The prompt and the answer asked for do not fit into the model's context."""

    code = "context-overflow"
    status = 400
    hint = "Shorten the prompt or lower max_tokens."


class Unauthorized(Refusal):
    """The API key or the Hub token is missing or not accepted."""

    code = "unauthorized"
    status = 401
    hint = "Pass a valid key (WARMRACK_API_KEY) or Hub token (WARMRACK_HUB_TOKEN)."


class Gated(Refusal):
    """The repository is gated and the caller's token has not been let in."""

    code = "gated"
    status = 403
    hint = "Accept the conditions on the repository's page, then pass your Hub token."


class NotFound(Refusal):
    """Something named in the request does not exist, or the caller may not know of it."""

    code = "not-found"
    status = 404
    hint = "Check the spelling."


class RepoNotFound(NotFound):
    """No such repository, or a private one that the caller's token does not open."""

    code = "repo-not-found"
    hint = "Check the spelling; for a private repository pass a Hub token that may read it."


class RevisionNotFound(NotFound):
    """The repository has no such branch, tag or commit."""

    code = "revision-not-found"
    hint = "Name a branch, a tag, refs/pr/N or a commit of this repository."


class JobNotFound(NotFound):
    """No job has this id."""

    code = "job-not-found"
    hint = "`warmrack jobs` lists the jobs."


class ResidentNotFound(NotFound):
    """No live resident has this id or model."""

    code = "resident-not-found"
    hint = "`warmrack ps` lists the models that are warm."


class NodeNotFound(NotFound):
    """No live node has this name."""

    code = "node-not-found"
    hint = "`warmrack nodes` lists the nodes."


class ReceiptNotFound(NotFound):
    """The job has no receipt: it has not loaded anything (yet)."""

    code = "receipt-not-found"
    hint = "Receipts exist for succeeded load and prefetch jobs."


class TaskNotFound(NotFound):
    """No downstream task has this name."""

    code = "task-not-found"
    hint = "GET /api/v1/tasks lists the tasks."


class IdempotencyConflict(Refusal):
    """The same idempotency key came with another body."""

    code = "idempotency-conflict"
    status = 409
    hint = "Use a new key for a new request."


class LockMismatch(Refusal):
    """The resolution differs from the locked one."""

    code = "lock-mismatch"
    status = 409
    hint = "`warmrack lock diff` shows what changed."


class AlreadyRunning(Refusal):
    """Another `warmrack up` runs on this state directory."""

    code = "already-running"
    status = 409
    hint = "Stop the other one, or use another --state-dir."


class RevisionDoesNotApply(Refusal):
    """A pinned revision and a substitution exclude each other."""

    code = "revision-does-not-apply"
    hint = "Drop the revision, or ask for mode exact."


class NoVariant(Refusal):
    """No candidate satisfies the request; each rejected one is named with its reason."""

    code = "no-variant"
    hint = "`warmrack explain` shows every candidate and why it was rejected."


class LineageMismatch(Refusal):
    """A substitute is not the same model as the one asked for."""

    code = "lineage-mismatch"
    hint = "Ask for the original, or for another substitute."


class QuantMismatch(Refusal):
    """The checkpoint's quantization is not the one asked for."""

    code = "quant-mismatch"
    hint = "Ask for precision `checkpoint`, or for another repository."


class DeviceUnsupported(Refusal):
    """No device of the pool can run this precision or backend."""

    code = "device-unsupported"
    hint = "`warmrack nodes` lists the devices; ask for another precision."


class WontFit(Refusal):
    """The model needs more memory than any device may give it."""

    code = "wont-fit"
    hint = "Use a larger device, a smaller model, or a quantized precision."


class UnsafeFormat(Refusal):
    """The repository holds its weights only in a format that runs code when it is read."""

    code = "unsafe-format"
    hint = "Ask the publisher for safetensors; pickle formats are refused by policy."


class RemoteCode(Refusal):
    """The model needs Python code of its repository, which is not trusted."""

    code = "remote-code"
    hint = "Review the code, then pin it with trust_remote_code=<commit>."


class BothKinds(Refusal):
    """The repository holds a full model and an adapter; the request does not say which."""

    code = "both-kinds"
    hint = "Say which one you want."


class AdapterBaseUnresolved(Refusal):
    """The adapter's base model cannot be resolved."""

    code = "adapter-base-unresolved"
    hint = "Name the base with adapter_base."


class OfflineMiss(Refusal):
    """Offline was asked for and files are missing from the cache."""

    code = "offline-miss"
    hint = "Prefetch the model while online."


class DiskFull(Refusal):
    """The node's disk has no room for the snapshot; nothing was downloaded."""

    code = "disk-full"
    hint = "Free space on the node, or name another one."


class Poisonous(Refusal):
    """Loading this resolution killed its host or agent three times without progress."""

    code = "poisonous"
    hint = "`warmrack job ID --logs` shows how each attempt ended."


class Proof(Refusal):
    """What is on disk or in memory is not what was asked for; it is never served."""

    code = "not-proved"
    hint = "Load it again; `warmrack receipt JOB` shows what was checked."
    exit_code = 5


class Integrity(Proof):
    """A file's bytes are not those that the Hub's tree names at the pinned commit."""

    code = "integrity"
    hint = "The file is left out of service; load again to fetch a good copy."


class NotExact(Proof):
    """The loaded model differs from the resolution; the audit names the difference."""

    code = "not-exact"
    hint = "`warmrack receipt JOB` shows the check that failed."


class Transient(WarmrackError):
    """A passing condition; retried with backoff."""

    code = "transient"
    hint = "Ask again later; a job is retried by itself."
    status = 503
    exit_code = 4
    retryable = True


class HubUnavailable(Transient):
    """The Hub does not answer, or answers with a server error."""

    code = "hub-unavailable"
    status = 502
    hint = "Check the Hub's status and WARMRACK_HUB_ENDPOINT; the job is retried by itself."


class RateLimited(Transient):
    """The Hub limits our requests."""

    code = "rate-limited"
    status = 503
    hint = "Pass a Hub token for a higher limit; the job is retried by itself."


class HostLost(Transient):
    """The model's host process ended in the middle of the work."""

    code = "host-lost"
    status = 502
    hint = "Ask again; `warmrack doctor` shows hosts that keep dying."


class OutOfMemory(Refusal):
    """The model did not fit although the estimate said it would."""

    code = "out-of-memory"
    hint = "Unload other models or use a larger device."


class ModelCold(Transient):
    """The model is not warm yet; a load job is on its way."""

    code = "model-cold"
    hint = "Ask again after Retry-After; the answer names the load job."

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        retry_after_seconds: float | None = None,
        job: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, retry_after_seconds=retry_after_seconds)
        self.job = job

    def to_problem(self) -> dict[str, object]:
        return super().to_problem() | ({"job": self.job} if self.job is not None else {})


class OverQuota(Transient):
    """A quota of the tenant is used up."""

    code = "over-quota"
    status = 429
    hint = "Wait for your jobs to end, or ask for a larger quota."


class RateLimitedHere(Transient):
    """Too many jobs are queued."""

    code = "rate-limited-here"
    status = 429
    hint = "Ask again after Retry-After."


class StoreUnavailable(Transient):
    """The database or the broker cannot be reached."""

    code = "store-unavailable"
    hint = "Check WARMRACK_DATABASE_URL and WARMRACK_BROKER_URL; `warmrack doctor` tests both."


class Unreachable(Transient):
    """The client cannot reach the service."""

    code = "unreachable"
    exit_code = 7
    hint = "Start it with `warmrack up`, or set WARMRACK_URL."


class Ended(WarmrackError):
    """The work was ended from outside before it was done."""

    code = "ended"
    hint = "Submit it again if you still want it."
    status = 409
    exit_code = 6


class Cancelled(Ended):
    """Somebody cancelled the job."""

    code = "cancelled"
    hint = "Submit it again if you still want it."


class Timeout(Ended):
    """The job was not done timeout_seconds after its submission, or the client stopped waiting."""

    code = "timeout"
    status = 504
    hint = "Give it more time; finished pieces of a download are kept."


class Expired(Ended):
    """The job had not started when its expires_at came."""

    code = "expired"
    hint = "Submit it again with a later expires_at."


class Defect(WarmrackError):
    """A fault of warmrack itself; the job fails, the worker lives."""

    code = "defect"
    hint = "Please report it with `warmrack job ID --logs`."


def leaves() -> Iterator[type[WarmrackError]]:
    """Every class of the tree that has a code, parents first."""
    queue: list[type[WarmrackError]] = [Refusal, Transient, Ended, Defect]
    while queue:
        kind = queue.pop(0)
        yield kind
        queue = kind.__subclasses__() + queue
