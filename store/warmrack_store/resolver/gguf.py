"""Repositories with GGUF files: which quantizations they hold, and what the header of one says."""

import re
from collections.abc import Mapping

from warmrack_store.errors import Contradiction, NotSupported, NoVariant
from warmrack_store.facts import FileFact, GgufHeader, RepositoryFacts, WeightFile
from warmrack_store.requests import LoadRequest, Quantize
from warmrack_store.resolution import Quantization, QuantizationSource
from warmrack_store.resolver.precision import GGUF, PrecisionPlan

_NAME = re.compile(
    r"(?:.*[-._])?(?P<kind>I?Q[1-8]_?[A-Z0-9_]*|TQ\d_\d|MXFP4\w*|BF16|F16|F32)\.gguf", re.IGNORECASE
)
_SPLIT = re.compile(r".*-\d{5}-of-\d{5}\.gguf")
_UNPACKED = "fp32"
"""What transformers computes with: packed blocks need kernels that this version does not have.
fp32 holds every value of every kind of block as it is; a narrower float would round them."""
_CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""Kinds whose tensors the audit can unpack by itself; the names are those of the config too."""
ROTATED = frozenset({"llama"})
"""Kinds whose query and key rows ggml stores in another order than transformers."""
_NUMBERS = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "max_position_embeddings": "context_length",
    "vocab_size": "vocab_size",
    "rope_theta": "rope.freq_base",
}


def list_quantizations(facts: RepositoryFacts) -> dict[str, FileFact]:
    """The whole models among the root's GGUF files, by quantization in capitals."""
    found: dict[str, FileFact] = {}
    for file in facts.files:
        match = _NAME.fullmatch(file.path) if "/" not in file.path else None
        if match is None or _SPLIT.fullmatch(file.path):
            continue
        kind = match["kind"].upper()
        if kind in found:
            raise NotSupported(
                f"{facts.repository} holds {kind} twice: {found[kind].path} and {file.path}",
                hint="Name another quantization, or a repository that holds one model.",
            )
        found[kind] = file
    return found


def choose_file(request: LoadRequest, facts: RepositoryFacts) -> tuple[str, FileFact]:
    """The quantization and its file. Raises NoVariant where the repository holds no such one."""
    if request.quantize is Quantize.ON_THE_FLY:
        raise Contradiction(
            f"quantize on_the_fly excludes precision {request.precision}: GGUF is only read",
            hint="Leave quantize out, or ask for precision nf4 or int8.",
        )
    held = list_quantizations(facts)
    kind = request.precision.removeprefix(GGUF).upper()
    if kind not in held:
        shown = ", ".join(f"{GGUF}{name}" for name in sorted(held)) or "no GGUF file"
        raise NoVariant(
            f"{facts.repository} has no {GGUF}{kind}; it holds {shown}",
            hint="Ask for one that it holds.",
        )
    return kind, held[kind]


def plan_gguf(kind: str) -> PrecisionPlan:
    quantization = Quantization(
        method=f"{GGUF}{kind}", source=QuantizationSource.STORED, compute_dtype=_UNPACKED
    )
    return PrecisionPlan(precision=quantization.method, quantization=quantization)


def get_header(facts: RepositoryFacts) -> GgufHeader:
    """Raises NotSupported where it could not be read, or is of a kind that is not served."""
    header = facts.gguf
    if header is None:
        raise NotSupported(
            f"the header of {facts.repository}'s GGUF files cannot be read"
            + (f": {facts.gguf_error}" if facts.gguf_error else "")
        )
    kind = str(header.metadata.get("general.architecture", ""))
    # transformers reads a llama that is called mistral as another class.
    mistral = "mistral" in str(header.metadata.get("general.name", "")).lower()
    if kind not in _CLASSES or mistral:
        raise NotSupported(
            f"{facts.repository}'s GGUF files are of the kind {kind or 'not named'}"
            f"{' (mistral)' if mistral else ''}; this version serves {', '.join(_CLASSES)}",
            hint="Name the repository of the original weights.",
        )
    if (scaled := _find_scaled_positions(header, kind)) is not None:
        raise NotSupported(
            f"{facts.repository}'s GGUF files scale their positions ({scaled}), which transformers "
            "leaves out of a GGUF file",
            hint="Name the repository of the original weights.",
        )
    return header


def _find_scaled_positions(header: GgufHeader, kind: str) -> str | None:
    """What says so: the factors of Llama 3.1 are a tensor, other scalings a field (transformers
    5.23 reads neither for the kinds served here, and would give another model)."""
    scaling = header.metadata.get(f"{kind}.rope.scaling.type", "none")
    if scaling != "none":
        return f"{kind}.rope.scaling.type {scaling}"
    return next((one.name for one in header.tensors if one.name.startswith("rope_")), None)


def read_config(header: GgufHeader) -> dict[str, object]:
    """What the header says, in the words of a config.json."""
    kind = str(header.metadata["general.architecture"])
    found = {ours: header.metadata.get(f"{kind}.{theirs}") for ours, theirs in _NUMBERS.items()}
    if found["vocab_size"] is None:
        found["vocab_size"] = header.metadata.get("tokenizer.ggml.tokens")
    tied = not any(tensor.name == "output.weight" for tensor in header.tensors)
    return {
        "architectures": [_CLASSES[kind]],
        "model_type": kind,
        "tie_word_embeddings": tied,
        **_without_none(found),
    }


def unpacked(header: GgufHeader, path: str) -> WeightFile:
    """The tensors as they will lie in memory; the files differ only in how they pack them."""
    return WeightFile(path=path, tensors=header.tensors)


def _without_none(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}
