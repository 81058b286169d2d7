"""The ways to serve a request that its mode allows, each repository judged on its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from warmrack_store.errors import DeviceUnsupported, NoVariant, Refusal, RevisionDoesNotApply
from warmrack_store.facts import RefFact
from warmrack_store.requests import PLAIN_PRECISIONS, LoadRequest, Mode, Quantize
from warmrack_store.resolution import QuantizationSource, Rejected, Substitution
from warmrack_store.resolver import rules
from warmrack_store.resolver.asked import Asked
from warmrack_store.resolver.candidates import Candidate, Provenance
from warmrack_store.resolver.compat import CompatAnswer, answer, ask_compat
from warmrack_store.resolver.declared import Declared
from warmrack_store.resolver.lineage import check_lineage
from warmrack_store.resolver.pool import Pool
from warmrack_store.resolver.variants import Variant, have_equal_weights, plan_variant

BY_DEFAULT = "nf4"
"""What a quantization that nobody names is: 4 bits, the fewest that every device here can do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One way to serve the request; the caller's right to the repository is checked already."""

    ref: RefFact
    variant: Variant
    provenance: Provenance
    substitution: Substitution

    @property
    def on_the_fly(self) -> bool:
        quantization = self.variant.quantization
        return quantization is not None and quantization.source is QuantizationSource.ON_THE_FLY


def offer_asked(request: LoadRequest, asked: Asked) -> Offer:
    """The repository that the request names, loaded as the mode has it. Raises Refusals."""
    variant = plan_variant(_own_request(request, asked), asked.facts)
    rules.check_limits(request, variant.memory, variant.size_bytes)
    made = variant.quantization is not None and (
        variant.quantization.source is QuantizationSource.ON_THE_FLY
    )
    return Offer(
        ref=asked.ref,
        variant=variant,
        provenance=Provenance.ASKED,
        substitution=Substitution.QUANTIZED if made else name_substitution(request, asked.ref),
    )


def name_substitution(request: LoadRequest, ref: RefFact) -> Substitution:
    """Of the asked repository itself: another case or an old name of it is an alias."""
    same = request.ref().repository == ref.repository
    return Substitution.NONE if same else Substitution.ALIAS


def offer_others(
    request: LoadRequest, asked: Asked, candidates: Sequence[Candidate], pool: Pool
) -> Iterator[Offer | Rejected]:
    """What each of the other repositories could do for the request, in their order."""
    own = None
    if request.mode is Mode.EQUIVALENT:
        own = plan_variant(request, asked.facts)
    for candidate in candidates:
        try:
            yield _offer_other(request, asked, own, candidate, pool)
        except Refusal as refusal:
            yield reject(candidate.proposal.repository, refusal)


def _offer_other(
    request: LoadRequest, asked: Asked, own: Variant | None, candidate: Candidate, pool: Pool
) -> Offer | Rejected:
    name = candidate.proposal.repository
    if request.ref().revision is not None and request.mode is not Mode.COMPAT_UNSLOTH:
        raise RevisionDoesNotApply(
            f"revision {request.ref().revision} is one of {asked.ref.repository}, not of {name}"
        )
    if isinstance(candidate.found, Refusal):
        raise candidate.found
    ref, facts = candidate.found.ref, candidate.found.facts
    if (mismatch := check_lineage(asked.facts, facts)) is not None:
        return mismatch
    variant = plan_variant(_other_request(request, asked), facts)
    rules.check_limits(request, variant.memory, variant.size_bytes)
    if request.quantize is Quantize.NEVER and own is None and variant.quantized:
        raise NoVariant(f"{name} is quantized, which quantize never excludes")
    if own is not None and not have_equal_weights(own, variant, pool.roots):
        raise NoVariant(f"{name} is not known to hold the same tensors")
    if request.precision == "checkpoint" and _must_be_quantized(request) and not variant.quantized:
        raise NoVariant(f"{name} is not quantized")
    return Offer(
        ref=ref,
        variant=variant,
        provenance=candidate.proposal.provenance,
        substitution=_name_other(own, variant),
    )


def _name_other(own: Variant | None, variant: Variant) -> Substitution:
    if own is not None:
        return Substitution.EQUIVALENT
    return Substitution.QUANTIZED if variant.quantized else Substitution.MIRROR


def _must_be_quantized(request: LoadRequest) -> bool:
    return request.mode in (Mode.OPTIMIZED, Mode.AUTO)


def _own_request(request: LoadRequest, asked: Asked) -> LoadRequest:
    """The request as it is put to the asked repository's own weights."""
    if request.mode is Mode.COMPAT_UNSLOTH:
        return _as_unsloth(request, asked)
    if request.mode is not Mode.OPTIMIZED or request.precision in PLAIN_PRECISIONS - {"checkpoint"}:
        return request
    plain = rules.is_plain(asked.facts)
    if request.precision == "checkpoint" and plain and request.quantize is not Quantize.NEVER:
        return request.model_copy(update={"precision": BY_DEFAULT})
    return request


def _other_request(request: LoadRequest, asked: Asked) -> LoadRequest:
    """The request as it is put to a stand-in: nothing is quantized that is not stored so."""
    if request.mode is Mode.COMPAT_UNSLOTH:
        return _as_unsloth(request, asked)
    if request.mode is Mode.EQUIVALENT:
        return request
    return request.model_copy(update={"quantize": Quantize.PREQUANTIZED})


def ask_unsloth(request: LoadRequest, asked: Asked | None = None) -> CompatAnswer:
    """What Unsloth would load. Raises DeviceUnsupported where it would raise itself."""
    model_type = Declared(asked.facts.config or {}).model_type if asked else None
    found = answer(ask_compat(request, model_type=model_type))
    if found.error is not None:
        raise DeviceUnsupported(
            f"Unsloth raises {found.error.value} for {request.model}",
            hint="Ask for another precision, or for mode exact.",
        )
    return found


def _as_unsloth(request: LoadRequest, asked: Asked) -> LoadRequest:
    found = ask_unsloth(request, asked)
    flags = {"nf4": found.load_in_4bit, "int8": found.load_in_8bit, "fp8": found.load_in_fp8}
    precision = next((name for name, set_ in flags.items() if set_), request.precision)
    if precision == request.precision and precision not in PLAIN_PRECISIONS:
        precision = "checkpoint"
    return request.model_copy(update={"precision": precision, "quantize": Quantize.ANY})


def reject(repository: str, refusal: Refusal) -> Rejected:
    return Rejected(
        repository=repository, code=refusal.code, reason=refusal.message, hint=refusal.hint
    )
