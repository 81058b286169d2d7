"""A checkpoint that bitsandbytes quantized once, as a publisher would store it.

`python -m bench.quantized_llama SOURCE FOLDER METHOD` writes it; a process of its own, so that the
bench itself needs no torch.
"""

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]


def make_quantized_llama(source: Path, folder: Path, method: str) -> None:
    command = [sys.executable, "-m", "bench.quantized_llama", str(source), str(folder), method]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)


def write(source: Path, folder: Path, method: str) -> None:
    import torch
    import transformers

    from warmrack_store.resolution import Quantization, QuantizationSource
    from warmrack_workers.backends.bnb import make_config

    quantization = Quantization(
        method=method, source=QuantizationSource.ON_THE_FLY, compute_dtype="bf16"
    )
    model = transformers.LlamaForCausalLM.from_pretrained(
        source,
        dtype=torch.bfloat16,
        device_map={"": "cpu"},
        quantization_config=make_config(quantization),
    )
    model.save_pretrained(folder, max_shard_size="8GB")
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(folder)


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
