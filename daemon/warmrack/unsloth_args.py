"""Unsloth's own spellings of a load, as fields of a LoadRequest.

What each argument of `from_pretrained` becomes:

    load_in_4bit, load_in_8bit, load_in_fp8    precision nf4, int8, fp8
    load_in_16bit                              precision bf16, or that of dtype
    dtype                                      precision bf16, fp16, fp32
    full_finetuning                            quantize never
    use_exact_model_name=True                  mode exact
    use_exact_model_name=False                 mode optimized
    model_name, revision, max_seq_length, device_map, attn_implementation: the field of that meaning

Nothing is assumed that was not written: an absent `load_in_4bit` is false, although Unsloth's own
default is true. Without `use_exact_model_name` the mode is exact, unless a quantized precision is
asked for: that is a wish for another form of the model, so the mode is then optimized. For what
Unsloth itself would do, its defaults included, ask for mode `compat:unsloth`.
"""

import ast
from collections.abc import Mapping
from typing import Any

from warmrack_store.errors import BadRequest, Contradiction, NotSupported
from warmrack_store.requests import QUANTIZED_PRECISIONS, Mode, Quantize

_PRECISIONS = {
    "load_in_4bit": "nf4",
    "load_in_8bit": "int8",
    "load_in_16bit": "bf16",
    "load_in_fp8": "fp8",
}
_DTYPES = {
    "bfloat16": "bf16",
    "bf16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "fp16": "fp16",
    "float32": "fp32",
    "float": "fp32",
    "fp32": "fp32",
}
_SAME_MEANING = {
    "model_name": "model",
    "revision": "revision",
    "max_seq_length": "max_seq_length",
    "device_map": "device_map",
    "attn_implementation": "attn",
}
_SWITCHES = ("full_finetuning", "use_exact_model_name", "trust_remote_code")
_WORDS = {"true": True, "false": False, "none": None}


def request_fields(arguments: Mapping[str, Any], *, mode: Mode | None = None) -> dict[str, Any]:
    """The fields of a LoadRequest that say the same as these keyword arguments of from_pretrained.

    An argument that is None counts as absent. `mode` is the caller's own choice, where there is
    one. Raises Contradiction, with both ways out, where two arguments exclude each other,
    BadRequest for a value that makes no sense, and NotSupported for an argument without a meaning
    here: none is ignored.
    """
    if not isinstance(arguments, Mapping) or not all(isinstance(name, str) for name in arguments):
        raise BadRequest("the arguments must be a mapping of names to values")
    given = {name: value for name, value in arguments.items() if value is not None}
    _check_names(given)
    precision = _find_precision(given, mode)
    fields = {field: given[name] for name, field in _SAME_MEANING.items() if name in given}
    fields["mode"] = _find_mode(given, precision, mode).value
    if precision is not None:
        fields["precision"] = precision
    if given.get("full_finetuning"):
        fields["quantize"] = Quantize.NEVER.value
    return fields


