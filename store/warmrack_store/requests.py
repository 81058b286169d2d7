"""The load request: what is to be loaded and how its name may be resolved."""

import re
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from warmrack_store.errors import Contradiction, NotSupported
from warmrack_store.locks import LockedLoad
from warmrack_store.records import Record, digest_json
from warmrack_store.refs import COMMIT, ModelRef, merge_revision, parse_model


class Mode(StrEnum):
    """How the name may be resolved."""

    EXACT = "exact"
    EQUIVALENT = "equivalent"
    OPTIMIZED = "optimized"
    AUTO = "auto"
    COMPAT_UNSLOTH = "compat:unsloth"


class Quantize(StrEnum):
    """Where a quantized precision may come from."""

    NEVER = "never"
    ANY = "any"
    PREQUANTIZED = "prequantized"
    ON_THE_FLY = "on_the_fly"


class Network(StrEnum):
    ONLINE = "online"
    CACHED_FIRST = "cached_first"
    OFFLINE = "offline"


class LockUse(StrEnum):
    NONE = "none"
    USE = "use"
    REQUIRE = "require"


AS_TRAINED, VENDOR = "as_trained", "vendor"
"""Values of `adapter_base` that are no repository."""
PLAIN_PRECISIONS = frozenset({"checkpoint", "bf16", "fp16", "fp32"})
QUANTIZED_PRECISIONS = frozenset({"fp8", "int8", "nf4"})

_GGUF = re.compile(r"gguf:[A-Za-z0-9_]{1,32}")


def _check_precision(value: str) -> str:
    """The value as it is compared: the name of a GGUF quantization is written in capitals."""
    if value in PLAIN_PRECISIONS | QUANTIZED_PRECISIONS:
        return value
    if not _GGUF.fullmatch(value):
        raise ValueError("must be checkpoint, bf16, fp16, fp32, fp8, int8, nf4 or gguf:<Q>")
    return f"gguf:{value[5:].upper()}"


Precision = Annotated[str, AfterValidator(_check_precision)]


class LoadRequest(Record):
    """What is to be loaded and how its name may be resolved.

    Every field is part of the contract; `check_supported` refuses what this version does not
    serve, so that nothing is ever ignored.
    """

    model: Annotated[str, Field(description="org/name, org/name@rev or hf://org/name@rev")]
    revision: str | None = Field(None, description="branch, tag, refs/pr/N or commit")
    mode: Mode = Mode.EXACT
    precision: Precision = "checkpoint"
    quantize: Quantize | None = Field(None, description="default: never in mode exact, else any")
    publishers: tuple[str, ...] = Field((), max_length=64)
    adapter: str | None = Field(None, description="a LoRA adapter for the model: org/name@rev")
    adapter_base: str | None = Field(
        None, description="as_trained (default), vendor, or the base itself: org/name@rev"
    )
    files_include: tuple[str, ...] = Field((), max_length=64)
    files_exclude: tuple[str, ...] = Field((), max_length=64)
    trust_remote_code: Literal[False] | str = False
    max_seq_length: int | None = Field(None, ge=1, le=2**31, strict=True)
    attn: str | None = None
    device_map: str | None = None
    max_memory_bytes: int | None = Field(None, ge=1, strict=True)
    max_download_bytes: int | None = Field(None, ge=0, strict=True)
    network: Network = Network.ONLINE
    lock: LockUse = LockUse.NONE
    locked: LockedLoad | None = Field(None, description="the entry of models.lock that is used")
    hub_secret: str | None = Field(None, description="name of a stored Hub token")

    @field_validator("trust_remote_code")
    @classmethod
    def _code_pin(cls, value: Literal[False] | str) -> Literal[False] | str:
        if isinstance(value, str) and not COMMIT.fullmatch(value):
            raise ValueError("must be false or a 40-hex commit")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.ref()
        self._check_adapter()
        if self.locked is not None and self.lock is LockUse.NONE:
            raise Contradiction("locked is given, but lock is none", hint="Set lock to require.")
        if self.mode is Mode.EXACT and self.quantize not in (None, Quantize.NEVER):
            raise Contradiction(
                f"mode exact excludes quantize {self.quantize.value}",
                hint="Ask for mode optimized or auto, or leave quantize out.",
            )
        return self

    def _check_adapter(self) -> None:
        if self.adapter is not None:
            self.adapter_ref()
        if self.adapter_base not in (None, AS_TRAINED, VENDOR):
            parse_model(str(self.adapter_base))

    def adapter_ref(self) -> ModelRef:
        """The adapter's repository and revision, where one is asked for by `adapter`."""
        return parse_model(self.adapter or "")

    def ref(self) -> ModelRef:
        """The repository and revision asked for, spellings removed."""
        return merge_revision(parse_model(self.model), self.revision)

    def lock_key(self) -> str:
        """Equal for requests that one entry of a lock answers: who asks how does not matter, nor
        in which letters, since the Hub knows a name in any."""
        ref = self.ref()
        return self.model_copy(
            update={
                "model": ref.repository.lower(),
                "revision": ref.revision,
                "lock": LockUse.NONE,
                "locked": None,
                "network": Network.ONLINE,
                "hub_secret": None,
            }
        ).digest()

    def _default_quantize(self) -> Quantize:
        return Quantize.NEVER if self.mode is Mode.EXACT else Quantize.ANY

    def digest(self) -> str:
        """Equal for two spellings of the same request; hex sha256 (first 32 characters)."""
        ref = self.ref()
        fields = self.model_dump(mode="json", exclude={"model", "revision"})
        fields["quantize"] = self.quantize or self._default_quantize()
        fields["publishers"] = sorted({name.lower() for name in self.publishers})
        if self.adapter is not None:
            fields["adapter"] = asdict(self.adapter_ref())
        return digest_json({**fields, "repository": ref.repository, "revision": ref.revision})


SERVED_VALUES: dict[str, tuple[object, ...]] = {
    "files_include": ((),),
    "files_exclude": ((),),
    "trust_remote_code": (False,),
    "attn": (None,),
    "device_map": (None,),
}
"""What this version serves of each field; fields not named here are served whole."""


def check_supported(request: LoadRequest) -> None:
    """Raise NotSupported for the first field whose value this version knows but does not serve."""
    for field, served in SERVED_VALUES.items():
        value = getattr(request, field)
        if value not in served:
            shown = value.value if isinstance(value, StrEnum) else value
            raise NotSupported(f"{field} {shown!r} is not served by this version")
