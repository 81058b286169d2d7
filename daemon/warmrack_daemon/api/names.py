"""Which names of repositories one caller may see, and how rows look without them.

A row that a caller may not read is still there, so that counts, bytes and places add up: its names
are `(not public)`, and what would tell them is left out.
"""

import hmac
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import Depends, Header

from warmrack_daemon.api.callers import HubToken, ServicesOf
from warmrack_daemon.services import Services
from warmrack_store.errors import ReceiptNotFound
from warmrack_store.ledgers.jobs import Job
from warmrack_store.ledgers.residents import Resident
from warmrack_store.refs import parse_model
from warmrack_store.resolution import Resolution

HIDDEN = "(not public)"
_TELLING = ("resolution", "resident", "receipt", "result", "lock")
"""Fields of a job that name its model, or lead to what does."""
_COUNTERS = ("hub_bytes", "peer_bytes", "local_bytes", "deduplicated_bytes")


class Names:
    """What one caller may see; `everything` for an operator."""

    def __init__(self, services: Services, token: str | None, *, everything: bool = False) -> None:
        self._services = services
        self._token = token
        self._everything = everything

    def list_seen(self, repositories: Iterable[str]) -> frozenset[str]:
        """Those among them, in lower case, that the caller may know of."""
        if self._everything:
            return frozenset(name.lower() for name in repositories)
        return self._services.rights.list_readable(repositories, self._token)

    def sees(self, repositories: Iterable[str]) -> bool:
        """Whether the caller may know of all of them."""
        names = {name.lower() for name in repositories}
        return names <= self.list_seen(names)

    def asked(self, job: Job) -> bool:
        """Whether the job was submitted with the caller's own token, or as the caller without one."""
        return job.rights == self._services.vault.mark(self._token)


def names_of(
    services: ServicesOf,
    token: HubToken,
    x_operator_token: Annotated[str | None, Header()] = None,
) -> Names:
    """The caller's, by X-Hub-Token; everything where X-Operator-Token is the operator's."""
    wanted, shown = services.settings.operator_token, x_operator_token or ""
    operator = wanted is not None and hmac.compare_digest(wanted.encode(), shown.encode())
    return Names(services, token, everything=operator)


NamesOf = Annotated[Names, Depends(names_of)]


def list_job_names(job: Job, resolution: Resolution | None) -> frozenset[str]:
    """Every repository that a job's answer may name."""
    request = job.submission["request"]
    found = {job.model}
    for spelling in (request.get("adapter"), request.get("adapter_base")):
        if spelling and "/" in spelling:
            found.add(parse_model(spelling).repository)
    if resolution is not None:
        found |= {part.repository for part in resolution.parts}
    return frozenset(found)


def show_jobs(
    names: Names, found: Sequence[tuple[Job, Resolution | None, dict[str, Any]]]
) -> list[dict[str, Any]]:
    """The views of jobs with their resolutions, without what the caller may not see.

    A job that nobody has resolved says only what its submitter wrote, who may read it again.
    """
    about = {
        job.id: list_job_names(job, resolution)
        for job, resolution, _ in found
        if not (resolution is None and names.asked(job))
    }
    seen = names.list_seen(name for held in about.values() for name in held)
    return [
        view
        if {name.lower() for name in about.get(job.id, ())} <= seen
        else _hide_job(view, own=names.asked(job))
        for job, _, view in found
    ]


def _hide_job(view: Mapping[str, Any], *, own: bool) -> dict[str, Any]:
    hidden = {**view, "model": HIDDEN, "request": {}, **dict.fromkeys(_TELLING)}
    hidden["progress"] = {**view["progress"], "waiting_for": None}
    if view["error"] is not None and not own:
        hidden["error"] = {**view["error"], "message": HIDDEN}
    return hidden


def hide_event(data: Mapping[str, Any]) -> dict[str, Any]:
    """Of an event only when it was and which state the job moved to."""
    return {name: value for name, value in data.items() if name in ("at", "state", "cause")}


def show_residents(
    names: Names, found: Sequence[tuple[Resident, dict[str, Any]]]
) -> list[dict[str, Any]]:
    """The views of residents, without what the caller may not see."""
    seen = names.list_seen(resident.repository for resident, _ in found)
    hidden = {"model": HIDDEN, "commit": None, "receipt": None, "cause": None}
    return [
        view if resident.repository.lower() in seen else {**view, **hidden}
        for resident, view in found
    ]


def show_copies(names: Names, views: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The views of copies, without what the caller may not see."""
    seen = names.list_seen(view["repository"] for view in views)
    hidden = {"repository": HIDDEN, "commit": ""}
    return [view if view["repository"].lower() in seen else {**view, **hidden} for view in views]


def show_egress_rows(names: Names, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sums by repository; those that the caller may not see are one sum."""
    seen = names.list_seen(row["repository"] for row in rows)
    shown = [row for row in rows if row["repository"].lower() in seen]
    rest = [row for row in rows if row["repository"].lower() not in seen]
    if not rest:
        return shown
    counted = [name for name in _COUNTERS if name in rest[0]]
    sums = {name: sum(row[name] for row in rest) for name in counted}
    return [*shown, {"repository": HIDDEN, **sums}]


def check_receipt(names: Names, receipt_id: str, repositories: Collection[str]) -> None:
    """Raise ReceiptNotFound, as for one that is not there, for a caller who may not see it."""
    if not names.sees(repositories):
        raise ReceiptNotFound(
            f"there is no receipt {receipt_id[:80]!r} that this caller may read",
            hint="Pass a Hub token that reads its model.",
        )
