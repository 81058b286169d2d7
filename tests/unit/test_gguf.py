"""GGUF headers, and which of a repository's files a request for GGUF means."""

import struct
from typing import Any

import pytest

from tests.unit.repositories import make_facts, ref_of
from warmrack_store import errors
from warmrack_store.cache.gguf_header import parse_gguf
from warmrack_store.facts import GgufHeader, RepositoryFacts
from warmrack_store.requests import LoadRequest
from warmrack_store.resolution import QuantizationSource, Resolution, Substitution
from warmrack_store.resolver import resolve
from warmrack_store.resolver.asked import Asked
from warmrack_store.resolver.precision import name_backend

SIZES = {"embedding_length": 64, "block_count": 2, "attention.head_count": 4, "context_length": 512}


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def packed(
    kind: str = "llama", *, version: int = 3, extra: bytes = b"", extras: int = 0, rank: int = 2
) -> bytes:
    """A header with one tensor of 8 x 32 and the sizes of a small model."""
    numbers = b"".join(
        text(f"{kind}.{name}") + struct.pack("<II", 4, value) for name, value in SIZES.items()
    )
    tokens = text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b")
    named = text("general.architecture") + struct.pack("<I", 8) + text(kind)
    shape = struct.pack("<I", rank) + struct.pack(f"<{rank}Q", *([32, 8] + [1] * rank)[:rank])
    return (
        b"GGUF"
        + struct.pack("<IQQ", version, 1, len(SIZES) + 2 + extras)
        + (named + numbers + tokens + extra)
        + (text("token_embd.weight") + shape + struct.pack("<IQ", 8, 0))
    )


def header(data: bytes) -> GgufHeader:
    found = parse_gguf("m.gguf", data)
    assert found is not None
    return found


def repository(*files: str, data: bytes | None = None) -> RepositoryFacts:
    facts = make_facts({}, others=files, config=None)
    return facts.model_copy(update={"gguf": header(data or packed())})


def resolved(facts: RepositoryFacts, precision: str, **fields: Any) -> Resolution:
    request = LoadRequest(model="org/name", precision=precision, **fields)
    return resolve(request, Asked(ref=ref_of(facts), facts=facts), versions={})


def test_a_header_gives_scalars_lengths_of_arrays_and_shapes() -> None:
    found = header(packed())
    assert found.metadata["general.architecture"] == "llama"
    assert found.metadata["llama.embedding_length"] == 64
    assert found.metadata["tokenizer.ggml.tokens"] == 2
    assert [(one.name, one.shape, one.size_bytes) for one in found.tensors] == [
        ("token_embd.weight", (8, 32), 8 * 32 * 4)
    ]


def test_every_beginning_of_a_header_asks_for_more_and_the_whole_does_not() -> None:
    data = packed()
    assert all(parse_gguf("m.gguf", data[:size]) is None for size in range(4, len(data)))
    assert parse_gguf("m.gguf", data + b"weights") is not None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PK\x03\x04" + packed()[4:], "does not start with GGUF"),
        (packed(version=1), "version is 1"),
        (packed(extra=text("x") + struct.pack("<I", 99), extras=1), "unknown type 99"),
        (packed(rank=5), "5 dimensions"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**40, 1), "declares"),
        (packed(extra=text("x") + struct.pack("<IIQ", 9, 9, 1), extras=1), "array of the type 9"),
    ],
)
def test_what_is_no_header_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(errors.UnsafeFormat, match=words):
        parse_gguf("m.gguf", data)


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("name.Q4_K_M.gguf", "gguf:Q4_K_M"),
        ("name-q4_k_m.gguf", "gguf:Q4_K_M"),
        ("Name-7B-UD-IQ2_XXS.gguf", "gguf:iq2_xxs"),
        ("name-BF16.gguf", "gguf:BF16"),
        ("Q8_0.gguf", "gguf:Q8_0"),
    ],
)
def test_the_file_of_the_asked_quantization_is_the_whole_load(path: str, asked: str) -> None:
    found = resolved(repository(path, "name-Q2_K.gguf", "README.md"), asked)
    kind = asked.partition(":")[2].upper()
    assert [file.path for file in found.files] == [path]
    assert (found.precision, found.architecture) == (f"gguf:{kind}", "LlamaForCausalLM")
    assert found.substitution is Substitution.NONE
    assert found.quantization is not None
    assert found.quantization.source is QuantizationSource.STORED
    assert name_backend(found.quantization) == "gguf"
    assert [line.rule for line in found.trail] == [f"R{number}" for number in range(10)]


