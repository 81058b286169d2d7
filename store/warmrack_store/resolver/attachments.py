"""An adapter on its base: which pair a request means, whether the two fit, and what it costs."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod

from warmrack_store.durations import format_size
from warmrack_store.errors import LineageMismatch, NotSupported
from warmrack_store.facts import TensorFact
from warmrack_store.requests import LoadRequest, Mode
from warmrack_store.resolution import AdapterPin, AdapterUse, Memory, TrailLine
from warmrack_store.resolver import rules
from warmrack_store.resolver.adapters import Adapter, describe_base, read_adapter
from warmrack_store.resolver.asked import Asked
from warmrack_store.resolver.declared import Declared
from warmrack_store.resolver.files import is_tokenizer_file
from warmrack_store.resolver.offers import Offer
from warmrack_store.resolver.pool import Pool
from warmrack_store.resolver.variants import Variant

_PREFIX = "base_model.model."
_PART = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_embedding_A"
    r"|lora_embedding_B|lora_magnitude_vector(?:\.weight)?)"
)
_TRANSPOSING = frozenset({"gpt2", "openai-gpt"})
"""Their linear layers are stored with the input side first."""
_PACKED = "U8"
"""How bitsandbytes stores a 4-bit weight: two elements a byte, in one column."""
_COPY = ".base_layer.weight"
"""What peft saves of an adapted embedding, and writes over the base's own when it is read."""
_HEAD, _TABLE = "lm_head.weight", "embed_tokens.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """An adapter and its base, each as its own name was answered."""

    adapter: Asked
    base: Asked
    base_request: LoadRequest
    """The request as it is put to the base."""
    adapter_revision: str | None
    warnings: tuple[str, ...] = ()

    def measure(self) -> int:
        """Bytes of the adapter in memory: its tensors are kept as they are stored."""
        return sum(one.size_bytes for one in read_adapter(self.adapter.facts).header.tensors)

    def narrow(self, pool: Pool) -> Pool:
        """The pool as the base sees it: every device has to hold the adapter too."""
        size_bytes = self.measure()
        budgets = {name: budget - size_bytes for name, budget in pool.budgets.items()}
        return pool.model_copy(update={"budgets": budgets})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """An adapter that fits the chosen base."""

    pin: AdapterPin
    memory: Memory
    """Of both."""
    warnings: tuple[str, ...]
    added: Mapping[str, str]
    """By rule: what the adapter adds to that line of the trail."""

    def annotate(self, trail: Iterable[TrailLine]) -> tuple[TrailLine, ...]:
        return tuple(
            line.model_copy(update={"decision": f"{line.decision}; {self.added[line.rule]}"})
            if line.rule in self.added
            else line
            for line in trail
        )


def fit(request: LoadRequest, attachment: Attachment, offer: Offer) -> Fitted:
    """The pinned adapter. Raises LineageMismatch where its tensors have no place in the base, and
    WontFit where both together pass the caller's limits."""
    adapter, ref = read_adapter(attachment.adapter.facts), attachment.adapter.ref
    modules = _list_modules(adapter, offer.variant)
    size_bytes = attachment.measure()
    memory = offer.variant.memory
    memory = memory.model_copy(update={"weights_bytes": memory.weights_bytes + size_bytes})
    rules.check_limits(
        request, memory, offer.variant.size_bytes + sum(file.size for file in adapter.files)
    )
    pin = AdapterPin(
        repository=ref.repository,
        commit=ref.commit,
        ref_asked=attachment.adapter_revision,
        private=ref.private,
        gated=ref.gated,
        files=tuple(sorted(adapter.files, key=lambda file: file.path)),
        weights=(adapter.weights.path,),
        how=AdapterUse.ATTACHED,
        rank=adapter.rank,
        alpha=adapter.alpha,
        target_modules=tuple(sorted({name.rpartition(".")[2] for name in modules})),
        modules=len(modules),
        parameters=sum(prod(one.shape) for one in adapter.header.tensors),
        memory_bytes=size_bytes,
        base_named=describe_base(adapter.facts),
    )
    return Fitted(
        pin=pin,
        memory=memory,
        warnings=(*attachment.warnings, *_list_unused(adapter, offer.variant)),
        added=_describe(pin),
    )


def check_mode(request: LoadRequest) -> None:
    """Raises NotSupported for the mode that names its own bases."""
    if request.mode is Mode.COMPAT_UNSLOTH:
        raise NotSupported(
            "mode compat:unsloth is not served for adapters by this version",
            hint="Ask for mode exact; warmrack explain --names-only says what Unsloth would load.",
        )


def _describe(pin: AdapterPin) -> dict[str, str]:
    name = f"adapter {pin.repository}"
    size = format_size(pin.memory_bytes)
    return {
        "R2": name,
        "R3": f"{name} at {pin.commit}",
        "R4": f"{name}: {pin.weights[0]}, trained on {pin.base_named or 'no base it names'}",
        "R5": f"{name}: LoRA of rank {pin.rank}, alpha {pin.alpha:g}, {pin.parameters} parameters",
        "R7": f"{name}: all of its {pin.modules} layers are in the base, with its shapes",
        "R9": f"{name} {pin.how.value}, {size} more",
    }


@dataclass(slots=True, kw_only=True)
class _Layer:
    """The adapter's tensors for one module of the base."""

    parts: dict[str, TensorFact] = field(default_factory=dict)


