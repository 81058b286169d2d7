"""The devices of a node as a setting spells them: `auto`, or `cpu:0=4GiB,cuda:1`."""

from dataclasses import dataclass

from warmrack_store.durations import parse_size
from warmrack_store.errors import BadRequest

KINDS = ("cpu", "cuda")
_HINT = "Write auto, or a list such as cpu:0=4GiB,cuda:0."


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpec:
    """One device; `size_bytes` is None where it gives what it has."""

    kind: str
    index: int
    size_bytes: int | None = None

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.index}"


def parse_devices(spec: str) -> tuple[DeviceSpec, ...] | None:
    """The devices named; None for `auto`. Raises BadRequest for a spec that makes no sense."""
    if spec.strip() == "auto":
        return None
    devices = tuple(_parse(part.strip()) for part in spec.split(",") if part.strip())
    names = [device.name for device in devices]
    if not devices or len(set(names)) != len(names):
        raise BadRequest(f"devices {spec!r} names no device, or one twice", hint=_HINT)
    return devices


def _parse(part: str) -> DeviceSpec:
    name, _, size = part.partition("=")
    kind, _, index = name.partition(":")
    if kind not in KINDS or not (index.isascii() and index.isdigit()):
        raise BadRequest(f"device {part!r} is not known", hint=_HINT)
    size_bytes = parse_size(size) if size else None
    if size_bytes == 0:
        raise BadRequest(f"device {part!r} has no memory to give", hint=_HINT)
    return DeviceSpec(kind=kind, index=int(index), size_bytes=size_bytes)
