"""The question to compat:unsloth: a call of from_pretrained, and the host it is made on."""

import re
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool

from warmrack_store.records import Record
from warmrack_store.requests import LoadRequest, Mode

NATIVE_MODEL_TYPES = frozenset({"llama", "mistral", "gemma", "gemma2", "qwen2", "qwen3"})
"""What FastLanguageModel loads itself; it hands every other model to FastModel."""
_VERSION = re.compile(r"v?(?P<release>\d+(?:\.\d+){0,5})(?P<rest>[A-Za-z0-9.+_-]*)")
_PRERELEASE = re.compile(r"[._-]?(?:a|b|c|rc|alpha|beta|pre|preview|dev)[._-]?\d*", re.IGNORECASE)
_QUANTIZES_ON_THE_FLY = (0, 12, 0)


class Api(StrEnum):
    FAST_LANGUAGE_MODEL = "FastLanguageModel"
    FAST_MODEL = "FastModel"


def _check_version(text: str) -> str:
    if not _VERSION.fullmatch(text):
        raise ValueError("must be a version such as 0.12.0")
    return text


class CompatHost(Record):
    """What the answer depends on besides the call; inputs, never looked up."""

    bitsandbytes: StrictBool = True
    prequantized: StrictBool = True
    """False where pre-quantized repositories are not allowed (some AMD devices)."""
    fbgemm: StrictBool = False
    vllm: Annotated[str, AfterValidator(_check_version)] | None = None
    """vLLM's version, where it is installed."""
    h100: StrictBool = False
    """An H100 or later."""
    offline: StrictBool = False

    @property
    def vllm_quantizes(self) -> bool:
        """vLLM 0.12.0 or later, by the order of PEP 440: a pre-release of 0.12.0 is earlier."""
        parsed = _VERSION.fullmatch(self.vllm or "")
        if parsed is None:
            return False
        parts = [int(part) for part in parsed["release"].split(".")]
        release = tuple([*parts, 0, 0, 0][: max(3, len(parts))])
        if release[:3] != _QUANTIZES_ON_THE_FLY:
            return release[:3] > _QUANTIZES_ON_THE_FLY
        return any(release[3:]) or not _PRERELEASE.match(parsed["rest"])


class CompatRequest(Record):
    """One call. An absent `load_in_*` is Unsloth's default in compat:unsloth, and false elsewhere."""

    model: str = Field(min_length=1)
    mode: Mode = Mode.EXACT
    api: Api = Api.FAST_LANGUAGE_MODEL
    load_in_4bit: StrictBool | None = None
    load_in_8bit: StrictBool | None = None
    load_in_16bit: StrictBool | None = None
    load_in_fp8: StrictBool | Literal["block"] | None = None
    full_finetuning: StrictBool = False
    quantization_config_4bit: StrictBool = False
    """The caller passes a quantization_config of its own that says 4-bit."""
    use_exact_model_name: StrictBool = False
    revision: str | None = None
    native_arch: StrictBool = True
    """FastLanguageModel knows the architecture itself."""
    adapter_base: str | None = Field(None, min_length=1)
    """The base that the adapter names, where the model is an adapter."""
    host: CompatHost = CompatHost()


def ask_compat(
    request: LoadRequest, *, model_type: str | None = None, host: CompatHost | None = None
) -> CompatRequest:
    """The call that somebody who wants this request would have written for Unsloth.

    Precision `checkpoint` says nothing about bits, so Unsloth's own default (4-bit) holds; a
    plain precision is `load_in_4bit=False` with a dtype. `model_type` tells whether
    FastLanguageModel knows the architecture; unknown counts as known.
    """
    flags = {
        "nf4": {"load_in_4bit": True},
        "int8": {"load_in_4bit": False, "load_in_8bit": True},
        "fp8": {"load_in_4bit": False, "load_in_fp8": True},
        "checkpoint": {},
    }
    ref = request.ref()
    return CompatRequest(
        model=ref.repository,
        mode=Mode.COMPAT_UNSLOTH,
        revision=ref.revision,
        adapter_base=request.adapter_base,
        native_arch=model_type is None or model_type in NATIVE_MODEL_TYPES,
        host=host or CompatHost(),
        **flags.get(request.precision, {"load_in_4bit": False}),
    )
