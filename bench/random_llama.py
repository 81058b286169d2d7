"""A Llama of about 1 GiB: random bf16 weights in one file, with the tokenizer of the test models.

`python -m bench.random_llama FOLDER` writes it; a process of its own, so that the bench itself
needs no torch.
"""

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
_SIZES = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "max_position_embeddings": 512,
}
"""528 million parameters."""


def make_random_llama(folder: Path) -> None:
    command = [sys.executable, "-m", "bench.random_llama", str(folder)]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)


def write(folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.hub.tokenizer import VOCABULARY_SIZE, chat_tokenizer

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY_SIZE, **_SIZES))
    model.save_pretrained(folder, max_shard_size="8GB")
    chat_tokenizer().save_pretrained(folder)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