def test_memory_is_that_of_the_unpacked_tensors() -> None:
    found = resolved(repository("name-Q2_K.gguf"), "gguf:Q2_K")
    assert found.memory.weights_bytes == 8 * 32 * 4
    assert found.memory.context_tokens == 512


def test_two_quantizations_of_one_repository_are_two_models() -> None:
    facts = repository("name-Q2_K.gguf", "name-Q8_0.gguf")
    keys = {resolved(facts, precision).cache_key for precision in ("gguf:Q2_K", "gguf:Q8_0")}
    assert len(keys) == 2


def test_a_quantization_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(errors.NoVariant, match="it holds gguf:Q2_K, gguf:Q8_0"):
        resolved(repository("name-Q8_0.gguf", "name-Q2_K.gguf"), "gguf:Q4_K_M")
    with pytest.raises(errors.NoVariant, match="no GGUF file"):
        resolved(make_facts(), "gguf:Q4_K_M")


def test_a_repository_of_gguf_files_alone_names_them_to_who_asks_for_the_checkpoint() -> None:
    with pytest.raises(errors.NotSupported, match="GGUF only") as raised:
        resolved(repository("name-Q8_0.gguf", "name-Q2_K.gguf"), "checkpoint")
    assert "gguf:Q2_K, gguf:Q8_0" in raised.value.hint


def test_safetensors_are_the_checkpoint_where_both_lie_there_and_gguf_on_demand() -> None:
    facts = make_facts(others=("name-Q8_0.gguf",)).model_copy(update={"gguf": header(packed())})
    plain = resolved(facts, "checkpoint")
    assert plain.weights == ("model.safetensors",)
    assert "name-Q8_0.gguf" in plain.trail[4].alternatives
    assert resolved(facts, "gguf:Q8_0").weights == ("name-Q8_0.gguf",)


def test_split_files_and_twins_are_refused() -> None:
    with pytest.raises(errors.NoVariant):
        resolved(repository("name-Q8_0-00001-of-00002.gguf"), "gguf:Q8_0")
    with pytest.raises(errors.NotSupported, match="Q8_0 twice"):
        resolved(repository("a-Q8_0.gguf", "b-Q8_0.gguf"), "gguf:Q8_0")


def test_kinds_that_the_audit_cannot_unpack_are_refused_by_name() -> None:
    with pytest.raises(errors.NotSupported, match="kind mamba"):
        resolved(repository("name-Q8_0.gguf", data=packed("mamba")), "gguf:Q8_0")


def test_scaled_positions_are_refused_since_the_library_would_drop_them() -> None:
    scaled = text("llama.rope.scaling.type") + struct.pack("<I", 8) + text("linear")
    with pytest.raises(errors.NotSupported, match=r"rope\.scaling\.type linear"):
        resolved(repository("name-Q2_K.gguf", data=packed(extra=scaled, extras=1)), "gguf:Q2_K")
    plain = text("llama.rope.scaling.type") + struct.pack("<I", 8) + text("none")
    assert resolved(repository("name-Q2_K.gguf", data=packed(extra=plain, extras=1)), "gguf:Q2_K")


def test_frequency_factors_are_refused_since_the_library_would_drop_them() -> None:
    facts = repository("name-Q2_K.gguf")
    assert facts.gguf is not None
    factors = facts.gguf.tensors[0].model_copy(update={"name": "rope_freqs.weight"})
    held = facts.gguf.model_copy(update={"tensors": (*facts.gguf.tensors, factors)})
    with pytest.raises(errors.NotSupported, match="rope_freqs"):
        resolved(facts.model_copy(update={"gguf": held}), "gguf:Q2_K")


def test_gguf_is_never_made_at_the_load() -> None:
    with pytest.raises(errors.Contradiction, match="GGUF is only read"):
        resolved(repository("name-Q8_0.gguf"), "gguf:Q8_0", mode="optimized", quantize="on_the_fly")


def test_a_header_that_could_not_be_read_says_why() -> None:
    facts = make_facts({}, others=("name-Q8_0.gguf",), config=None)
    broken = facts.model_copy(update={"gguf_error": "name-Q8_0.gguf is not a GGUF file"})
    with pytest.raises(errors.NotSupported, match="is not a GGUF file"):
        resolved(broken, "gguf:Q8_0")
