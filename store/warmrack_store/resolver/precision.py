"""What the tensors in memory will be: as stored, cast, or quantized, and by which backend."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from warmrack_store.errors import (
    Contradiction,
    DeviceUnsupported,
    NoVariant,
    QuantMismatch,
)
from warmrack_store.facts import RepositoryFacts, WeightFile
from warmrack_store.requests import LoadRequest, Mode, Quantize
from warmrack_store.resolution import Quantization, QuantizationSource
from warmrack_store.resolver.quantization import (
    find_quantization,
    is_quantization_state,
    read_stored,
)

FLOATS = {"BF16": "bf16", "F16": "fp16", "F32": "fp32", "F64": "fp64"}
"""safetensors' spelling -> a precision's."""
MIXED = "mixed"
CHECKPOINT = "checkpoint"
GGUF = "gguf:"
CASTS = frozenset({"bf16", "fp16", "fp32"})
_FP8 = "fp8"
_ON_THE_FLY = frozenset({"nf4", "int8"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionPlan:
    """The precision by its name, how the stored tensors come to it, and who loads them."""

    precision: str
    cast: str | None = None
    quantization: Quantization | None = None

    @property
    def backend(self) -> str:
        return name_backend(self.quantization)

    def describe(self) -> str:
        """For the trail."""
        if self.cast is not None:
            return f"{self.precision}, the float tensors are cast"
        if self.quantization is None:
            return f"{self.precision}, no conversion"
        made = self.quantization.source is QuantizationSource.ON_THE_FLY
        how = "quantized at the load" if made else "quantized as stored"
        return f"{self.precision}, {how}, computed in {self.quantization.compute_dtype}"


def name_backend(quantization: Quantization | None) -> str:
    """The backend that loads such weights."""
    if quantization is None:
        return "exact"
    return "gguf" if quantization.method.startswith(GGUF) else "bnb"


def plan_precision(
    request: LoadRequest, facts: RepositoryFacts, headers: tuple[WeightFile, ...]
) -> PrecisionPlan:
    """The precision of this very repository, asked as the request asks. Raises Refusals."""
    stored_dtypes = count_dtypes(headers)
    declaration = find_quantization(facts, stored_dtypes)
    if declaration is not None:
        if request.precision == _FP8 and _FP8 in declaration.method.lower():
            raise _unsupported(request.precision)
        stored = read_stored(facts.repository, declaration, find_main_float(headers))
        return _plan_quantized(request, facts, stored)
    precision = find_precision(stored_dtypes)
    if request.precision == CHECKPOINT:
        return PrecisionPlan(precision=precision)
    if request.precision in CASTS:
        same = precision == request.precision
        return PrecisionPlan(precision=request.precision, cast=None if same else request.precision)
    return _plan_on_the_fly(request, facts, find_main_float(headers))


def _plan_quantized(
    request: LoadRequest, facts: RepositoryFacts, stored: Quantization
) -> PrecisionPlan:
    """A repository that is quantized already is served as it is, or not at all."""
    if request.precision not in (CHECKPOINT, stored.method):
        wanted = f"precision {request.precision}"
        if request.mode is Mode.EXACT and request.precision not in CASTS:
            raise _contradict(request, facts, f"is stored as {stored.method}")
        raise QuantMismatch(f"{facts.repository} is stored as {stored.method}, not as {wanted}")
    if request.quantize is Quantize.ON_THE_FLY:
        raise QuantMismatch(
            f"{facts.repository} is stored as {stored.method}; quantize on_the_fly starts from "
            "unquantized weights",
            hint="Ask for quantize any or prequantized, or name the unquantized repository.",
        )
    return PrecisionPlan(precision=stored.method, quantization=stored)


def _plan_on_the_fly(
    request: LoadRequest, facts: RepositoryFacts, compute_dtype: str
) -> PrecisionPlan:
    """An unquantized repository is quantized where the request lets it be."""
    if request.mode is Mode.EXACT:
        raise _contradict(request, facts, "is stored unquantized")
    if request.precision not in _ON_THE_FLY:
        raise _unsupported(request.precision)
    if request.quantize is Quantize.NEVER:
        raise Contradiction(
            f"quantize never excludes precision {request.precision}",
            hint="Leave quantize out, or ask for precision checkpoint, bf16, fp16 or fp32.",
        )
    if request.quantize is Quantize.PREQUANTIZED:
        raise NoVariant(
            f"{facts.repository} is stored unquantized, and quantize prequantized asks for "
            f"weights that are {request.precision} already",
            hint="Ask for quantize any to have them quantized at the load.",
        )
    return PrecisionPlan(
        precision=request.precision,
        quantization=Quantization(
            method=request.precision,
            source=QuantizationSource.ON_THE_FLY,
            compute_dtype=compute_dtype,
        ),
    )


def _unsupported(precision: str) -> DeviceUnsupported:
    return DeviceUnsupported(
        f"no backend here computes in {precision}: CPUs cannot, and none of this version does on "
        "CUDA",
        hint="Ask for precision int8 or nf4.",
    )


def _contradict(request: LoadRequest, facts: RepositoryFacts, stored: str) -> Contradiction:
    return Contradiction(
        f"mode exact excludes precision {request.precision}: {facts.repository} {stored}",
        hint="Ask for mode optimized, which may quantize or choose a variant, or for precision "
        "checkpoint, which serves what is stored.",
    )


def count_dtypes(headers: Iterable[WeightFile]) -> dict[str, int]:
    """Number of tensors by stored dtype, in the order of the dtypes' names."""
    counts = Counter(tensor.dtype for file in headers for tensor in file.tensors)
    return dict(sorted(counts.items()))


def find_precision(dtypes: Iterable[str]) -> str:
    """The one float dtype of the tensors, else `mixed`."""
    floats = {FLOATS[dtype] for dtype in dtypes if dtype in FLOATS}
    return floats.pop() if len(floats) == 1 else MIXED


def find_main_float(headers: Iterable[WeightFile]) -> str:
    """The float dtype that holds most of the weights' bytes; fp32 for none, or for a wider one.

    What a quantizer stores beside a weight does not count: it is fp32 whatever the model is.
    """
    sizes: Counter[str] = Counter()
    for file in headers:
        for tensor in file.tensors:
            if tensor.dtype in FLOATS and not is_quantization_state(tensor.name):
                sizes[FLOATS[tensor.dtype]] += tensor.size_bytes
    main = max(sizes, key=lambda name: (sizes[name], name), default="fp32")
    return main if main in CASTS else "fp32"
