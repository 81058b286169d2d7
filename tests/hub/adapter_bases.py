"""The base that an adapter's config names, rewritten for a test."""

import json
from pathlib import Path


def name_base(folder: Path, base: str | None, revision: str | None = None) -> None:
    """Write another base into the adapter's config."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config |= {"base_model_name_or_path": base, "revision": revision}
    path.write_text(json.dumps(config, indent=2, sort_keys=True))
    (folder / "README.md").unlink(missing_ok=True)
