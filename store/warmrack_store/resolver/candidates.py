"""R6: which repositories may serve a request besides the one that it names."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from warmrack_store.catalog import CATALOG_VERSION, Substitute, list_substitutes
from warmrack_store.errors import Refusal
from warmrack_store.requests import LoadRequest, Mode, Quantize
from warmrack_store.resolution import Rejected
from warmrack_store.resolver.asked import Asked
from warmrack_store.resolver.compat import answer, ask_compat

MAX_ASKED = 32
"""Repositories that one request may make the Hub describe; what comes after them in the order is
rejected by name."""


class Provenance(StrEnum):
    """Who says that a repository stands for another; earlier ones are preferred."""

    ASKED = "asked"
    LOCK = "lock"
    EQUAL = "equal"
    """A revision known here holds the same weights."""
    CATALOG = "catalog"
    HUB = "hub"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A repository that somebody says stands for the one asked for."""

    repository: str
    provenance: Provenance
    evidence: str
    """The catalog's row, or the tag of the Hub."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A proposal with what the Hub says about it to this caller: facts, or why there are none."""

    proposal: Proposal
    found: Asked | Refusal


def propose(
    request: LoadRequest, repository: str, proposals: Iterable[Proposal]
) -> tuple[tuple[Proposal, ...], tuple[Rejected, ...]]:
    """The proposals worth asking the Hub about, each repository once, and the rejected rest.

    `repository` is the asked one's canonical name. Only publishers that the request allows supply
    a substitute; by default the asked repository's own organisation. Unsloth asks nobody.
    """
    own = repository.partition("/")[0]
    allowed = tuple(glob.lower() for glob in request.publishers) or (own.lower(),)
    if request.mode is Mode.COMPAT_UNSLOTH:
        allowed = ("*",)
    kept: dict[str, Proposal] = {}
    rejected: dict[str, Rejected] = {}
    for proposal in sorted(proposals, key=_rank):
        name = proposal.repository.lower()
        if name == repository.lower() or name in kept or name in rejected:
            continue
        if not any(fnmatchcase(name.partition("/")[0], glob) for glob in allowed):
            rejected[name] = _reject(
                proposal,
                "publisher-not-allowed",
                f"publishers allows {', '.join(request.publishers) or own} only",
            )
        elif len(kept) >= MAX_ASKED:
            rejected[name] = _reject(proposal, "too-many", f"comes after {MAX_ASKED} others")
        else:
            kept[name] = proposal
    return tuple(kept.values()), tuple(rejected.values())


def _rank(proposal: Proposal) -> tuple[int, str, str]:
    return (
        list(Provenance).index(proposal.provenance),
        proposal.repository.lower(),
        proposal.repository,
    )


def _reject(proposal: Proposal, code: str, reason: str) -> Rejected:
    return Rejected(repository=proposal.repository, code=code, reason=reason)


def wants_children(request: LoadRequest) -> bool:
    """Whether the Hub is asked for quantized children of the repository."""
    own_only = request.quantize in (Quantize.ON_THE_FLY, Quantize.NEVER)
    return request.mode in (Mode.OPTIMIZED, Mode.AUTO) and not own_only


def list_proposals(
    request: LoadRequest,
    repository: str,
    *,
    children: Iterable[str],
    equals: Iterable[str],
    model_type: str | None = None,
) -> tuple[Proposal, ...]:
    """All that may stand for the repository in the request's mode.

    `equals` are repositories known to hold the same weights, `children` those that the Hub's tags
    call quantizations of it. Unsloth loads a `model_type` that it does not know in another way.
    """
    if request.mode is Mode.EXACT or request.quantize is Quantize.ON_THE_FLY:
        return ()
    if request.mode is Mode.COMPAT_UNSLOTH:
        return _propose_as_unsloth(request, repository, model_type)
    said = [
        *((name, Provenance.EQUAL, "the same weights, by digest") for name in equals),
        *((one.repository, Provenance.CATALOG, _cite(one)) for one in list_substitutes(repository)),
        *((name, Provenance.HUB, f"base_model:quantized:{repository}") for name in children),
    ]
    return tuple(
        Proposal(repository=name, provenance=provenance, evidence=evidence)
        for name, provenance, evidence in said
    )


def _cite(one: Substitute) -> str:
    return f"{CATALOG_VERSION} {one.origin.file}:{one.origin.line}"


def _propose_as_unsloth(
    request: LoadRequest, repository: str, model_type: str | None
) -> tuple[Proposal, ...]:
    resolved = answer(ask_compat(request, model_type=model_type)).resolved
    if resolved is None or resolved.lower() == repository.lower():
        return ()
    evidence = f"compat:unsloth {CATALOG_VERSION}"
    return (Proposal(repository=resolved, provenance=Provenance.CATALOG, evidence=evidence),)
