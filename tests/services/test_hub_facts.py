"""Facts asked of a real Hub over HTTP."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub import faults
from tests.hub.control import Hub, Served, running_hub
from warmrack_store import errors
from warmrack_store.facts import RefFact, RepositoryFacts
from warmrack_store.hub import HubFacts
from warmrack_store.refs import ModelRef, parse_model

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
TOKEN = "hf_reader"


def safetensors(names: list[str], padding_bytes: int = 0, *, elements: int = 1) -> bytes:
    """A file of tensors of so many elements; padding makes its header longer."""
    size_bytes = 4 * elements
    header = {
        name: {
            "dtype": "F32",
            "shape": [elements],
            "data_offsets": [size_bytes * n, size_bytes * (n + 1)],
        }
        for n, name in enumerate(names)
    }
    described = json.dumps({"__metadata__": {"padding": "x" * padding_bytes}, **header}).encode()
    return struct.pack("<Q", len(described)) + described + bytes(size_bytes * len(names))


def make_packed(folder: Path) -> Path:
    """Two GGUF files, the smaller with more metadata than is read at first."""
    padding = ("tokenizer.padding", struct.pack("<IIQ", 9, 0, 3_000_000) + bytes(3_000_000))
    (folder / "m-Q8_0.gguf").write_bytes(gguf() + bytes(4_000_000))
    (folder / "m-Q4_0.gguf").write_bytes(gguf(padding) + bytes(100))
    return folder


def gguf(*more: tuple[str, bytes]) -> bytes:
    """A header that names its kind and one tensor of 8 x 4."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    pairs = [("general.architecture", struct.pack("<I", 8) + text("llama")), *more]
    described = b"".join(text(key) + value for key, value in pairs)
    named = text("output.weight") + struct.pack("<IQQIQ", 2, 4, 8, 2, 0)
    return b"GGUF" + struct.pack("<IQQ", 3, 1, len(pairs)) + described + named


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model-00001-of-00002.safetensors").write_bytes(safetensors(["a", "b"]))
    (folder / "model-00002-of-00002.safetensors").write_bytes(safetensors(["c"], 200_000))
    (folder / "part").mkdir()
    (folder / "part" / "model.safetensors").write_bytes(safetensors(["d"]))
    served: dict[str, Served | Path] = {
        "org/public": Served(folder=folder),
        "org/private": Served(folder=folder, private=True, tokens=(TOKEN,)),
        "org/gated": Served(folder=folder, gated=True, tokens=(TOKEN,)),
        "org/disabled": Served(folder=folder, disabled=True),
        "org/old": Served(folder=folder),
        "ORG/Spelled": Served(folder=folder),
        "org/packed": make_packed(tmp_path_factory.mktemp("packed")),
    }
    with running_hub(served) as hub:
        hub.grant("hf_stranger")
        hub.move_repository("org/old", "org/new")
        # The Hub redirects another case as it redirects an old name.
        hub.move_repository("ORG/Spelled", "org/spelled")
        yield hub


@pytest.fixture
def hub(running: Hub) -> Iterator[Hub]:
    running.reset_counts()
    yield running
    running.clear_faults()
    running.configure(page_entries=1000)


@pytest.fixture
def facts(hub: Hub) -> Iterator[HubFacts]:
    asking = HubFacts(hub.url, timeout_seconds=5)
    yield asking
    asking.close()


def ref_of(facts: HubFacts, model: str, token: str | None = None) -> RefFact:
    return facts.find_ref(parse_model(model), token)


def facts_of(facts: HubFacts, model: str, token: str | None = None) -> RepositoryFacts:
    return facts.get_facts(ref_of(facts, model, token), token)


def test_a_public_name_is_pinned_by_one_request(hub: Hub, facts: HubFacts) -> None:
    found = ref_of(facts, "org/public")
    assert found == RefFact(
        repository="org/public", commit=hub.get_commit("org/public").sha, private=False, gated=False
    )
    assert hub.read_counts().requests() == 1