def _list_modules(adapter: Adapter, base: Variant) -> tuple[str, ...]:
    """Names of the base's modules that the adapter changes, after each was held against it."""
    if base.quantization is not None and base.quantization.method.startswith("gguf"):
        raise NotSupported(
            f"{adapter.facts.repository} cannot be attached to GGUF weights",
            hint="Name the base's own repository, in its safetensors.",
        )
    held = {tensor.name: tensor for file in base.headers for tensor in file.tensors}
    layers: dict[str, _Layer] = {}
    saved = set()
    for tensor in adapter.header.tensors:
        name = tensor.name.removeprefix(_PREFIX)
        match = _PART.fullmatch(name)
        if name.endswith(_COPY):
            raise NotSupported(
                f"{adapter.facts.repository} holds a copy of a layer of its base ({name})",
                hint="Have it saved with save_embedding_layers=False.",
            )
        if name == tensor.name or (match is None and not _is_saved(name, adapter)):
            raise LineageMismatch(
                f"{adapter.facts.repository} holds {tensor.name[:200]!r}, which is no part of a "
                "LoRA layer and of no module that its config saves"
            )
        if match is None:
            _check_saved(adapter, base, tensor, _find(held, name, base))
            saved.add(name.rpartition(".")[0])
        else:
            layer = layers.setdefault(match["module"], _Layer())
            layer.parts[match["part"].removesuffix(".weight")] = tensor
    for module, layer in layers.items():
        _check_layer(adapter, base, module, layer, _find(held, f"{module}.weight", base))
    return (*layers, *sorted(saved))


def _is_saved(name: str, adapter: Adapter) -> bool:
    module = name.rpartition(".")[0]
    return any(module == one or module.endswith(f".{one}") for one in adapter.saved_modules)


def _find(held: Mapping[str, TensorFact], name: str, base: Variant) -> TensorFact | None:
    """The base's tensor; files may leave out the class's prefix, and a tied head."""
    for spelling in (name, f"model.{name}", name.removeprefix("model.")):
        if spelling in held:
            return held[spelling]
    declared = Declared(base.facts.config or {})
    if name == _HEAD and declared.text().config.get("tie_word_embeddings") is not False:
        return next((one for key, one in held.items() if key.endswith(_TABLE)), None)
    return None


def _check_saved(
    adapter: Adapter, base: Variant, tensor: TensorFact, found: TensorFact | None
) -> None:
    if found is None or found.shape != tensor.shape:
        raise _mismatch(adapter, base, tensor.name.removeprefix(_PREFIX), tensor.shape, found)


def _check_layer(
    adapter: Adapter, base: Variant, module: str, layer: _Layer, found: TensorFact | None
) -> None:
    """A's and B's outer sides are the base's, their inner ones the rank."""
    if ".experts." in f".{module}.":
        raise NotSupported(f"{adapter.facts.repository} adapts single experts ({module})")
    table = "lora_embedding_A" in layer.parts
    first = layer.parts.get("lora_embedding_A" if table else "lora_A")
    second = layer.parts.get("lora_embedding_B" if table else "lora_B")
    if first is None or second is None or len(first.shape) != 2 or len(second.shape) != 2:
        if found is not None and len(found.shape) > 2:
            raise NotSupported(f"{adapter.facts.repository} adapts a convolution ({module})")
        raise LineageMismatch(f"{adapter.facts.repository} lacks one half of {module}")
    (rank, inner), (outer, other_rank) = first.shape, second.shape
    if rank != other_rank or (adapter.uniform and rank != adapter.rank):
        raise LineageMismatch(
            f"{adapter.facts.repository} has ranks {rank} and {other_rank} at {module}, its config "
            f"names {adapter.rank}"
        )
    shapes = [(inner, outer)] if table else [(outer, inner)]
    if adapter.transposed or Declared(base.facts.config or {}).model_type in _TRANSPOSING:
        shapes.append((inner, outer))
    if found is None or not (found.shape in shapes or _is_packed(found, outer * inner)):
        raise _mismatch(adapter, base, module, shapes[-1], found)


def _is_packed(found: TensorFact, elements: int) -> bool:
    return found.dtype == _PACKED and found.shape[1:] == (1,) and found.shape[0] * 2 == elements


def _mismatch(
    adapter: Adapter, base: Variant, name: str, shape: tuple[int, ...], found: TensorFact | None
) -> LineageMismatch:
    there = "has no such tensor" if found is None else f"has {list(found.shape)} there"
    return LineageMismatch(
        f"{adapter.facts.repository} is for {name} of shape {list(shape)}; {base.facts.repository} "
        f"{there}",
        hint="Name the base that it was trained on, with adapter_base.",
    )


def _list_unused(adapter: Adapter, base: Variant) -> tuple[str, ...]:
    """The tokenizer is the base's; where the adapter's repository has another, somebody may miss
    its chat template."""
    own = {file.path: file.digest for file in base.files}
    differing = [
        file.path
        for file in adapter.facts.files
        if is_tokenizer_file(file.path) and own.get(file.path) != file.digest
    ]
    if not differing:
        return ()
    return (
        f"the tokenizer is the base's; {adapter.facts.repository} has other files "
        f"({', '.join(sorted(differing)[:3])}), which are not used",
    )
