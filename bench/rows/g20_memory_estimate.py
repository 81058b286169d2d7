"""G20: memory told from headers alone, against the bytes that the loaded model really holds."""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.held_memory import PLAIN, HeldBytes, measure_in_fresh_process
from bench.measurements import Chapter, Finding, Goal, Judged, Measurement, Row, Side, Unit
from warmrack_store.resolution import Memory, Quantization, QuantizationSource
from warmrack_store.resolver.memory import estimate_memory

_LIMIT_PERCENT = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """One model of some 50 to 300 MB, and how it is loaded."""

    what: str
    family: str
    methods: tuple[str, ...]
    hidden: int
    layers: int
    vocabulary: int
    sizes: Mapping[str, Any] = field(default_factory=dict)


_EXPERTS = {"moe_intermediate_size": 512}
_LATENT = {"kv_lora_rank": 128, "q_lora_rank": 256, "v_head_dim": 96}
_SHAPES = (
    _Shape(
        what="dense", family="llama", methods=("bf16", "nf4", "int8"),
        hidden=1024, layers=4, vocabulary=32_000, sizes={"num_key_value_heads": 4},
    ),
    _Shape(
        what="GQA, biases", family="qwen2", methods=("bf16",),
        hidden=768, layers=4, vocabulary=32_000,
    ),
    _Shape(
        what="GQA, tied", family="qwen3", methods=("nf4",),
        hidden=768, layers=4, vocabulary=64_000, sizes={"head_dim": 128},
    ),
    _Shape(
        what="sliding, tied", family="gemma3", methods=("int8",),
        hidden=768, layers=4, vocabulary=64_000, sizes={"head_dim": 128},
    ),
    _Shape(
        what="experts", family="mixtral", methods=("bf16", "nf4"),
        hidden=512, layers=4, vocabulary=16_000,
    ),
    _Shape(
        what="experts", family="qwen3_moe", methods=("int8",),
        hidden=768, layers=6, vocabulary=16_000, sizes=_EXPERTS,
    ),
    _Shape(
        what="latent attention, shared experts", family="deepseek_v3", methods=("nf4",),
        hidden=768, layers=6, vocabulary=16_000, sizes={**_EXPERTS, **_LATENT},
    ),
    _Shape(
        what="encoder", family="bert", methods=("bf16", "nf4"),
        hidden=768, layers=6, vocabulary=30_000,
    ),
)  # fmt: skip


def measure() -> Iterator[Finding]:
    deviations = []
    with tempfile.TemporaryDirectory(prefix="warmrack-bench-") as root:
        for shape in _SHAPES:
            folder = Path(root) / shape.family
            estimates = _save_and_estimate(shape, folder)
            for method, memory in estimates.items():
                held = measure_in_fresh_process(shape.family, folder, method)
                deviations.append(_deviate(memory, held))
                yield _compare(shape, method, memory, held)
    yield Measurement(
        what=f"the largest difference of these {len(deviations)}, in percent",
        ours=Side(name="estimate", unit=Unit.COUNT, samples=(max(deviations),)),
        goal=Goal(judged=Judged.OURS, limit=_LIMIT_PERCENT),
    )


def _save_and_estimate(shape: _Shape, folder: Path) -> dict[str, Memory]:
    from tests.hub.families import Scale, read_saved, save_family

    scale = Scale(hidden=shape.hidden, layers=shape.layers, vocabulary=shape.vocabulary)
    save_family(shape.family, folder, scale, **shape.sizes)
    config, files = read_saved(folder)
    return {
        method: estimate_memory(config, files, None, quantization=_quantization(method))
        for method in shape.methods
    }


def _quantization(method: str) -> Quantization | None:
    if method == PLAIN:
        return None
    return Quantization(method=method, source=QuantizationSource.ON_THE_FLY, compute_dtype="bf16")


def _deviate(memory: Memory, held: HeldBytes) -> float:
    estimated = memory.weights_bytes + memory.quantization_state_bytes
    return 100 * abs(estimated / held.total_bytes - 1)


def _compare(shape: _Shape, method: str, memory: Memory, held: HeldBytes) -> Measurement:
    estimated = memory.weights_bytes + memory.quantization_state_bytes
    return Measurement(
        what=f"{shape.family} ({shape.what}), {method}: weights and their quantization state",
        ours=Side(name="estimated from headers", unit=Unit.BYTES, samples=(estimated,)),
        against=Side(name="held after the load", unit=Unit.BYTES, samples=(held.total_bytes,)),
    )


ROW = Row(
    name="G20",
    title="memory from headers",
    chapter=Chapter.MEMORY,
    limit_seconds=300,
    measure=measure,
    if_missed="The rule by names took a layer for another class: the shape above says which.",
)
