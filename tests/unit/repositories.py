"""Facts of made-up repositories, for tests of what is decided from facts."""

import hashlib
from collections.abc import Mapping
from math import prod
from typing import Any

from warmrack_store.facts import FileFact, RefFact, RepositoryFacts, TensorFact, WeightFile

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ELEMENT_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "U8": 1, "I64": 8}
LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "vocab_size": 256,
}
SMALL_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


def tensor(name: str, shape: tuple[int, ...] = (4, 8), dtype: str = "BF16") -> TensorFact:
    return TensorFact(
        name=name, dtype=dtype, shape=shape, size_bytes=prod(shape) * ELEMENT_BYTES[dtype]
    )


def file(path: str, size_bytes: int = 100) -> FileFact:
    digest = hashlib.sha256(path.encode()).hexdigest()
    return FileFact(path=path, size=size_bytes, git_sha1=digest[:40], sha256=digest)


def make_facts(
    weights: Mapping[str, tuple[TensorFact, ...]] | None = None,
    *,
    others: tuple[str, ...] = (),
    config: dict[str, Any] | None = LLAMA,
    config_error: str | None = None,
    repository: str = "org/name",
) -> RepositoryFacts:
    """A repository with these weight files and what a usual one holds beside them."""
    weights = {"model.safetensors": (tensor("a"), tensor("b"))} if weights is None else weights
    paths = {*SMALL_FILES, *weights, *others} - ({"config.json"} if config is None else set())
    return RepositoryFacts(
        repository=repository,
        commit=COMMIT,
        files=tuple(file(path) for path in sorted(paths)),
        config=config,
        config_error=config_error,
        weights=tuple(WeightFile(path=path, tensors=held) for path, held in weights.items()),
    )


def ref_of(facts: RepositoryFacts) -> RefFact:
    return RefFact(
        repository=facts.repository, commit=facts.commit, private=facts.private, gated=facts.gated
    )
