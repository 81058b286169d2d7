"""A folder that holds exactly a resolution's files, whatever else lies in the shared snapshot.

The library reads any file of a known name that it finds beside the weights (an adapter's config, a
chat template, generation defaults); from the view it can only find what was resolved.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from warmrack_workers.host_spec import HostSpec


@contextmanager
def viewed(spec: HostSpec) -> Iterator[HostSpec]:
    """The spec with its snapshot folder replaced by a view of links, which is removed at the end;
    so is its adapter's."""
    with tempfile.TemporaryDirectory(prefix="view-", dir=spec.socket_path.parent) as folder:
        changes: dict[str, Any] = {"snapshot_dir": _link(spec, Path(folder) / "model")}
        if spec.adapter is not None and (part := spec.adapter_spec()) is not None:
            view = _link(part, Path(folder) / "adapter")
            changes["adapter"] = spec.adapter.model_copy(update={"snapshot_dir": view})
        yield spec.model_copy(update=changes)


def _link(spec: HostSpec, folder: Path) -> Path:
    view = folder / spec.snapshot_dir.name
    for file in spec.resolution.files:
        link = view / file.path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(spec.snapshot_dir.absolute() / file.path)
    return view
