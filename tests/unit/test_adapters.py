"""What a request with a LoRA adapter becomes: the pair, its pins, and every reason against it."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.unit.repositories import COMMIT, LLAMA, file, make_facts, ref_of, tensor
from warmrack_store import errors
from warmrack_store.attaching import find_pairing
from warmrack_store.attestation import model_url
from warmrack_store.facts import RepositoryFacts, TensorFact, WeightFile
from warmrack_store.receipts import name_receipt, retitle
from warmrack_store.refs import ModelRef
from warmrack_store.requests import LoadRequest
from warmrack_store.resolution import Resolution, Substitution
from warmrack_store.resolver import resolve
from warmrack_store.resolver.asked import Asked
from warmrack_store.resolver.pool import Pool

BASE, LORA, OTHER = "org/base", "me/lora", "vendor/original"
OLD = "f" * 40
CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": BASE,
    "r": 2,
    "lora_alpha": 4,
    "target_modules": ["q_proj"],
    "init_lora_weights": True,
}
LAYER = "model.layers.0.self_attn.q_proj"
WEIGHTS = "adapter_model.safetensors"


def lora(module: str = LAYER, *, rank: int = 2, inner: int = 8, outer: int = 4) -> list[TensorFact]:
    return [
        tensor(f"base_model.model.{module}.lora_A.weight", (rank, inner), "F32"),
        tensor(f"base_model.model.{module}.lora_B.weight", (outer, rank), "F32"),
    ]


def base_facts(repository: str = BASE, **fields: Any) -> RepositoryFacts:
    held = (tensor(f"{LAYER}.weight", (4, 8)), tensor("model.embed_tokens.weight", (16, 8)))
    return make_facts({"model.safetensors": held}, repository=repository, **fields)


def lora_facts(
    tensors: list[TensorFact] | None = None,
    *,
    files: tuple[str, ...] = ("adapter_config.json", WEIGHTS),
    error: str | None = None,
    card: tuple[str, ...] = (),
    bare: bool = False,
    **config: Any,
) -> RepositoryFacts:
    """`bare` leaves the config out."""
    return RepositoryFacts(
        repository=LORA,
        commit=COMMIT,
        files=tuple(file(path) for path in sorted(files)),
        weights=(WeightFile(path=WEIGHTS, tensors=tuple(tensors or lora())),),
        adapter_config=None if bare else {**CONFIG, **config},
        adapter_config_error=error,
        card_bases=card,
    )


class Hub:
    """Repositories by lower-case name and revision, answered as a Hub does."""

    def __init__(self, *facts: RepositoryFacts, aliases: Mapping[str, str] | None = None) -> None:
        self.facts = {one.repository.lower(): one for one in facts}
        self.aliases = aliases or {}
        self.commits = {"main": COMMIT, "v1": OLD, COMMIT: COMMIT, OLD: OLD}
        self.asked: list[ModelRef] = []

    def find(self, ref: ModelRef) -> Asked:
        self.asked.append(ref)
        name = self.aliases.get(ref.repository.lower(), ref.repository.lower())
        if name not in self.facts:
            raise errors.RepoNotFound(f"{ref.repository} is not there")
        commit = self.commits.get(ref.revision or "main")
        if commit is None:
            raise errors.RevisionNotFound(f"{ref.revision} is not there")
        facts = self.facts[name].model_copy(update={"commit": commit})
        return Asked(ref=ref_of(facts), facts=facts)


def resolved(hub: Hub, model: str = LORA, pool: Pool | None = None, **fields: Any) -> Resolution:
    request = LoadRequest(model=model, **fields)
    pairing = find_pairing(hub.find, request, request.locked)
    return resolve(
        request,
        pairing.model,
        attachment=pairing.attachment,
        pool=pool or Pool(),
        versions={},
    )


def test_a_repository_that_is_an_adapter_is_resolved_with_the_base_that_it_names() -> None:
    found = resolved(Hub(base_facts(), lora_facts()))
    assert (found.asked, found.repository, found.commit) == (LORA, BASE, COMMIT)
    assert found.substitution is Substitution.NONE
    pin = found.adapter
    assert pin is not None
    assert (pin.repository, pin.commit, pin.how) == (LORA, COMMIT, "attached")
    assert (pin.rank, pin.alpha, pin.target_modules) == (2, 4.0, ("q_proj",))
    assert [one.path for one in pin.files] == ["adapter_config.json", WEIGHTS]
    assert pin.base_named == BASE


def test_the_trail_has_one_line_a_rule_and_names_both() -> None:
    found = resolved(Hub(base_facts(), lora_facts()))
    assert [line.rule for line in found.trail] == [f"R{number}" for number in range(10)]
    lines = {line.rule: line.decision for line in found.trail}
    for rule in ("R2", "R3", "R4", "R7", "R9"):
        assert f"adapter {LORA}" in lines[rule]
    assert lines["R2"].startswith(BASE)


def test_the_base_is_taken_at_the_revision_that_the_config_names() -> None:
    found = resolved(Hub(base_facts(), lora_facts(revision="v1")))
    assert (found.commit, found.ref_asked) == (OLD, "v1")
    named = resolved(Hub(base_facts(), lora_facts(revision="v1")), model=BASE, adapter=LORA)
    assert (named.commit, named.ref_asked) == (OLD, "v1")


def test_the_requests_own_revision_of_the_base_wins_and_is_said() -> None:
    hub = Hub(base_facts(), lora_facts(revision="v1"))
    found = resolved(hub, model=f"{BASE}@main", adapter=LORA)
    assert found.commit == COMMIT
    assert "trained on revision v1" in found.warnings[0]


def test_a_revision_beside_an_adapters_name_is_the_adapters() -> None:
    found = resolved(Hub(base_facts(), lora_facts()), revision="v1")
    assert found.adapter is not None
    assert (found.adapter.commit, found.adapter.ref_asked) == (OLD, "v1")
    assert (found.commit, found.ref_asked) == (COMMIT, None)


def test_an_adapter_named_beside_its_base_is_the_same_load_as_the_adapter_alone() -> None:
    hub = Hub(base_facts(), lora_facts())
    alone, named = resolved(hub), resolved(hub, model="Org/Base", adapter=f"hf://{LORA}@v1")
    assert named.adapter is not None
    assert named.adapter.commit == OLD
    assert named.substitution is Substitution.ALIAS
    assert alone.cache_key == named.cache_key
    assert alone.asked_commit == named.asked_commit == COMMIT


def test_the_base_alone_and_with_an_adapter_are_two_loads() -> None:
    hub = Hub(base_facts(), lora_facts())
    plain, adapted = resolved(hub, model=BASE), resolved(hub)
    assert plain.cache_key != adapted.cache_key
    assert (plain.same_values, adapted.same_values) == (True, False)
    assert adapted.size_bytes == plain.size_bytes + 200
    assert adapted.memory.weights_bytes == plain.memory.weights_bytes + 2 * (8 + 4) * 4
    assert adapted.files == plain.files


def test_its_parts_are_two_snapshots_each_with_its_own_files_and_ref() -> None:
    base, adapter = resolved(Hub(base_facts(), lora_facts()), revision="v1").parts
    assert (base.repository, base.commit, base.adapter) == (BASE, COMMIT, None)
    assert (adapter.repository, adapter.commit, adapter.ref_asked) == (LORA, OLD, "v1")
    assert adapter.weights == (WEIGHTS,)
    assert base.selection != adapter.selection


def test_a_private_adapter_shares_no_warm_copy_with_a_public_one_of_the_same_bytes() -> None:
    public = resolved(Hub(base_facts(), lora_facts()))
    private = resolved(Hub(base_facts(), lora_facts().model_copy(update={"private": True})))
    assert public.cache_key != private.cache_key
    assert (public.public, private.public) == (True, False)
    assert [part.public for part in private.parts] == [True, False]


def test_another_base_than_the_model_is_refused_with_both_ways_out() -> None:
    hub = Hub(base_facts(), base_facts(OTHER), lora_facts())
    with pytest.raises(errors.AdapterBaseUnresolved, match=f"for {BASE}, not for {OTHER}") as found:
        resolved(hub, model=OTHER, adapter=LORA)
    assert f"adapter_base {OTHER}" in found.value.hint
    assert resolved(hub, model=OTHER, adapter=LORA, adapter_base=OTHER).repository == OTHER


def test_an_old_name_of_the_base_is_the_base() -> None:
    hub = Hub(
        base_facts(), lora_facts(base_model_name_or_path="was/base"), aliases={"was/base": BASE}
    )
    assert resolved(hub, model=BASE, adapter=LORA).repository == BASE
    assert resolved(hub).repository == BASE


def test_the_vendors_base_is_the_one_that_the_card_names() -> None:
    copy = lora_facts(base_model_name_or_path="copy/base", revision="v1", card=(OTHER,))
    hub = Hub(base_facts(OTHER), base_facts("copy/base"), copy)
    assert resolved(hub).repository == "copy/base"
    found = resolved(hub, adapter_base="vendor")
    assert (found.repository, found.commit) == (OTHER, COMMIT)
    assert resolved(hub, model=OTHER, adapter=LORA, adapter_base="vendor").repository == OTHER


def test_without_a_card_the_vendors_base_is_the_one_trained_on() -> None:
    assert resolved(Hub(base_facts(), lora_facts()), adapter_base="vendor").repository == BASE
    same = lora_facts(card=("ORG/base",), revision="v1")
    assert resolved(Hub(base_facts(), same), adapter_base="vendor").commit == OLD


def test_a_base_named_explicitly_is_pinned_as_named() -> None:
    hub = Hub(base_facts(), base_facts(OTHER), lora_facts())
    found = resolved(hub, adapter_base=f"{OTHER}@v1")
    assert (found.repository, found.commit) == (OTHER, OLD)


@pytest.mark.parametrize(
    ("facts", "fields"),
    [
        (lora_facts(base_model_name_or_path=None), {}),
        (lora_facts(base_model_name_or_path=""), {}),
        (lora_facts(base_model_name_or_path="/data/llama"), {}),
        (lora_facts(base_model_name_or_path="./llama"), {}),
        (lora_facts(base_model_name_or_path="https://hub.example/org/base"), {}),
        (lora_facts(base_model_name_or_path="llama"), {}),
        (lora_facts(revision="../x"), {}),
        (lora_facts(revision="gone"), {}),
        (lora_facts(base_model_name_or_path="org/gone"), {}),
        (lora_facts(base_model_name_or_path=LORA), {}),
        (lora_facts(card=("a/one", "a/two")), {"adapter_base": "vendor"}),
        (lora_facts(base_model_name_or_path="org/gone"), {"model": BASE, "adapter": LORA}),
    ],
)
def test_a_base_that_nobody_can_tell_is_refused(
    facts: RepositoryFacts, fields: dict[str, Any]
) -> None:
    with pytest.raises(errors.AdapterBaseUnresolved):
        resolved(Hub(base_facts(), facts), **fields)


@pytest.mark.parametrize(
    ("facts", "error", "message"),
    [
        (lora_facts(peft_type="IA3"), errors.NotSupported, "type IA3"),
        (lora_facts(peft_type=None), errors.NotSupported, "none at all"),
        (lora_facts(task_type="SEQ_CLS"), errors.NotSupported, "SEQ_CLS"),
        (lora_facts(bias="all"), errors.NotSupported, "biases"),
        (lora_facts(init_lora_weights="pissa_niter_4"), errors.NotSupported, "pissa"),
        (lora_facts(layer_replication=[[0, 2]]), errors.NotSupported, "layer_replication"),
        (lora_facts(trainable_token_indices=[1]), errors.NotSupported, "trainable_token"),
        (lora_facts(something_new=True), errors.NotSupported, "something_new"),
        (lora_facts(r=None), errors.NotSupported, "rank"),
        (lora_facts(lora_alpha="8"), errors.NotSupported, "lora_alpha"),
        (lora_facts(error="is not JSON", bare=True), errors.NotSupported, "is not JSON"),
        (lora_facts(files=(WEIGHTS,), bare=True), errors.NotSupported, "adapter_config"),
        (lora_facts(files=("adapter_config.json",)), errors.NotSupported, WEIGHTS),
        (
            lora_facts(files=("adapter_config.json", "adapter_model.bin")),
            errors.UnsafeFormat,
            "pickle",
        ),
    ],
)
def test_what_is_no_plain_lora_adapter_is_refused(
    facts: RepositoryFacts, error: type[errors.WarmrackError], message: str
) -> None:
    with pytest.raises(error, match=message):
        resolved(Hub(base_facts(), facts))


@pytest.mark.parametrize("setting", ["loftq_config", "corda_config", "alora_invocation_tokens"])
def test_settings_that_are_not_set_do_not_matter(setting: str) -> None:
    unset: dict[str, Any] = {setting: {}}
    assert resolved(Hub(base_facts(), lora_facts(**unset))).adapter is not None


def test_a_repository_with_both_is_refused_in_either_role() -> None:
    both = lora_facts(files=("adapter_config.json", WEIGHTS, "model.safetensors", "config.json"))
    with pytest.raises(errors.BothKinds):
        resolved(Hub(base_facts(), both), model=BASE, adapter=LORA)
    with pytest.raises(errors.BothKinds):
        resolved(Hub(base_facts(), both))


def shaped(tensors: list[TensorFact], **config: Any) -> Hub:
    return Hub(base_facts(), lora_facts(tensors, **config))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (lora("model.layers.7.self_attn.q_proj"), "has no such tensor"),
        (lora(inner=16), r"has \[4, 8\] there"),
        (lora(outer=8), r"has \[4, 8\] there"),
        (lora(inner=4, outer=8), r"has \[4, 8\] there"),
        (lora(rank=3), "ranks 3 and 3"),
        (lora()[:1], "one half"),
        ([tensor("other.thing", (1,))], "no part of a LoRA layer"),
        ([*lora(), tensor("base_model.model.lm_head.weight", (16, 8))], "no part of a LoRA layer"),
    ],
)
def test_tensors_without_their_place_in_the_base_are_another_lineage(
    tensors: list[TensorFact], message: str
) -> None:
    with pytest.raises(errors.LineageMismatch, match=message):
        resolved(shaped(tensors))


def test_other_ranks_are_allowed_where_the_config_has_a_pattern() -> None:
    assert resolved(shaped(lora(rank=3), rank_pattern={"q_proj": 3})).adapter is not None


def test_layers_stored_with_the_input_side_first_are_held_against_their_own_shape() -> None:
    gpt2 = base_facts(config={**LLAMA, "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]})
    assert resolved(Hub(gpt2, lora_facts(lora(inner=4, outer=8)))).adapter is not None
    assert resolved(shaped(lora(inner=4, outer=8), fan_in_fan_out=True)).adapter is not None


def test_an_embedding_and_a_saved_module_are_held_against_the_base_too() -> None:
    name = "base_model.model.model.embed_tokens"
    table = [
        tensor(f"{name}.lora_embedding_A", (2, 16), "F32"),
        tensor(f"{name}.lora_embedding_B", (8, 2), "F32"),
    ]
    assert resolved(shaped(table)).adapter is not None
    saved = [*lora(), tensor(f"{name}.weight", (16, 8))]
    found = resolved(shaped(saved, modules_to_save=["embed_tokens"])).adapter
    assert found is not None
    assert found.target_modules == ("embed_tokens", "q_proj")
    grown = [*lora(), tensor(f"{name}.weight", (17, 8))]
    with pytest.raises(errors.LineageMismatch, match="embed_tokens"):
        resolved(shaped(grown, modules_to_save=["embed_tokens"]))


def test_a_packed_four_bit_weight_has_the_elements_of_its_layer() -> None:
    packed = tensor(f"{LAYER}.weight", (16, 1), "U8")
    state = tensor(f"{LAYER}.weight.absmax", (1,), "F32")
    config = {
        **LLAMA,
        "quantization_config": {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_compute_dtype": "bfloat16",
        },
    }
    names = (packed, state, tensor("model.norm.weight", (8,)))
    base = make_facts({"model.safetensors": names}, config=config, repository=BASE)
    assert resolved(Hub(base, lora_facts())).adapter is not None
    with pytest.raises(errors.LineageMismatch):
        resolved(Hub(base, lora_facts(lora(inner=16))))


def test_single_experts_and_convolutions_are_not_served() -> None:
    with pytest.raises(errors.NotSupported, match="experts"):
        resolved(shaped(lora("model.layers.0.mlp.experts.3.up_proj")))


def test_a_copy_of_the_bases_embedding_is_not_written_over_the_bases_own() -> None:
    copied = tensor("base_model.model.model.embed_tokens.base_layer.weight", (16, 8))
    with pytest.raises(errors.NotSupported, match="a copy of a layer"):
        resolved(shaped([*lora(), copied]))


def test_contradictions_name_both_fields() -> None:
    hub = Hub(base_facts(), base_facts(OTHER), lora_facts())
    with pytest.raises(errors.Contradiction, match="is no adapter"):
        resolved(hub, model=BASE, adapter_base="vendor")
    with pytest.raises(errors.Contradiction, match="both name adapters"):
        resolved(hub, model=LORA, adapter=LORA, adapter_base=LORA)
    with pytest.raises(errors.Contradiction, match="adapter_base"):
        resolved(hub, model=BASE, adapter=LORA, adapter_base=OTHER)
    with pytest.raises(errors.Contradiction, match="revision"):
        resolved(hub, model=f"{BASE}@main", adapter=LORA, adapter_base=f"{BASE}@v1")


@pytest.mark.parametrize("fields", [{"adapter": "no name"}, {"adapter_base": "/data"}])
def test_a_name_that_is_none_is_a_bad_request(fields: dict[str, Any]) -> None:
    with pytest.raises(errors.BadRequest):
        LoadRequest(model=BASE, **fields)


def test_two_spellings_of_an_adapter_are_one_request() -> None:
    plain = LoadRequest(model=BASE, adapter=LORA)
    assert plain.digest() == LoadRequest(model=BASE, adapter=f"hf://{LORA}").digest()
    assert plain.digest() != LoadRequest(model=BASE, adapter=f"{LORA}@v1").digest()


def test_unsloths_mode_takes_no_adapters_yet() -> None:
    with pytest.raises(errors.NotSupported, match="compat:unsloth"):
        resolved(Hub(base_facts(), lora_facts()), mode="compat:unsloth")


def test_the_callers_limits_are_those_of_both_together() -> None:
    hub = Hub(base_facts(), lora_facts())
    plain = resolved(hub, model=BASE)
    with pytest.raises(errors.WontFit):
        resolved(hub, max_memory_bytes=plain.memory.total_bytes)
    with pytest.raises(errors.WontFit):
        resolved(hub, max_download_bytes=plain.size_bytes)


def test_the_adapters_own_tokenizer_is_not_used_and_that_is_said() -> None:
    other = lora_facts(files=("adapter_config.json", WEIGHTS, "chat_template.jinja"))
    assert "chat_template.jinja" in resolved(Hub(base_facts(), other)).warnings[-1]
    same = lora_facts(files=("adapter_config.json", WEIGHTS, "tokenizer.json"))
    assert not any("tokenizer" in one for one in resolved(Hub(base_facts(), same)).warnings)


def test_a_signed_statement_names_the_adapter_beside_the_model() -> None:
    found = resolved(Hub(base_facts(), lora_facts()))
    url = f"pkg:huggingface/{BASE}@{COMMIT}?adapter=me%2Flora%40{COMMIT}"
    assert model_url(name_receipt(found)) == url
    plain = resolved(Hub(base_facts()), model=BASE)
    assert model_url(name_receipt(plain)) == f"pkg:huggingface/{BASE}@{COMMIT}"


def test_a_receipt_of_one_pair_is_retitled_for_another_spelling_with_its_adapter() -> None:
    found = resolved(Hub(base_facts(), lora_facts()))
    again = retitle(name_receipt(resolved(Hub(base_facts()), model=BASE)), found)
    assert again.served.adapter is not None
    assert (again.served.adapter.repository, again.identical) == (LORA, False)
    assert f"with {LORA} at {COMMIT} attached" in again.checks["E1"].detail


@pytest.mark.parametrize("fields", [{}, {"model": BASE, "adapter": LORA}])
def test_a_lock_holds_both_commits(fields: dict[str, Any]) -> None:
    hub = Hub(base_facts(), lora_facts())
    first = resolved(hub, **fields)
    locked = first.lock()
    hub.commits["main"] = OLD
    again = resolved(hub, **fields, lock="require", locked=locked)
    assert again.lock() == locked
    changed = locked.model_copy(update={"adapter": None})
    with pytest.raises(errors.LockMismatch, match="adapter repository"):
        resolved(hub, model=BASE, adapter=LORA, lock="require", locked=changed)
