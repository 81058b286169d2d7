"""The models tests serve, each built once into a folder of the checkout."""

import argparse
import shutil
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

MODELS_FOLDER = Path(__file__).resolve().parents[2] / ".cache" / "models"
# The module that builds each; torch is imported only when a model is not there yet.
_TINY, _PUBLISHED = "tests.hub.tiny", "tests.hub.published"
_QUANTIZED, _PACKED = "tests.hub.quantized", "tests.hub.packed"
_ADAPTED = "tests.hub.adapted"
BUILDERS = {
    "tiny_llama": _TINY,
    "tiny_llama_sharded": _TINY,
    "tiny_qwen": _TINY,
    "tiny_gemma": _TINY,
    "tiny_moe": _TINY,
    "tiny_bert": _TINY,
    "pickle_only": _TINY,
    "tiny_llama_nf4": _QUANTIZED,
    "tiny_llama_int8": _QUANTIZED,
    "tiny_moe_nf4": _QUANTIZED,
    "tiny_bert_int8": _QUANTIZED,
    "tiny_llama_gguf": _PACKED,
    "tiny_qwen_gguf": _PACKED,
    "tiny_lora": _ADAPTED,
    "tiny_lora_wide": _ADAPTED,
    "smollm2": _PUBLISHED,
    "minilm": _PUBLISHED,
}


def get_model_folder(name: str) -> Path:
    """The folder of a model, built now if it is not there; nobody may write into it."""
    folder = MODELS_FOLDER / name
    if not folder.is_dir():
        build: Callable[[Path], None] = getattr(import_module(BUILDERS[name]), name)
        build_into(build, folder)
    return folder


def build_into(build: Callable[[Path], None], folder: Path) -> None:
    """Two processes may build at once: the first to finish is kept, both made the same bytes."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=folder.parent) as scratch:
        made = Path(scratch) / folder.name
        made.mkdir()
        build(made)
        for path in made.rglob("*"):
            # transformers writes weights 0600, which only their owner could serve.
            path.chmod(0o755 if path.is_dir() else 0o644)
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hub.models", description=__doc__)
    parser.add_argument("names", nargs="+", choices=sorted(BUILDERS), metavar="NAME")
    parser.add_argument("--rebuild", action="store_true", help="throw away what is there")
    options = parser.parse_args()
    for name in options.names:
        if options.rebuild:
            shutil.rmtree(MODELS_FOLDER / name, ignore_errors=True)
        print(get_model_folder(name))


if __name__ == "__main__":
    main()
