"""The devices of a node and what each may hold."""

from collections.abc import Mapping
from dataclasses import dataclass

from warmrack_store.durations import parse_size
from warmrack_store.errors import BadRequest
from warmrack_workers.devices import cpu, cuda

KINDS = ("cpu", "cuda")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device; `budget_bytes` is all that residents together are charged at most."""

    name: str
    budget_bytes: int

    @property
    def kind(self) -> str:
        return self.name.partition(":")[0]


def list_devices(spec: str, held_bytes: Mapping[str, int]) -> tuple[Device, ...]:
    """The devices that a setting names: `auto`, or `cpu:0=4GiB,cuda:1`.

    A device without a size gets what it has: a CUDA device its free memory and what this node's
    own hosts hold of it (`held_bytes`, by device), a CPU device most of the machine's. Raises BadRequest for a spec that makes no sense or a device that is not there.
    """
    if spec.strip() == "auto":
        gpus = _cuda_budgets(held_bytes)
        found = [Device(name=f"cuda:{index}", budget_bytes=size) for index, size in gpus.items()]
        return tuple(found) or (Device(name="cpu:0", budget_bytes=cpu.budget_bytes()),)
    devices = tuple(_parse(part.strip(), held_bytes) for part in spec.split(",") if part.strip())
    names = [device.name for device in devices]
    if not devices or len(set(names)) != len(names):
        raise BadRequest(f"devices {spec!r} names no device, or one twice")
    return devices


def _parse(part: str, held_bytes: Mapping[str, int]) -> Device:
    name, _, size = part.partition("=")
    kind, _, index = name.partition(":")
    if kind not in KINDS or not (index.isascii() and index.isdigit()):
        raise BadRequest(f"device {part!r} is not known", hint="Write cpu:0=4GiB or cuda:0.")
    budget = parse_size(size) if size else _measured(kind, int(index), held_bytes)
    if budget <= 0:
        raise BadRequest(f"device {part!r} has no memory to give")
    return Device(name=f"{kind}:{int(index)}", budget_bytes=budget)


def _measured(kind: str, index: int, held_bytes: Mapping[str, int]) -> int:
    if kind == "cpu":
        return cpu.budget_bytes()
    budgets = _cuda_budgets(held_bytes)
    if index not in budgets:
        raise BadRequest(f"this machine has no device cuda:{index}")
    return budgets[index]


def _cuda_budgets(held_bytes: Mapping[str, int]) -> dict[int, int]:
    free = cuda.free_bytes_by_index()
    return {index: size + held_bytes.get(f"cuda:{index}", 0) for index, size in free.items()}