def test_facts_are_the_tree_the_config_and_the_headers_of_the_root(
    hub: Hub, facts: HubFacts
) -> None:
    found = facts_of(facts, "org/public")
    commit = hub.get_commit("org/public")
    assert {file.path: file.digest for file in found.files} == commit.etags
    assert {file.path: file.size for file in found.files} == commit.sizes_bytes
    assert found.config == CONFIG
    assert [(held.path, [t.name for t in held.tensors]) for held in found.weights] == [
        ("model-00001-of-00002.safetensors", ["a", "b"]),
        ("model-00002-of-00002.safetensors", ["c"]),
    ]


def test_a_tree_of_many_pages_is_read_whole(hub: Hub, facts: HubFacts) -> None:
    whole = facts_of(facts, "org/public").files
    hub.configure(page_entries=1)
    hub.reset_counts()
    assert facts_of(facts, "org/public").files == whole
    assert hub.read_counts().requests(path="/tree/") > len(whole)


def test_a_branch_a_tag_a_pull_request_and_a_commit_are_pinned(hub: Hub, facts: HubFacts) -> None:
    first = hub.get_commit("org/public").sha
    other = hub.add_commit("org/public", files={"new.txt": b"new"}, branch="refs/pr/1")
    hub.set_branch("org/public", "feature/x", other)
    hub.set_tag("org/public", "v1", other)
    for revision in ("refs/pr/1", "feature/x", "v1", other):
        ref = ModelRef(repository="org/public", revision=revision)
        assert facts.find_ref(ref, None).commit == other
    assert ref_of(facts, "org/public").commit == first
    with pytest.raises(errors.RevisionNotFound, match="'v2'"):
        ref_of(facts, "org/public@v2")


@pytest.mark.parametrize(
    ("asked", "canonical"), [("org/old", "org/new"), ("ORG/Spelled", "org/spelled")]
)
def test_a_renamed_or_respelled_repository_answers_under_the_hubs_name(
    facts: HubFacts, asked: str, canonical: str
) -> None:
    assert ref_of(facts, asked).repository == canonical
    assert facts_of(facts, asked).repository == canonical


def test_a_private_repository_exists_only_for_its_readers(facts: HubFacts) -> None:
    found = facts_of(facts, "org/private", TOKEN)
    assert (found.private, found.public) == (True, False)
    for token in (None, "hf_stranger"):
        with pytest.raises(errors.RepoNotFound):
            ref_of(facts, "org/private", token)


def test_a_gated_repository_is_refused_before_any_fact_is_read(hub: Hub, facts: HubFacts) -> None:
    assert facts_of(facts, "org/gated", TOKEN).gated
    hub.reset_counts()
    for token in (None, "hf_stranger"):
        with pytest.raises(errors.Gated) as caught:
            ref_of(facts, "org/gated", token)
        assert f"{hub.url}/org/gated" in caught.value.hint
    assert hub.read_counts().requests(path="/tree/") == 0


def test_a_right_can_be_checked_alone_and_is_lost_with_the_grant(hub: Hub, facts: HubFacts) -> None:
    hub.grant("hf_leaving", "org/private")
    facts.check_right("org/private", "hf_leaving")
    hub.revoke("hf_leaving", "org/private")
    with pytest.raises(errors.RepoNotFound):
        facts.check_right("org/private", "hf_leaving")


def test_missing_disabled_and_badly_signed_in_are_told_apart(facts: HubFacts) -> None:
    with pytest.raises(errors.RepoNotFound, match="org/absent"):
        ref_of(facts, "org/absent")
    with pytest.raises(errors.RepoNotFound, match="disabled"):
        ref_of(facts, "org/disabled")
    with pytest.raises(errors.Unauthorized):
        ref_of(facts, "org/public", "hf_unknown")


