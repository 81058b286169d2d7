"""Weights like no others: files that two repositories share are fetched and loaded once."""

from safetensors.numpy import load, save

from tests.hub.models import get_model_folder


def own_weights(of: str) -> bytes:
    """The tensors of `tiny_llama` in a file whose bytes are those of this name only."""
    data = (get_model_folder("tiny_llama") / "model.safetensors").read_bytes()
    return save(load(data), metadata={"format": "pt", "of": of})
