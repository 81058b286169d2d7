"""The table of backends: what can turn a verified snapshot into a model in memory."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from warmrack_store.errors import NotSupported
from warmrack_workers.host_spec import HostSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model in memory, with what its library said about the load."""

    model: Any
    """A torch module in evaluation mode on its device."""
    tokenizer: Any | None
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds by phase."""


class Backend(Protocol):
    """One way to load. Raises NotSupported, DeviceUnsupported, NotExact, OutOfMemory or Integrity,
    nothing else."""

    def load(self, spec: HostSpec) -> LoadedModel: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendEntry:
    """Where a backend is found; read without importing its libraries."""

    name: str
    target: str
    """`module:class`, imported in the host only."""
    forkable: bool
    """False: the host is started as a fresh process, not forked from the nursery."""
    library: str | None = None
    """What the nursery imports before it first forks such a host, where that is safe."""


BACKENDS: dict[str, BackendEntry] = {
    entry.name: entry
    for entry in (
        BackendEntry(
            name="exact", target="warmrack_workers.backends.exact:ExactBackend", forkable=True
        ),
        BackendEntry(
            name="bnb",
            target="warmrack_workers.backends.bnb:BnbBackend",
            forkable=True,
            library="bitsandbytes",
        ),
        BackendEntry(
            name="gguf",
            target="warmrack_workers.backends.gguf:GgufBackend",
            forkable=True,
            library="gguf",
        ),
    )
}


def get_entry(name: str) -> BackendEntry:
    try:
        return BACKENDS[name]
    except KeyError:
        raise NotSupported(f"backend {name!r} is not one of {', '.join(BACKENDS)}") from None


def get_backend(name: str) -> Backend:
    """The backend itself; imports its libraries."""
    module, _, attribute = get_entry(name).target.partition(":")
    backend: Backend = getattr(importlib.import_module(module), attribute)()
    return backend
