"""What a host is told to load and serve: one frozen record, a JSON file beside the host's socket."""

from pathlib import Path

from pydantic import Field, ValidationError

from warmrack_store.cache.verified import VerifiedFile
from warmrack_store.errors import Defect
from warmrack_store.records import Record
from warmrack_store.resolution import Resolution

LONGEST_SOCKET_PATH = 107
"""sun_path in unix(7) has 108 bytes, the last one a NUL."""


class ExpectedLeaf(Record):
    """One tensor of the checkpoint."""

    dtype: str
    """safetensors' spelling."""
    shape: tuple[int, ...]
    leaf: str
    path: str
    """The file that holds it."""


class SnapshotFiles(Record):
    """The verified files of one repository, and their tensors."""

    snapshot_dir: Path
    files: tuple[VerifiedFile, ...]
    leaves: dict[str, ExpectedLeaf]


class HostSpec(Record):
    """Written by the agent before the host starts; nothing in it changes afterwards."""

    resident_id: str
    epoch: int
    model: str
    """As asked."""
    resolution: Resolution
    snapshot_dir: Path
    files: tuple[VerifiedFile, ...]
    leaves: dict[str, ExpectedLeaf]
    adapter: SnapshotFiles | None = None
    """What goes on the model, where the resolution has an adapter."""
    device: str = Field(pattern=r"^(cpu|cuda):\d+$")
    threads: int = Field(ge=1)
    context_tokens: int = Field(ge=1)
    socket_path: Path
    log_path: Path
    backend: str = "exact"
    audit_policy: str = Field("full", pattern="^full$")

    def adapter_spec(self) -> "HostSpec | None":
        """The spec as if the adapter's repository were the model; None where there is no adapter."""
        if self.adapter is None:
            return None
        _, part = self.resolution.parts
        own = {name: getattr(self.adapter, name) for name in SnapshotFiles.model_fields}
        return self.model_copy(update={**own, "resolution": part, "adapter": None})


def write_spec(spec: HostSpec, path: Path) -> None:
    """Raises Defect where the socket's path is longer than a unix socket may have."""
    if len(str(spec.socket_path).encode()) > LONGEST_SOCKET_PATH:
        raise Defect(
            f"socket path {spec.socket_path} has more than {LONGEST_SOCKET_PATH} bytes",
            hint="Use a shorter runtime folder.",
        )
    path.write_text(spec.model_dump_json())


def read_spec(path: Path) -> HostSpec:
    """Raises Defect where the file cannot be read or is not a spec."""
    try:
        return HostSpec.model_validate_json(path.read_text())
    except (OSError, ValidationError) as error:
        raise Defect(f"host spec {path} cannot be read: {error}") from error
