"""The body of a submission: a request, and how the job around it is to be run."""

import re
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from warmrack_store.durations import check_keep_alive
from warmrack_store.errors import BadRequest, Contradiction, NotSupported
from warmrack_store.records import Record, canonical_json, digest_json, parse_record
from warmrack_store.requests import LoadRequest, LockUse
from warmrack_store.requests import check_supported as check_request_supported
from warmrack_store.states import JobKind, Priority, Tier

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
Name = Annotated[str, Field(pattern=rf"^{_NAME.pattern}$")]


class Submission(Record):
    """The body of POST /jobs: a request and how the job around it is to be run."""

    kind: JobKind
    request: LoadRequest
    nodes: str | tuple[Name, ...] | None = Field(None, description="all, a number, or names")
    lock_digest: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="the stored lock that holds the request"
    )
    tier: Tier | None = Field(None, description="device for load and task; disk or ram: prefetch")
    keep_alive: Annotated[str, AfterValidator(check_keep_alive)] | None = None
    priority: Priority = Priority.NORMAL
    task: Name | None = None
    payload: dict[str, Any] | None = None
    callback_url: str | None = None
    timeout_seconds: float | None = Field(
        None, gt=0, le=7 * 86400, description="counted from the submission, waiting included"
    )
    expires_at: datetime | None = None
    max_attempts: int = Field(5, ge=1, le=100)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.kind is JobKind.TASK) != (self.task is not None):
            raise Contradiction(
                "task is for kind task, and kind task needs one",
                hint='Give kind "task" together with task and payload.',
            )
        if self.payload is not None and self.kind is not JobKind.TASK:
            raise Contradiction("payload is for kind task", hint='Give kind "task", or drop it.')
        if self.tier is not None and (self.kind is JobKind.PREFETCH) == (self.tier is Tier.DEVICE):
            raise Contradiction(
                f"kind {self.kind.value} excludes tier {self.tier.value}",
                hint="prefetch ends at disk or ram, load and task at device.",
            )
        if self.lock_digest is not None and self.request.lock is LockUse.NONE:
            raise Contradiction(
                "lock_digest is given, but request.lock is none", hint="Set lock to require."
            )
        if self.expires_at is not None and self.expires_at.tzinfo is None:
            raise BadRequest("expires_at has no time zone", hint="Append Z or +00:00.")
        if self.counts_nodes and self.nodes != "all" and int(str(self.nodes)) == 0:
            raise BadRequest("nodes: 0 nodes are none", hint="Name at least one node, or say all.")
        for name in self.node_names() or ():
            if not _NAME.fullmatch(name):
                raise BadRequest(f"nodes: {name[:80]!r} is not a node's name")
        try:
            canonical_json(self.payload)
        except ValueError as error:  # NaN and infinity, which some JSON parsers let pass
            raise BadRequest(f"payload: {error}") from error
        return self

    @property
    def reached_tier(self) -> Tier:
        """Where the job ends."""
        if self.tier is not None:
            return self.tier
        return Tier.DISK if self.kind is JobKind.PREFETCH else Tier.DEVICE

    def node_names(self) -> tuple[str, ...] | None:
        """The nodes named; None where the pool chooses."""
        if self.nodes in (None, "1", ()):
            return None
        if isinstance(self.nodes, str):
            return tuple(part.strip() for part in self.nodes.split(",") if part.strip())
        return self.nodes

    @property
    def counts_nodes(self) -> bool:
        """Whether it says how many nodes, not which."""
        return self.nodes == "all" or (isinstance(self.nodes, str) and self.nodes.isdigit())

    @property
    def is_spread(self) -> bool:
        """Whether it is for several nodes: a job for each, and one that ends with the last."""
        names = self.node_names() or ()
        return len(names) > 1 or (self.counts_nodes and bool(names))

    def fingerprint(self) -> str | None:
        """Equal for jobs that may join one another; None for tasks, which each do their own work,
        and for jobs of several nodes, whose jobs for each node join others."""
        if self.kind is JobKind.TASK or self.is_spread:
            return None
        nodes = sorted(self.node_names() or ())
        return digest_json([self.request.digest(), self.reached_tier.value, nodes])


def parse_submission(data: object) -> Submission:
    """The submission in `data`; raises BadRequest, Contradiction or NotSupported, in that order."""
    submission = parse_record(Submission, data)
    check_supported(submission)
    return submission


def check_supported(submission: Submission) -> None:
    """Raise NotSupported for what this version knows but does not serve."""
    check_request_supported(submission.request)
    if submission.tier is Tier.RAM:
        raise NotSupported(
            "tier ram is not served by this version", hint="Use tier disk or device."
        )
    if submission.is_spread and submission.kind is not JobKind.PREFETCH:
        raise NotSupported(
            f"a {submission.kind} for several nodes ({submission.nodes!r}) is not served by this "
            "version",
            hint="Prefetch onto several nodes; name one node to load on, or leave nodes out.",
        )
    if submission.callback_url is not None:
        raise NotSupported("callback_url is not served by this version", hint="Wait on the job.")