def merge_fields(request: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`request`, fields of a LoadRequest, with what the arguments say besides.

    Raises Contradiction where both say something, and not the same.
    """
    mode = _read_mode(request["mode"]) if "mode" in request else None
    fields = request_fields(arguments, mode=mode)
    for key, value in fields.items():
        if key in request and request[key] != value:
            raise Contradiction(
                f"{key} is {request[key]!r} in the request and {value!r} by Unsloth's arguments",
                hint=f"Drop {key} from the request, or the arguments that mean {key} {value!r}.",
            )
    return {**request, **fields}


def parse_arguments(text: str) -> dict[str, Any]:
    """The keyword arguments in a text such as `load_in_4bit=True, dtype=torch.bfloat16`.

    Literals and names only; nothing is evaluated. Raises BadRequest for anything else, and for
    model_name: where there is such a text, the model is named beside it.
    """
    try:
        call = ast.parse(f"f({text})", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _not_arguments(text) from error
    if not isinstance(call, ast.Call) or call.args or not isinstance(call.func, ast.Name):
        raise _not_arguments(text)
    found: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is None or keyword.arg in {*found, "model_name"}:
            raise _not_arguments(text)
        found[keyword.arg] = _read_value(keyword.value, text)
    return found


def _not_arguments(text: str) -> BadRequest:
    return BadRequest(
        f"{text[:200]!r} is not a list of keyword arguments",
        hint="Write it as in Python: load_in_4bit=True,use_exact_model_name=False.",
    )


def _read_value(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Name):
        return _WORDS.get(node.id.lower(), node.id)
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | str | None):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_read_number(node.operand, text)
    raise _not_arguments(text)


def _read_number(node: ast.expr, text: str) -> int:
    value = node.value if isinstance(node, ast.Constant) else None
    if type(value) is not int:
        raise _not_arguments(text)
    return value


def _check_names(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if name == "token":
            raise NotSupported("token is not a part of the request", hint="Give it to the client.")
        if name not in {*_PRECISIONS, *_SAME_MEANING, *_SWITCHES, "dtype"}:
            raise NotSupported(
                f"{name[:100]} has no meaning for warmrack",
                hint="Leave it out; what a training or an engine is told is not told to a load.",
            )
        if name in {*_PRECISIONS, *_SWITCHES} and not isinstance(value, bool):
            _check_flag(name, value)
    if given.get("trust_remote_code"):
        raise NotSupported(
            "trust_remote_code=True trusts whatever code the repository holds",
            hint="Give the field trust_remote_code the commit whose code you have read.",
        )


def _check_flag(name: str, value: Any) -> None:
    if name == "load_in_fp8" and value in ("block", "row"):
        raise NotSupported(
            f"load_in_fp8={value!r}: how FP8 is scaled cannot be chosen",
            hint="Give load_in_fp8=True, or name the repository with the scaling you want.",
        )
    raise BadRequest(f"{name} must be True or False (got {value!r:.80})")


def _find_precision(given: Mapping[str, Any], mode: Mode | None) -> str | None:
    """The one precision that the arguments ask for; None where they name none."""
    asked = {name: _PRECISIONS[name] for name in _PRECISIONS if given.get(name)}
    dtype = _read_dtype(given.get("dtype"))
    if dtype is not None and not (dtype != "fp32" and asked.keys() == {"load_in_16bit"}):
        asked[f"dtype={dtype}"] = dtype
    if len(asked) > 1:
        (first, one), (second, other), *_ = asked.items()
        raise Contradiction(
            f"{first} asks for {one} and {second} for {other}",
            hint=f"Drop {second} to get {one}, or {first} to get {other}.",
        )
    precision = next(iter(asked.values()), None)
    if given.get("full_finetuning") and precision in QUANTIZED_PRECISIONS:
        (name,) = asked
        raise Contradiction(
            f"full_finetuning excludes quantized weights, and {name} asks for {precision}",
            hint=f"Drop full_finetuning to get {precision}, or {name} to get the weights as stored.",
        )
    if precision == "bf16" and dtype is not None:
        return dtype
    if precision is None and mode is Mode.COMPAT_UNSLOTH and given.get("load_in_4bit") is False:
        return "bf16"
    return precision


def _read_mode(value: Any) -> Mode:
    try:
        return Mode(value)
    except ValueError as error:
        known = ", ".join(mode.value for mode in Mode)
        raise BadRequest(f"mode must be one of {known} (got {value!r:.80})") from error


def _read_dtype(value: Any) -> str | None:
    """bf16, fp16 or fp32 of a torch dtype or its name; None for no choice."""
    name = str(value).removeprefix("torch.")
    if value is None or name == "auto":
        return None
    if name not in _DTYPES:
        raise BadRequest(f"dtype must be bfloat16, float16 or float32 (got {name[:80]!r})")
    return _DTYPES[name]


def _find_mode(given: Mapping[str, Any], precision: str | None, mode: Mode | None) -> Mode:
    exact = given.get("use_exact_model_name")
    if mode is not None and exact is not None and exact is not (mode is Mode.EXACT):
        raise Contradiction(
            f"mode {mode.value} and use_exact_model_name={exact} exclude each other",
            hint=f"Drop use_exact_model_name for mode {mode.value}, or drop the mode.",
        )
    if mode is not None:
        return mode
    if exact is None:
        return Mode.OPTIMIZED if precision in QUANTIZED_PRECISIONS else Mode.EXACT
    return Mode.EXACT if exact else Mode.OPTIMIZED
