"""R6 to R8: of all that may serve a request, the one that does, and why not the others.

The order among offers is total, so that every worker chooses alike:

- mode equivalent: what lies in a cache already, then the repository asked for, then the others;
- mode auto: the repository asked for, as it is stored, where it fits a device of the pool; else as
  mode optimized, of what fits;
- mode optimized: the precision, fewest bytes first; stored quantized before quantized at the load;
  then who says that a repository stands for the asked one (the request, the catalog, the Hub); then
  the smaller download; then the name.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from warmrack_store.durations import format_size
from warmrack_store.errors import (
    Contradiction,
    LineageMismatch,
    LockMismatch,
    NoVariant,
    Refusal,
    RevisionDoesNotApply,
    WarmrackError,
    WontFit,
)
from warmrack_store.locks import LockedLoad
from warmrack_store.requests import LoadRequest, Mode
from warmrack_store.resolution import Rejected, Substitution, TrailLine, describe_quantization
from warmrack_store.resolver.asked import Asked
from warmrack_store.resolver.candidates import Candidate, Provenance
from warmrack_store.resolver.offers import (
    Offer,
    ask_unsloth,
    offer_asked,
    offer_others,
    reject,
)
from warmrack_store.resolver.pool import UNKNOWN, Pool
from warmrack_store.resolver.variants import list_differing_companions, plan_variant

_PRECISIONS = ("nf4", "int8", "fp8")
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    offer: Offer
    rejected: tuple[Rejected, ...]
    lines: tuple[TrailLine, ...]
    """R6, R7 and R8."""
    warnings: tuple[str, ...] = ()


def choose(
    request: LoadRequest,
    asked: Asked,
    candidates: Sequence[Candidate],
    rejected: Sequence[Rejected],
    pool: Pool,
) -> Choice:
    """The offer that serves the request. Raises the Refusal that says why none does."""
    if request.locked is not None:
        return _choose_locked(request, asked, candidates, request.locked, pool)
    alone = not (candidates or rejected) and request.mode is not Mode.AUTO
    if request.mode is Mode.EXACT or alone:
        return _conclude(request, asked, offer_asked(request, asked), candidates, rejected)
    if request.mode is Mode.AUTO:
        own = _offer_own(request, asked)
        if isinstance(own, Offer) and pool.fits(own.variant.memory):
            return _conclude(request, asked, own, candidates, rejected)
        request = request.model_copy(update={"mode": Mode.OPTIMIZED})
        return _choose(request, asked, candidates, rejected, pool, must_fit=True)
    return _choose(request, asked, candidates, rejected, pool, must_fit=False)


def _choose(
    request: LoadRequest,
    asked: Asked,
    candidates: Sequence[Candidate],
    rejected: Sequence[Rejected],
    pool: Pool,
    *,
    must_fit: bool,
) -> Choice:
    judged = [_offer_own(request, asked), *offer_others(request, asked, candidates, pool)]
    offers = [one for one in judged if isinstance(one, Offer)]
    ruled_out = [*rejected, *(one for one in judged if isinstance(one, Rejected))]
    room = pool if must_fit else UNKNOWN
    fitting = [one for one in offers if room.fits(one.variant.memory)]
    ruled_out += [_too_big(one, pool) for one in offers if not room.fits(one.variant.memory)]
    if not fitting:
        raise _refuse(request, asked, ruled_out, offers)
    ordered = sorted(fitting, key=lambda offer: _rank(request, offer, pool))
    ruled_out += [_ranked_lower(one, ordered[0]) for one in ordered[1:]]
    return _conclude(request, asked, ordered[0], candidates, ruled_out)


def _choose_locked(
    request: LoadRequest,
    asked: Asked,
    candidates: Sequence[Candidate],
    locked: LockedLoad,
    pool: Pool,
) -> Choice:
    """The offer that the lock holds, whatever fits and whatever the catalog says now; an exact
    request has no other than its own repository, even by a lock."""
    if request.mode is Mode.EXACT:
        candidates = ()
    modes = [request.mode] if request.mode is not Mode.AUTO else [Mode.AUTO, Mode.OPTIMIZED]
    judged: list[Offer | Rejected] = []
    for mode in modes:
        as_mode = request.model_copy(update={"mode": mode})
        judged.append(_offer_own(as_mode, asked))
        judged += offer_others(as_mode, asked, candidates, pool)
    wanted = (locked.repository, locked.commit, locked.precision, locked.quantization)
    for one in judged:
        if isinstance(one, Offer) and wanted == (
            one.ref.repository,
            one.ref.commit,
            one.variant.precision,
            describe_quantization(one.variant.quantization),
        ):
            return _conclude(request, asked, one, candidates, ())
    found = "; ".join(
        f"{one.repository}: {one.reason}" if isinstance(one, Rejected) else _describe(one)
        for one in judged
    )
    raise LockMismatch(
        f"{request.model} is locked as {locked.precision} from {locked.repository} at "
        f"{locked.commit}; now there is {found}"
    )


def _offer_own(request: LoadRequest, asked: Asked) -> Offer | Rejected:
    """The asked repository; not where Unsloth would load another one in its place."""
    name = asked.ref.repository
    if request.mode is Mode.COMPAT_UNSLOTH:
        resolved = ask_unsloth(request, asked).resolved or name
        if resolved.lower() not in {name.lower(), request.ref().repository.lower()}:
            reason = f"Unsloth loads {resolved} in its place"
            return Rejected(repository=name, code=_REDIRECTED, reason=reason)
    try:
        return offer_asked(request, asked)
    except Contradiction:
        raise
    except Refusal as refusal:
        return reject(name, refusal)


def _rank(request: LoadRequest, offer: Offer, pool: Pool) -> tuple[object, ...]:
    variant, name = offer.variant, offer.ref.repository
    provenance = list(Provenance).index(offer.provenance)
    cached = request.mode is Mode.EQUIVALENT and (name, offer.ref.commit) in pool.cached
    return (
        not cached,
        _PRECISIONS.index(variant.precision) if variant.precision in _PRECISIONS else 9,
        offer.on_the_fly,
        provenance,
        variant.size_bytes,
        name.lower(),
        name,
    )


def _conclude(
    request: LoadRequest,
    asked: Asked,
    offer: Offer,
    candidates: Sequence[Candidate],
    rejected: Sequence[Rejected],
) -> Choice:
    names = [asked.ref.repository, *(one.proposal.repository for one in candidates)]
    others = [one for one in rejected if one.code == LineageMismatch.code]
    memory = offer.variant.memory.total_bytes
    lines = (
        TrailLine(
            rule="R6",
            input=f"mode {request.mode.value}",
            decision=_list_some(names),
            alternatives=tuple(one.repository for one in rejected if one.code in _UNASKED),
            evidence="an exact request has no other candidate"
            if request.mode is Mode.EXACT
            else "the request, the catalog and the Hub's tags",
        ),
        TrailLine(
            rule="R7",
            input=_list_some(names),
            decision=f"{len(others)} rejected" if others else "passes",
            alternatives=tuple(one.repository for one in others),
            evidence="the candidate is the repository asked for"
            if len(names) == 1
            else "architecture, dimensions, vocabulary, parameters and kind are compared",
        ),
        TrailLine(
            rule="R8",
            input=f"{offer.variant.size_bytes} bytes of files, {memory} bytes of memory",
            decision=f"{offer.ref.repository} {offer.variant.precision}, "
            "within the request's limits",
            alternatives=tuple(one.repository for one in rejected if one.code == _RANKED),
            evidence=f"max_download_bytes {request.max_download_bytes}, "
            f"max_memory_bytes {request.max_memory_bytes}",
        ),
    )
    return Choice(
        offer=offer, rejected=tuple(rejected), lines=lines, warnings=_warn(request, asked, offer)
    )


def _warn(request: LoadRequest, asked: Asked, offer: Offer) -> tuple[str, ...]:
    """What differs from the repository asked for although the mode allows it."""
    found = []
    if offer.ref.repository != asked.ref.repository and request.ref().revision is not None:
        found.append(f"revision {request.ref().revision} is dropped, as Unsloth does")
    if offer.substitution is Substitution.EQUIVALENT:
        own = plan_variant(request, asked.facts)
        differing = list_differing_companions(own, offer.variant)
        if differing:
            found.append(f"not as in {asked.ref.repository}: {_list_some(differing)}")
    return tuple(found)


_UNASKED = frozenset({"publisher-not-allowed", "too-many"})
_RANKED = "ranked-lower"
_REDIRECTED = "redirected"


def _ranked_lower(offer: Offer, best: Offer) -> Rejected:
    return Rejected(
        repository=offer.ref.repository,
        code=_RANKED,
        reason=f"{_describe(offer)} comes after {_describe(best)}",
    )


def _too_big(offer: Offer, pool: Pool) -> Rejected:
    needs = format_size(offer.variant.memory.total_bytes)
    return Rejected(
        repository=offer.ref.repository,
        code=WontFit.code,
        reason=f"{offer.variant.precision} needs {needs}; the largest device is "
        f"{pool.describe_largest()}",
    )


def _describe(offer: Offer) -> str:
    how = " made at the load" if offer.on_the_fly else ""
    return f"{offer.variant.precision}{how} from {offer.ref.repository}"


def _refuse(
    request: LoadRequest, asked: Asked, rejected: Sequence[Rejected], offers: Sequence[Offer]
) -> WarmrackError:
    """The one reason where all candidates share it, else `no-variant` with each one's."""
    if offers:
        smallest = min(offers, key=lambda offer: offer.variant.memory.total_bytes)
        needs = format_size(smallest.variant.memory.total_bytes)
        return WontFit(
            f"nothing that stands for {asked.ref.repository} fits the pool; the smallest, "
            f"{_describe(smallest)}, needs {needs}",
            hint="Add a larger device, or lower max_seq_length.",
        )
    asked_about = [one for one in rejected if one.code not in {*_UNASKED, _REDIRECTED}]
    codes = {one.code for one in asked_about}
    if len(codes) == 1:
        reasons = "; ".join(one.reason for one in asked_about)
        hint = next((one.hint for one in asked_about if one.hint is not None), None)
        return WarmrackError.from_record({"code": codes.pop(), "message": reasons, "hint": hint})
    reasons = "; ".join(f"{one.repository}: {one.reason}" for one in rejected)
    if RevisionDoesNotApply.code in codes:
        return RevisionDoesNotApply(
            f"{request.model} is pinned, and only others could serve: {reasons}"
        )
    return NoVariant(f"nothing can serve {request.model} as asked: {reasons}")


def _list_some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
