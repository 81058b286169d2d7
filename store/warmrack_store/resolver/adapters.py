"""What a repository declares that holds a LoRA adapter: its files, its settings and its base."""

from collections.abc import Mapping
from dataclasses import dataclass

from warmrack_store.errors import (
    AdapterBaseUnresolved,
    BadRequest,
    BothKinds,
    NotSupported,
    UnsafeFormat,
)
from warmrack_store.facts import FileFact, RepositoryFacts, WeightFile
from warmrack_store.refs import ModelRef, check_repository, check_revision, parse_model
from warmrack_store.requests import AS_TRAINED, VENDOR
from warmrack_store.resolver.declared import Declared
from warmrack_store.resolver.kinds import INDEX, SINGLE

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"
_ANY = frozenset({CONFIG, WEIGHTS, PICKLE})
_LORA = "LORA"
_TASKS = frozenset({"CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION"})
"""The others add a head of their own to the model."""
_UNDERSTOOD = frozenset(
    {"base_model_name_or_path", "revision", "peft_type", "peft_version", "task_type"}
    | {"auto_mapping", "inference_mode", "lora_dropout", "megatron_core", "qalora_group_size"}
    | {"r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "lora_bias"}
    | {"target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"}
    | {"modules_to_save", "fan_in_fan_out", "ensure_weight_tying", "runtime_config"}
    | {"eva_config", "bias", "init_lora_weights"}
)
"""Settings of peft 0.21 that say where the tensors go and how they are scaled, or nothing at all
once training is over. Any other that is set asks for more than a sum of two products."""
_KEEP_THE_BASE = frozenset({"true", "false", "gaussian", "eva", "orthogonal"})
"""Beginnings of a training that leave the base's own weights alone; the others move a part of them
into the adapter, which then fits a base that nobody published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA adapter as its repository declares it."""

    facts: RepositoryFacts
    config: FileFact
    weights: FileFact
    header: WeightFile
    rank: int
    alpha: float
    uniform: bool
    """Every layer has this rank."""
    saved_modules: tuple[str, ...]
    """Modules that are stored whole beside the low-rank ones."""
    transposed: bool
    """`fan_in_fan_out`: the base stores the input side first."""

    @property
    def files(self) -> tuple[FileFact, ...]:
        return (self.config, self.weights)


def is_adapter(facts: RepositoryFacts) -> bool:
    """Whether the repository holds an adapter and no full model."""
    root = {file.path for file in facts.files}
    return bool(root & _ANY) and not root & {SINGLE, INDEX}


def read_adapter(facts: RepositoryFacts) -> Adapter:
    """The adapter of a repository that was named as one.

    Raises BothKinds, UnsafeFormat for weights that are a pickle, and NotSupported for what is no
    LoRA adapter or asks for more than one.
    """
    name, root = facts.repository, {file.path: file for file in facts.files}
    declared = Declared(facts.adapter_config or {})
    if CONFIG not in root or facts.adapter_config is None:
        reason = f"has an {CONFIG} that {facts.adapter_config_error}"
        raise NotSupported(
            f"{name} {reason if CONFIG in root else f'has no {CONFIG} in its root'}",
            hint="Name a repository that holds a PEFT LoRA adapter.",
        )
    if {SINGLE, INDEX} & root.keys():
        raise BothKinds(f"{name} holds a full model and an adapter ({CONFIG})")
    _check_settings(name, declared)
    if WEIGHTS not in root:
        if PICKLE in root:
            raise UnsafeFormat(f"{name} holds its adapter only as pickle ({PICKLE})")
        raise NotSupported(f"{name} holds no {WEIGHTS}")
    header = next(file for file in facts.weights if file.path == WEIGHTS)
    rank = declared.find_number("r")
    if rank is None or not header.tensors:
        raise NotSupported(f"{name} {'names no rank r' if rank is None else 'holds no tensors'}")
    return Adapter(
        facts=facts,
        config=root[CONFIG],
        weights=root[WEIGHTS],
        header=header,
        rank=rank,
        alpha=_read_alpha(name, declared),
        uniform=not declared.config.get("rank_pattern"),
        saved_modules=declared.list_texts("modules_to_save"),
        transposed=declared.is_true("fan_in_fan_out"),
    )


def _check_settings(name: str, declared: Declared) -> None:
    kind = declared.find_text("peft_type")
    if kind is None or kind.upper() != _LORA:
        raise NotSupported(
            f"{name} is a PEFT adapter of type {kind or 'none at all'}, not {_LORA}",
            hint="This version serves LoRA adapters only.",
        )
    task = declared.find_text("task_type")
    if task is not None and task not in _TASKS:
        raise NotSupported(f"{name} is an adapter for the task {task}, which adds a head")
    if declared.config.get("bias", "none") != "none":
        raise NotSupported(f"{name} changes the base's own biases ({declared.config['bias']!r})")
    start = str(declared.config.get("init_lora_weights", True)).lower()
    if start not in _KEEP_THE_BASE:
        raise NotSupported(
            f"{name} was begun with {start}, which changes the base's weights",
            hint="Have it converted to a plain LoRA adapter, as peft describes for save_pretrained.",
        )
    others = sorted(key for key in declared.config if key not in _UNDERSTOOD)
    if (more := next((key for key in others if declared.config[key]), None)) is not None:
        raise NotSupported(f"{name} sets {more}, which is more than a plain LoRA adapter")


def _read_alpha(name: str, declared: Declared) -> float:
    value = declared.config.get("lora_alpha")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NotSupported(f"{name} names no lora_alpha")
    return float(value)


def find_named_base(facts: RepositoryFacts) -> ModelRef | None:
    """The base that adapter_config.json names, at the revision that it names; None for neither.

    Raises AdapterBaseUnresolved for a name that no Hub knows: a path or an address.
    """
    declared = Declared(facts.adapter_config or {})
    name = declared.find_text("base_model_name_or_path")
    if name is None:
        return None
    revision = declared.find_text("revision")
    try:
        if name.startswith(("/", ".", "~")) or "://" in name:
            raise BadRequest(f"{name[:200]!r} is a path or an address")
        return ModelRef(
            repository=check_repository(name),
            revision=check_revision(revision) if revision else None,
        )
    except BadRequest as error:
        raise AdapterBaseUnresolved(
            f"{facts.repository} names its base as {name[:200]!r}"
            f"{f' at {revision[:200]!r}' if revision else ''}: {error.message}",
        ) from error


def choose_base(facts: RepositoryFacts, adapter_base: str | None) -> ModelRef:
    """The base that the request's `adapter_base` means for this adapter.

    `as_trained` (or None) is the one that adapter_config.json names; `vendor` the one that its
    card names, where it names another; anything else is the base itself. Raises
    AdapterBaseUnresolved where none is named.
    """
    if adapter_base not in (None, AS_TRAINED, VENDOR):
        return parse_model(str(adapter_base))
    named = find_named_base(facts) if adapter_base != VENDOR else _find_vendors(facts)
    if named is None:
        raise AdapterBaseUnresolved(f"{facts.repository} names no base model in its {CONFIG}")
    return named


def _find_vendors(facts: RepositoryFacts) -> ModelRef | None:
    """Many are trained on a copy, and the card names the original."""
    if len(facts.card_bases) > 1:
        raise AdapterBaseUnresolved(
            f"{facts.repository}'s card names {len(facts.card_bases)} base models: "
            f"{', '.join(facts.card_bases[:3])}"
        )
    if not facts.card_bases:
        return find_named_base(facts)
    card = facts.card_bases[0]
    try:
        trained = find_named_base(facts)
    except AdapterBaseUnresolved:
        trained = None
    if trained is not None and trained.repository.lower() == card.lower():
        return trained
    return ModelRef(repository=card)


def describe_base(facts: RepositoryFacts) -> str | None:
    """What adapter_config.json calls its base, whether or not that is a repository."""
    config: Mapping[str, object] = facts.adapter_config or {}
    return Declared(config).find_text("base_model_name_or_path")