def test_the_environment_changes_neither_the_token_nor_the_answer(
    hub: Hub, facts: HubFacts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    for name, value in (
        ("HF_TOKEN", TOKEN),
        ("HF_TOKEN_PATH", str(tmp_path / "token")),
        ("HF_HUB_OFFLINE", "1"),
        ("HF_ENDPOINT", "http://127.0.0.1:9"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    facts_of(facts, "org/public")
    with pytest.raises(errors.RepoNotFound):
        ref_of(facts, "org/private")
    assert not any(request.has_token for request in hub.list_requests())


def test_a_token_is_never_sent_to_the_cdn(hub: Hub, facts: HubFacts) -> None:
    facts_of(facts, "org/private", TOKEN)
    seen = hub.list_requests(origin="cdn")
    assert seen
    assert not any(request.has_token for request in seen)


def test_a_redirect_to_an_unknown_host_is_not_followed(hub: Hub, facts: HubFacts) -> None:
    elsewhere = {"Location": hub.cdn_url.replace("127.0.0.1", "localhost")}
    hub.add_fault(faults.Headers(replaced=elsewhere), path="resolve/.*safetensors")
    with pytest.raises(errors.HubUnavailable, match="localhost, which is not allowed"):
        facts_of(facts, "org/public")
    assert hub.list_requests(origin="cdn") == []


def test_an_expired_signature_passes(hub: Hub, facts: HubFacts) -> None:
    hub.configure(signature_ttl_seconds=-1)
    try:
        with pytest.raises(errors.HubUnavailable, match="403"):
            facts_of(facts, "org/public")
    finally:
        hub.configure(signature_ttl_seconds=3600)


def test_a_limit_and_an_outage_pass_and_say_how_long(hub: Hub, facts: HubFacts) -> None:
    hub.add_fault(faults.too_many_requests(retry_after_seconds=7), times=1)
    with pytest.raises(errors.RateLimited) as limited:
        ref_of(facts, "org/public")
    assert limited.value.retry_after_seconds == 7
    hub.add_fault(faults.Status(status=503), times=1)
    with pytest.raises(errors.HubUnavailable, match="503"):
        ref_of(facts, "org/public")
    hub.add_fault(faults.Status(status=502), path="/tree/", times=1)
    with pytest.raises(errors.HubUnavailable, match="502"):
        facts_of(facts, "org/public")
    assert ref_of(facts, "org/public").repository == "org/public"


@pytest.mark.parametrize("path", ["/api/models/", "/tree/", r"config\.json", r"\.safetensors"])
@pytest.mark.parametrize("after_bytes", [None, 2])
def test_a_connection_that_breaks_is_an_outage(
    hub: Hub, facts: HubFacts, path: str, after_bytes: int | None
) -> None:
    hub.add_fault(faults.Reset(after_bytes=after_bytes), path=path)
    with pytest.raises(errors.HubUnavailable):
        facts_of(facts, "org/public")


@pytest.mark.parametrize(
    "path", ["/public/revision|/public$", "/tree/", r"config\.json", r"\.safetensors"]
)
def test_a_stalled_answer_ends_at_the_timeout(hub: Hub, path: str) -> None:
    hub.add_fault(faults.Stall(after_bytes=1), path=path)
    facts = HubFacts(hub.url, timeout_seconds=0.3)
    with pytest.raises(errors.HubUnavailable):
        facts_of(facts, "org/public")
    facts.close()


def test_an_answer_that_drips_ends_at_the_timeout(hub: Hub) -> None:
    hub.add_fault(faults.Drip(chunk_bytes=1, pause_seconds=0.05), path="/tree/")
    facts = HubFacts(hub.url, timeout_seconds=0.3)
    with pytest.raises(errors.HubUnavailable, match=r"0\.3 s"):
        facts_of(facts, "org/public")
    facts.close()


def test_nothing_listening_is_an_outage() -> None:
    facts = HubFacts("http://127.0.0.1:9", timeout_seconds=1)
    with pytest.raises(errors.HubUnavailable, match="does not answer"):
        ref_of(facts, "org/public")
    facts.close()


@pytest.mark.parametrize(
    ("path", "pattern", "replacement"),
    [
        ("/public$", r'"sha":"[0-9a-f]{40}"', '"sha":"../../../x"'),
        ("/public$", r'"id":"org/public"', '"id":"../public"'),
        ("/tree/", r'"path":"config.json"', '"path":"../config.json"'),
        ("/tree/", r'"oid":"[0-9a-f]{64}"', '"oid":"../../x"'),
        ("/tree/", r'"size":\d+', '"size":-1'),
    ],
)
def test_a_hostile_answer_is_refused(
    hub: Hub, facts: HubFacts, path: str, pattern: str, replacement: str
) -> None:
    hub.add_fault(faults.Rewrite(pattern=pattern, replacement=replacement), path=path)
    with pytest.raises(errors.HubUnavailable, match="nonsense"):
        facts_of(facts, "org/public")


def test_a_hostile_etag_is_never_looked_at(hub: Hub, facts: HubFacts) -> None:
    whole = facts_of(facts, "org/public")
    hub.add_fault(faults.Headers(replaced={"ETag": "../../x", "X-Linked-ETag": "../../y"}))
    assert facts_of(facts, "org/public") == whole


def test_the_next_page_is_never_fetched_from_another_host(hub: Hub, facts: HubFacts) -> None:
    link = '<https://elsewhere.example/tree>; rel="next"'
    hub.add_fault(faults.Headers(replaced={"Link": link}), path="/tree/")
    with pytest.raises(errors.HubUnavailable, match=r"elsewhere\.example"):
        facts_of(facts, "org/public")


def test_a_tree_that_leads_back_to_itself_ends(hub: Hub, facts: HubFacts) -> None:
    sha = hub.get_commit("org/public").sha
    link = f'<{hub.url}/api/models/org/public/tree/{sha}?recursive=true>; rel="next"'
    hub.add_fault(faults.Headers(replaced={"Link": link}), path="/tree/")
    with pytest.raises(errors.HubUnavailable, match="without an end"):
        facts_of(facts, "org/public")


def test_a_config_with_other_bytes_than_the_tree_names_is_refused(
    hub: Hub, facts: HubFacts
) -> None:
    hub.add_fault(faults.CorruptByte(offset_bytes=3), path=r"config\.json")
    with pytest.raises(errors.HubUnavailable, match=r"other bytes of config\.json"):
        facts_of(facts, "org/public")


def test_a_server_that_ignores_ranges_costs_no_whole_file(
    hub: Hub, facts: HubFacts, tmp_path: Path
) -> None:
    size_bytes = 32 * 2**20
    (tmp_path / "model.safetensors").write_bytes(safetensors(["a"], 0, elements=size_bytes // 4))
    hub.add_repository("org/unranged", tmp_path)
    whole = facts_of(facts, "org/unranged")
    hub.add_fault(faults.IgnoreRange(), path="safetensors")
    hub.reset_counts()
    assert facts_of(facts, "org/unranged") == whole
    assert hub.read_counts().file_bytes() < size_bytes / 2


def test_a_broken_config_is_a_fact_and_a_broken_header_an_error(
    hub: Hub, facts: HubFacts, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("[1]")
    hub.add_repository("org/broken", tmp_path)
    found = facts_of(facts, "org/broken")
    assert found.config is None
    assert found.config_error == "is a JSON list, not an object"
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    hub.add_repository("org/broken", tmp_path)
    with pytest.raises(errors.UnsafeFormat, match=r"org/broken: model\.safetensors"):
        facts_of(facts, "org/broken")


def test_the_header_of_the_smallest_gguf_file_is_read_in_steps_and_nothing_behind_it(
    facts: HubFacts,
) -> None:
    found = facts_of(facts, "org/packed")
    assert found.gguf is not None
    assert found.gguf.path == "m-Q4_0.gguf"
    assert found.gguf.metadata == {"general.architecture": "llama", "tokenizer.padding": 3_000_000}
    assert [(one.name, one.shape) for one in found.gguf.tensors] == [("output.weight", (8, 4))]
    assert found.weights == ()


def test_a_gguf_file_that_is_none_is_a_fact_and_no_error(hub: Hub, facts: HubFacts) -> None:
    hub.add_commit("org/packed", files={"m-Q2_K.gguf": b"GGUX" + bytes(60)})
    found = facts_of(facts, "org/packed")
    assert found.gguf is None
    assert found.gguf_error is not None
    assert "m-Q2_K.gguf is not a GGUF file" in found.gguf_error
