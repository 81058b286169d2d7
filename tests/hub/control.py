"""A client by which tests drive a running Hub, and the processes that run one."""

import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.hub.faults import Fault, FaultRule, Origin, rule_to_json
from tests.hub.journal import Traffic
from tests.hub.repositories import RefKind

CHECKOUT = Path(__file__).resolve().parents[2]
_STOP_SECONDS = 10.0
# A `wait` answers as late as the test allows; the socket must outlast it.
_SPARE_SECONDS = 30.0


class HubCallError(Exception):
    """The Hub refused an operation; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A repository to serve: its folder and who may read it."""

    folder: Path
    labels: tuple[str, ...] = ()
    private: bool = False
    gated: bool = False
    disabled: bool = False
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    origin: Origin
    method: str
    path: str
    repository: str | None
    file: str | None
    traffic: Traffic
    requests: int
    sent_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitFacts:
    """What a revision names; `etags` are sha256 of LFS files and git-sha1 of regular ones."""

    sha: str
    etags: Mapping[str, str]
    sizes_bytes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRequest:
    origin: Origin
    method: str
    path: str
    has_token: bool
    range: str | None
    repository: str | None
    file: str | None
    traffic: Traffic
    status: int | None
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class Counts:
    """What was asked and sent since the last reset; a selection left out is any."""

    rows: tuple[Count, ...]

    def requests(self, **selection: str | None) -> int:
        return sum(row.requests for row in self._select(selection))

    def sent_bytes(self, **selection: str | None) -> int:
        return sum(row.sent_bytes for row in self._select(selection))

    def file_bytes(self, **selection: str | None) -> int:
        """Body bytes of repository files, whichever origin sent them."""
        return self.sent_bytes(traffic=Traffic.FILE, **selection)

    def _select(self, selection: Mapping[str, str | None]) -> Iterator[Count]:
        """`path` is a regular expression searched for; `origin, method, repository, file,
        traffic` are compared."""
        wanted = {name: value for name, value in selection.items() if value is not None}
        pattern = re.compile(wanted.pop("path", ""))
        for row in self.rows:
            same = all(getattr(row, name) == value for name, value in wanted.items())
            if same and pattern.search(row.path):
                yield row


