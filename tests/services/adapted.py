"""Specs of hosts whose model has a LoRA adapter on it."""

import json
from math import prod
from pathlib import Path

from tests.services.hosts import _fact, _read_leaves, _verify
from warmrack_store.resolution import AdapterPin, AdapterUse
from warmrack_workers.host_spec import HostSpec, SnapshotFiles

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
_BYTES = {"F32": 4, "BF16": 2, "F16": 2}


def add_adapter(spec: HostSpec, snapshot: Path) -> HostSpec:
    """What the agent would write for the model with the adapter of that snapshot on it."""
    own = snapshot.rename(snapshot.parent / COMMIT)
    paths = sorted(own / name for name in ("adapter_config.json", "adapter_model.safetensors"))
    leaves = _read_leaves(paths[1])
    config = json.loads(paths[0].read_text())
    sizes = [_BYTES[leaf.dtype] * prod(leaf.shape) for leaf in leaves.values()]
    pin = AdapterPin(
        repository="tests/lora",
        commit=COMMIT,
        ref_asked=None,
        private=False,
        gated=False,
        files=tuple(_fact(path) for path in paths),
        weights=(paths[1].name,),
        how=AdapterUse.ATTACHED,
        rank=config["r"],
        alpha=config["lora_alpha"],
        target_modules=(),
        modules=1,
        parameters=1,
        memory_bytes=sum(sizes),
        base_named=config["base_model_name_or_path"],
    )
    files = SnapshotFiles(
        snapshot_dir=own, files=tuple(_verify(path) for path in paths), leaves=leaves
    )
    resolution = spec.resolution.model_copy(update={"adapter": pin})
    return spec.model_copy(update={"adapter": files, "resolution": resolution})
