"""The answer of compat:unsloth: what would be loaded, with which flags, and whether silently."""

from warmrack_store.catalog.shipped import load_tables
from warmrack_store.catalog.tables import Tables
from warmrack_store.records import Record
from warmrack_store.requests import Mode
from warmrack_store.resolver.compat.calls import CompatRequest
from warmrack_store.resolver.compat.loads import Call, Loaded, Raises, load


class CompatAnswer(Record):
    """What one call would load. Where it raises, nothing: no name, no revision, no flags."""

    model: str
    """As asked."""
    resolved: str | None
    """The repository whose weights are read; an adapter's base where the model is an adapter."""
    revision: str | None
    load_in_4bit: bool
    load_in_8bit: bool
    load_in_fp8: bool
    error: Raises | None = None
    silent: bool = False
    """Another repository than the one named is read, and no message of Unsloth's names it.

    A move is announced where a revision was given (the warning that it is ignored names both)
    and where the new name ends in -bf16 and that turns quantization off.
    """
    would_probe_network: bool = False
    """Unsloth would also fetch its newest table, and raise where that one knows the name."""


def answer(request: CompatRequest, tables: Tables | None = None) -> CompatAnswer:
    """What the call would load, by the shipped catalog or by `tables`; total and pure.

    In every mode but compat:unsloth the name, the revision and the flags come back as asked.
    """
    if request.mode is not Mode.COMPAT_UNSLOTH:
        return _as_asked(request)
    outcome = load(request.api, _make_call(request), tables or load_tables())
    if isinstance(outcome, Raises):
        return CompatAnswer(
            model=request.model,
            resolved=None,
            revision=None,
            load_in_4bit=False,
            load_in_8bit=False,
            load_in_fp8=False,
            error=outcome,
        )
    return _describe(request, outcome)


def _as_asked(request: CompatRequest) -> CompatAnswer:
    return CompatAnswer(
        model=request.model,
        resolved=request.model,
        revision=request.revision,
        load_in_4bit=bool(request.load_in_4bit),
        load_in_8bit=bool(request.load_in_8bit),
        load_in_fp8=bool(request.load_in_fp8),
    )


def _make_call(request: CompatRequest) -> Call:
    return Call(
        name=request.model,
        revision=request.revision,
        adapter_base=request.adapter_base,
        four=True if request.load_in_4bit is None else request.load_in_4bit,
        eight=bool(request.load_in_8bit),
        sixteen=bool(request.load_in_16bit),
        fp8=request.load_in_fp8 or False,
        config=request.quantization_config_4bit,
        full_finetuning=request.full_finetuning,
        exact=request.use_exact_model_name,
        native_arch=request.native_arch,
        host=request.host,
    )


def _describe(request: CompatRequest, loaded: Loaded) -> CompatAnswer:
    call = loaded.call
    return CompatAnswer(
        model=request.model,
        resolved=loaded.resolved,
        revision=loaded.revision,
        # A quantization_config carries the bits itself.
        load_in_4bit=call.four and not call.config,
        load_in_8bit=call.eight and not call.config,
        load_in_fp8=bool(call.fp8),
        silent=loaded.silent,
        would_probe_network=call.would_probe_network,
    )
