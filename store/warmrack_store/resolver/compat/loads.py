"""The load step: what a call of from_pretrained ends up loading, flag by flag."""

from dataclasses import dataclass, replace
from enum import StrEnum

from warmrack_store.catalog.tables import Tables
from warmrack_store.resolver.compat.calls import Api, CompatHost
from warmrack_store.resolver.compat.names import FOUR_BIT_ENDING, Fp8, step_name

_STRIPPED = ("-unsloth-bnb-4bit", FOUR_BIT_ENDING)
_SIXTEEN_BIT_ENDING = "-bf16"
_QUANTIZED_MARKS = ("fp8", "gpt-oss")


class Raises(StrEnum):
    """The class that Unsloth raises."""

    RUNTIME_ERROR = "RuntimeError"
    """Two precisions at once."""
    VALUE_ERROR = "ValueError"
    """FP8 on the fly where it cannot be made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call under way: its flags are as they stand now, `name` as it was asked for."""

    name: str
    revision: str | None
    adapter_base: str | None
    four: bool
    eight: bool
    sixteen: bool
    fp8: Fp8
    config: bool
    """The caller's own 4-bit quantization_config is still there."""
    full_finetuning: bool
    exact: bool
    native_arch: bool
    host: CompatHost
    mentioned: frozenset[str] = frozenset()
    """Repositories, in lower case, that Unsloth's own messages have named so far."""
    would_probe_network: bool = False

    @property
    def conflicts(self) -> bool:
        return sum((self.four, self.eight, self.sixteen, bool(self.fp8))) >= 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What is loaded in the end; `call` has the flags as they then stand."""

    call: Call
    name: str
    """The model's repository, or the adapter's."""
    base: str | None
    """The adapter's base, under the name it is read by."""

    @property
    def resolved(self) -> str:
        return self.name if self.base is None else self.base

    @property
    def revision(self) -> str | None:
        """A pin survives on the very repository that was asked for; an adapter's base has none."""
        kept = self.base is None and self.name.lower() == self.call.name.lower()
        return self.call.revision if kept else None

    @property
    def silent(self) -> bool:
        """Another repository is read than the call names, and no message names it."""
        pairs = [(self.call.name, self.name), (self.call.adapter_base, self.base)]
        moved = {now.lower() for was, now in pairs if was and now and was.lower() != now.lower()}
        return not moved <= self.call.mentioned


def load(api: Api, call: Call, tables: Tables) -> Loaded | Raises:
    """What the call loads; total: every combination of flags gives a model or what is raised."""
    if api is Api.FAST_MODEL:
        return _load_fast_model(call, tables)
    return _load_fast_language_model(call, tables)


def _load_fast_language_model(call: Call, tables: Tables) -> Loaded | Raises:
    call = _read_config(call)
    if call.eight or call.full_finetuning:
        return _load_fast_model(call, tables)
    named = _name_model(_check_bitsandbytes(call), tables)
    if isinstance(named, Raises):
        return named
    loaded = _name_base(named, named.call.fp8, tables)
    if loaded.call.conflicts:
        return Raises.RUNTIME_ERROR
    if not call.native_arch:
        return _load_fast_model(loaded.call, tables)
    return loaded


def _load_fast_model(call: Call, tables: Tables) -> Loaded | Raises:
    call = _read_config(call)
    if call.full_finetuning and (call.four or call.eight):
        call = _clear(call)
    call = _check_bitsandbytes(call)
    if call.conflicts:
        return Raises.RUNTIME_ERROR
    named = _name_model(call, tables)
    return named if isinstance(named, Raises) else _name_base(named, False, tables)


def _read_config(call: Call) -> Call:
    """A 4-bit quantization_config decides over the flags."""
    return replace(call, four=True, eight=False) if call.config else call


def _check_bitsandbytes(call: Call) -> Call:
    if call.host.bitsandbytes:
        return call
    return replace(call, four=False, eight=False, config=False)


def _clear(call: Call, *, sixteen: bool = False) -> Call:
    return replace(call, four=False, eight=False, fp8=False, sixteen=sixteen)


def _name_model(call: Call, tables: Tables) -> Loaded | Raises:
    """The name step for the model itself, FP8 on the fly included."""
    name = call.name
    if not call.exact:
        step = step_name(name, four=call.four, fp8=call.fp8, host=call.host, tables=tables)
        call = replace(
            call, would_probe_network=call.would_probe_network | step.would_probe_network
        )
        name = step.resolved
    if name != call.name:
        call = replace(call, fp8=False)
    elif _quantizes_to_fp8(call) and (call.full_finetuning or not call.host.h100):
        return Raises.VALUE_ERROR
    call, name = _check_name(call, name)
    if call.revision is not None and name.lower() != call.name.lower():
        # The warning that a revision is ignored names both repositories.
        call = _mention(call, name)
    return Loaded(call=call, name=name, base=None)


def _quantizes_to_fp8(call: Call) -> bool:
    """FP8 is to be made on the fly; the checkpoint is told by its name to be quantized already."""
    name = call.name.lower()
    quantized = name.endswith(FOUR_BIT_ENDING) or any(mark in name for mark in _QUANTIZED_MARKS)
    return bool(call.fp8) and not (call.conflicts or quantized or call.adapter_base)


def _name_base(loaded: Loaded, fp8: Fp8, tables: Tables) -> Loaded:
    """The name step for an adapter's base; what is not an adapter stays as it is."""
    call, base = loaded.call, loaded.call.adapter_base
    if base is None:
        return loaded
    if not call.exact:
        step = step_name(base, four=call.four, fp8=fp8, host=call.host, tables=tables)
        call = replace(
            call, would_probe_network=call.would_probe_network | step.would_probe_network
        )
        base = step.resolved
    call, base = _check_name(call, base)
    return replace(loaded, call=call, base=base)


def _check_name(call: Call, name: str) -> tuple[Call, str]:
    """What the endings of a name do, in exact mode too."""
    if not call.host.prequantized:
        name = _strip(name)
    if not name.lower().endswith(_SIXTEEN_BIT_ENDING):
        return call, name
    if not call.sixteen and not call.config and (call.four or call.eight or call.fp8):
        # The message that quantization is off names the repository.
        call = _mention(call, name)
    return _clear(call, sixteen=True), name


def _strip(name: str) -> str:
    """Without the endings of a 4-bit repository, the longer one first, then the shorter."""
    for ending in _STRIPPED:
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
    return name


def _mention(call: Call, name: str) -> Call:
    return replace(call, mentioned=call.mentioned | {name.lower()})
