"""Laws of the resolver, over made-up repositories of every sort."""

import json
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.unit.repositories import LLAMA, make_facts, ref_of, tensor
from warmrack_store.errors import WarmrackError
from warmrack_store.facts import RepositoryFacts, TensorFact
from warmrack_store.records import canonical_json
from warmrack_store.requests import LoadRequest
from warmrack_store.resolution import Resolution, Substitution
from warmrack_store.resolver import resolve
from warmrack_store.resolver.asked import Asked
from warmrack_store.resolver.kinds import INDEX

on_a_busy_machine = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMES_OF_FILES = (
    *("README.md", "pytorch_model.bin", "name.gguf", "adapter_config.json", INDEX, "merges.txt"),
    *("onnx/model.onnx", "spiece.model", "hf_quant_config.json", "training_args.bin", "a/b.json"),
)
NAMES_OF_WEIGHTS = (
    *("model.safetensors", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
    *("consolidated.safetensors", "model.fp16.safetensors", "other-1-of-1.safetensors"),
)
KEYS = (
    *("architectures", "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "sliding_window", "layer_types", "vocab_size", "dtype"),
    *("max_position_embeddings", "text_config", "quantization_config", "auto_map", "d_kv"),
    *("is_encoder_decoder", "intermediate_size", "pad_token_id", "qk_rope_head_dim"),
)

texts = st.sampled_from(["", "é", "BertModel", "mistral", "sliding_attention", "torch.float32"])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=6,
)
tensors = st.builds(
    tensor,
    st.sampled_from(["a", "b", "c", "lm_head.weight"]),
    st.lists(st.integers(0, 2**20), max_size=3).map(tuple),
    st.sampled_from(["BF16", "F16", "F32", "I64", "U8", "F8_E4M3"]),
)


@st.composite
def repositories(draw: st.DrawFn, *, sound: bool = False) -> RepositoryFacts:
    """Facts of a repository; where `sound`, of one that is likely to be served."""
    held: st.SearchStrategy[tuple[TensorFact, ...]] = st.lists(
        tensors, max_size=4, unique_by=lambda fact: fact.name
    ).map(tuple)
    if sound:
        shards = draw(st.integers(1, 3))
        shard_files = {
            f"model-{n}-of-{shards}.safetensors": (tensor(f"t{n}", dtype=dtype),)
            for n, dtype in enumerate(draw(_dtypes(shards)), 1)
        }
        others = (INDEX, *draw(st.sets(st.sampled_from(["README.md", "merges.txt", "a/b.json"]))))
        sizes = st.integers(1, 10**6)
        config: dict[str, Any] | None = LLAMA | {
            key: draw(sizes) for key in draw(st.sets(st.sampled_from(["head_dim", "vocab_size"])))
        }
        return make_facts(shard_files, others=tuple(others), config=config)
    weights = draw(st.dictionaries(st.sampled_from(NAMES_OF_WEIGHTS), held, max_size=4))
    others = tuple(draw(st.sets(st.sampled_from(NAMES_OF_FILES))))
    changes = draw(st.dictionaries(st.sampled_from(KEYS), anything, max_size=8))
    config = draw(st.sampled_from([None, LLAMA | changes, changes]))
    return make_facts(weights, others=others, config=config)


def _dtypes(count: int) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(["BF16", "F32"]), min_size=count, max_size=count)


def resolved(facts: RepositoryFacts, model: str, **fields: Any) -> Resolution:
    asked = Asked(ref=ref_of(facts), facts=facts)
    return resolve(LoadRequest(model=model, **fields), asked, versions={"x": "1"})


def what_is_served(resolution: Resolution) -> dict[str, Any]:
    spelling = {"asked", "ref_asked", "request_digest", "substitution", "trail"}
    return resolution.model_dump(exclude=spelling)


@on_a_busy_machine
@given(repositories(), st.integers(1, 2**31) | st.none())
def test_every_repository_gives_a_resolution_or_a_typed_error(
    facts: RepositoryFacts, max_seq_length: int | None
) -> None:
    found = attempt(facts, max_seq_length=max_seq_length)
    if isinstance(found, Resolution):
        assert Resolution.model_validate_json(found.model_dump_json()) == found
    else:
        assert found.message
        assert found.code != "defect"


def attempt(facts: RepositoryFacts, **fields: Any) -> Resolution | WarmrackError:
    try:
        return resolved(facts, "org/name", **fields)
    except WarmrackError as error:
        return error


@on_a_busy_machine
@given(repositories(sound=True))
def test_a_sound_repository_is_served_and_its_own_files_only(facts: RepositoryFacts) -> None:
    found = resolved(facts, "org/name")
    assert set(found.files) <= set(facts.files)
    paths = [file.path for file in found.files]
    assert paths == sorted(set(paths))
    assert {*found.weights, *found.tokenizer_files, "config.json"} <= set(paths)
    assert [line.rule for line in found.trail] == [f"R{number}" for number in range(10)]


@on_a_busy_machine
@given(repositories(sound=True))
def test_resolving_what_was_resolved_gives_the_same(facts: RepositoryFacts) -> None:
    first = resolved(facts, "Org/NAME", revision="main")
    again = resolved(facts, f"{first.repository}@{first.commit}")
    assert what_is_served(again) == what_is_served(first)
    assert again.substitution is Substitution.NONE
    assert again.cache_key == first.cache_key


@on_a_busy_machine
@given(repositories(sound=True), st.sampled_from(["org/name", "ORG/Name", "hf://org/name"]))
def test_the_spelling_of_the_name_changes_nothing_that_is_served(
    facts: RepositoryFacts, spelling: str
) -> None:
    assert what_is_served(resolved(facts, spelling)) == what_is_served(resolved(facts, "org/name"))


@on_a_busy_machine
@given(repositories())
def test_the_same_facts_give_the_same_answer_in_any_order_of_the_config(
    facts: RepositoryFacts,
) -> None:
    assume(facts.config is not None)
    turned = facts.model_copy(update={"config": dict(reversed((facts.config or {}).items()))})
    assert answer(turned) == answer(facts)


def answer(facts: RepositoryFacts) -> str:
    found = attempt(facts)
    if isinstance(found, Resolution):
        return canonical_json(json.loads(found.model_dump_json()))
    return canonical_json(found.to_record())


@on_a_busy_machine
@given(repositories(sound=True), st.integers(1, 10**5), st.integers(1, 10**5))
def test_a_longer_sequence_never_needs_less_memory(
    facts: RepositoryFacts, shorter: int, longer: int
) -> None:
    shorter, longer = sorted((shorter, longer))
    small = resolved(facts, "org/name", max_seq_length=shorter).memory
    large = resolved(facts, "org/name", max_seq_length=longer).memory
    assert small.total_bytes <= large.total_bytes
    assert small.weights_bytes == large.weights_bytes