@dataclass(frozen=True, slots=True)
class Hub:
    """A running Hub; every method may be called from any thread or process."""

    url: str
    cdn_url: str
    pid: int

    def add_repository(self, name: str, served: Served | Path) -> str:
        """Serve a folder (again, as a new repository of that name); the sha of its commit."""
        held = served if isinstance(served, Served) else Served(folder=served)
        sha: str = self._call(
            "add-repository",
            name=name,
            folder=str(held.folder.resolve()),
            labels=held.labels,
            private=held.private,
            gated=held.gated,
            disabled=held.disabled,
        )
        for token in held.tokens:
            self.grant(token, name)
        return sha

    def add_commit(
        self,
        name: str,
        *,
        folder: Path | None = None,
        files: Mapping[str, bytes] | None = None,
        removed: Iterable[str] = (),
        branch: str = "main",
        title: str = "another commit",
    ) -> str:
        """Move a branch (made from `main` where new) on by one commit; its sha. A folder replaces
        the tree, then `files` are laid over it and `removed` taken out."""
        sha: str = self._call(
            "add-commit",
            name=name,
            folder=None if folder is None else str(folder.resolve()),
            files=_encode(files or {}),
            removed=list(removed),
            branch=branch,
            title=title,
        )
        return sha

    def force_push(self, name: str, *, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Put a branch on a new commit without ancestors, its tree with `files` laid over it; its
        sha. The commit that the branch was on is still there, until `remove_commit`."""
        sha: str = self._call("force-push", name=name, branch=branch, files=_encode(files))
        return sha

    def remove_commit(self, name: str, sha: str) -> None:
        """Forget a commit that no branch or tag is on."""
        self._call("remove-commit", name=name, sha=sha)

    def set_branch(self, name: str, branch: str, revision: str | None) -> None:
        """Point a branch at any revision, also back; None removes it."""
        self._call("set-ref", name=name, kind=RefKind.BRANCH, ref=branch, revision=revision)

    def set_tag(self, name: str, tag: str, revision: str | None) -> None:
        self._call("set-ref", name=name, kind=RefKind.TAG, ref=tag, revision=revision)

    def change_repository(
        self,
        name: str,
        *,
        private: bool | None = None,
        gated: bool | None = None,
        disabled: bool | None = None,
    ) -> None:
        """Change what is not None."""
        self._call("change-repository", name=name, private=private, gated=gated, disabled=disabled)

    def move_repository(self, name: str, new_name: str) -> None:
        """Rename; the old name answers with a redirect, rights go along."""
        self._call("move-repository", name=name, new_name=new_name)

    def remove_repository(self, name: str) -> None:
        self._call("remove-repository", name=name)

    def get_commit(self, name: str, revision: str = "main") -> CommitFacts:
        return CommitFacts(**self._call("get-commit", name=name, revision=revision))

    def grant(self, token: str, *repositories: str, user: str | None = None) -> None:
        """Make a token known, and a reader of these private or gated repositories."""
        self._call("grant", token=token, repositories=list(repositories), user=user)

    def revoke(self, token: str, *repositories: str) -> None:
        """Take repositories from a token, or the token itself when none are named."""
        self._call("revoke", token=token, repositories=list(repositories) or None)

    def configure(self, **settings: float) -> None:
        """`page_entries`, `signature_ttl_seconds`: see `HubSettings`."""
        self._call("configure", **settings)

    def add_fault(
        self,
        fault: Fault,
        *,
        path: str = "",
        method: str | None = None,
        origin: Origin | None = None,
        skip: int = 0,
        times: int | None = None,
    ) -> int:
        """Put a fault in force (see `FaultRule`); the number clears it again."""
        rule = FaultRule(
            fault=fault, path=path, method=method, origin=origin, skip=skip, times=times
        )
        number: int = self._call("add-fault", **rule_to_json(rule))
        return number

    def clear_faults(self, *numbers: int) -> None:
        """Clear these, or every one when none are named; requests they hold go on."""
        self._call("clear-faults", numbers=list(numbers) or None)

    def count_fired(self, number: int) -> int:
        """How many requests a fault in force has met."""
        fired: dict[str, int] = self._call("list-fired")
        return fired[str(number)]

    def read_counts(self) -> Counts:
        return Counts(tuple(Count(**row) for row in self._call("count")))

    def serve_xet(self, folder: Path | None) -> None:
        """Offer LFS files as Xet objects too, kept in `folder`; None: no more."""
        self._call("serve-xet", folder=None if folder is None else str(folder.resolve()))

    def reset_counts(self) -> None:
        """Start from nothing; an answer that is under way is no longer counted."""
        self._call("reset-counts")

    def list_requests(self, **selection: str) -> list[SeenRequest]:
        """Requests in order of arrival; selected by `origin, method, path, repository, traffic`."""
        return [SeenRequest(**row) for row in self._call("list-requests", selection=selection)]

    def wait_for(
        self,
        *,
        requests: int = 0,
        sent_bytes: int = 0,
        timeout_seconds: float = 10.0,
        **selection: str,
    ) -> None:
        """Return once so many selected requests arrived and bytes went out, or TimeoutError."""
        met = self._call(
            "wait",
            timeout=timeout_seconds + _SPARE_SECONDS,
            selection=selection,
            requests=requests,
            sent_bytes=sent_bytes,
            timeout_seconds=timeout_seconds,
        )
        if not met:
            raise TimeoutError(f"no {requests} requests and {sent_bytes} bytes of {selection}")

    def _call(self, operation: str, *, timeout: float = _SPARE_SECONDS, **arguments: Any) -> Any:
        parts = urlsplit(self.url)
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
        try:
            connection.request("POST", f"/_hub/{operation}", json.dumps(arguments))
            response = connection.getresponse()
            result = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise HubCallError(f"{operation}: {result['error']}")
        return result


def _encode(files: Mapping[str, bytes]) -> dict[str, str]:
    return {path: base64.b64encode(body).decode() for path, body in files.items()}


@contextmanager
def running_hub(
    repos: Mapping[str, Served | Path] | None = None, *, options: Iterable[str] = ()
) -> Iterator[Hub]:
    """A Hub in a process of its own, with these repositories, until the block ends; it ends by
    itself when this process is killed. `options` are those of `python -m tests.hub`."""
    command = [sys.executable, "-m", "tests.hub", "--until-stdin-closes", *options]
    with subprocess.Popen(
        command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise HubCallError(f"the hub did not start: exit code {process.wait()}")
            hub = Hub(**json.loads(line))
            for name, served in (repos or {}).items():
                hub.add_repository(name, served)
            yield hub
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
