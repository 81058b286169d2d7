"""The devices of a node and what each may hold."""

from collections.abc import Mapping
from dataclasses import dataclass

from warmrack_store.device_specs import parse_devices
from warmrack_store.errors import BadRequest
from warmrack_workers.devices import cpu, cuda


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
    own hosts hold of it (`held_bytes`, by device), a CPU device most of the machine's. Raises
    BadRequest for a spec that makes no sense or a device that is not there.
    """
    named = parse_devices(spec)
    if named is None:
        gpus = _cuda_budgets(held_bytes)
        found = [Device(name=f"cuda:{index}", budget_bytes=size) for index, size in gpus.items()]
        return tuple(found) or (Device(name="cpu:0", budget_bytes=cpu.budget_bytes()),)
    return tuple(
        Device(
            name=one.name,
            budget_bytes=one.size_bytes or _measured(one.kind, one.index, held_bytes),
        )
        for one in named
    )


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
