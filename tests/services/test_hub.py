"""The test Hub: the stock client works against it, faults do what they say, counts are exact."""

import hashlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils._http import parse_ratelimit_headers

from tests.hub.control import CHECKOUT, Hub, HubCallError, Served, running_hub
from tests.hub.faults import (
    Close,
    CorruptByte,
    Drip,
    Fault,
    Headers,
    IgnoreRange,
    Latency,
    Origin,
    OtherContent,
    Rate,
    RateScope,
    Reset,
    Rewrite,
    Stall,
    Status,
    too_many_requests,
)
from tests.hub.models import build_into, get_model_folder

NAME = "org/model"
WEIGHTS = "model.safetensors"
CARD = """---
base_model: org/base
base_model_relation: quantized
tags:
- text-generation
---
# A model
"""


def make_weights(parameters: int) -> bytes:
    header = json.dumps(
        {"w": {"dtype": "U8", "shape": [parameters], "data_offsets": [0, parameters]}}
    ).encode()
    body = hashlib.shake_256(b"weights").digest(parameters)
    return struct.pack("<Q", len(header)) + header + body


@pytest.fixture(scope="module")
def served_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "README.md").write_text(CARD)
    (folder / WEIGHTS).write_bytes(make_weights(300_000))
    (folder / "nested" / "deep").mkdir(parents=True)
    (folder / "nested" / "deep" / "notes.txt").write_text("notes")
    return folder


@pytest.fixture(scope="module")
def shared_hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def hub(shared_hub: Hub, served_folder: Path) -> Hub:
    """A Hub with one public repository and nothing else said or counted."""
    shared_hub.clear_faults()
    shared_hub.configure(page_entries=1000, signature_ttl_seconds=3600)
    shared_hub.add_repository(NAME, served_folder)
    shared_hub.reset_counts()
    return shared_hub


@pytest.fixture
def api(hub: Hub) -> HfApi:
    return HfApi(endpoint=hub.url, token=False)


def resolve_url(hub: Hub, path: str = WEIGHTS, name: str = NAME, revision: str = "main") -> str:
    return f"{hub.url}/{name}/resolve/{revision}/{path}"


def get(url: str, **headers: str) -> httpx.Response:
    return httpx.get(url, headers=headers, follow_redirects=True, timeout=20)


def signed_url(hub: Hub, path: str = WEIGHTS) -> str:
    return httpx.get(resolve_url(hub, path)).headers["Location"]


def test_stock_client_reads_what_a_repository_is(hub: Hub, api: HfApi) -> None:
    info = api.model_info(NAME, files_metadata=True)
    assert info.sha == hub.get_commit(NAME).sha
    assert info.safetensors is not None
    assert info.safetensors.parameters == {"U8": 300_000}
    weights = next(held for held in info.siblings or [] if held.rfilename == WEIGHTS)
    assert weights.lfs is not None
    assert weights.lfs.sha256 == hub.get_commit(NAME).etags[WEIGHTS]
    assert [branch.name for branch in api.list_repo_refs(NAME).branches] == ["main"]
    assert api.get_paths_info(NAME, [WEIGHTS, "absent"])[0].path == WEIGHTS
    assert api.get_safetensors_metadata(NAME).parameter_count == {"U8": 300_000}


def test_tree_comes_in_pages_that_the_stock_client_joins(hub: Hub, api: HfApi) -> None:
    hub.configure(page_entries=2)
    paths = [entry.path for entry in api.list_repo_tree(NAME, recursive=True)]
    assert paths == [
        *("README.md", "config.json", WEIGHTS),
        *("nested", "nested/deep", "nested/deep/notes.txt"),
    ]
    assert hub.read_counts().requests(path="/tree/") == 3
    assert [entry.path for entry in api.list_repo_tree(NAME, "nested")] == ["nested/deep"]


def test_snapshot_brings_every_byte_once_and_is_counted_exactly(
    hub: Hub, served_folder: Path, tmp_path: Path
) -> None:
    folder = Path(snapshot_download(NAME, endpoint=hub.url, cache_dir=tmp_path, token=False))
    sizes = hub.get_commit(NAME).sizes_bytes
    for path in sizes:
        assert (folder / path).read_bytes() == (served_folder / path).read_bytes()
    counts = hub.read_counts()
    assert counts.file_bytes() == sum(sizes.values())
    assert counts.file_bytes(origin=Origin.CDN) == sizes[WEIGHTS]
    assert counts.file_bytes(repository=NAME, file="config.json") == sizes["config.json"]
    assert counts.requests(method="GET", path=WEIGHTS) == 1
    assert counts.requests(method="HEAD") == len(sizes)


def test_whole_snapshot_is_not_asked_for_again(hub: Hub, tmp_path: Path) -> None:
    sha = hub.get_commit(NAME).sha
    for _ in range(2):
        hub.reset_counts()
        snapshot_download(NAME, revision=sha, endpoint=hub.url, cache_dir=tmp_path, token=False)
    assert hub.read_counts().requests() == 0


def test_token_reaches_the_hub_and_never_the_cdn(
    hub: Hub, served_folder: Path, tmp_path: Path
) -> None:
    hub.add_repository(
        "org/private", Served(folder=served_folder, private=True, tokens=("hf_one",))
    )
    path = hf_hub_download(
        "org/private", WEIGHTS, endpoint=hub.url, cache_dir=tmp_path, token="hf_one"
    )
    assert Path(path).read_bytes() == (served_folder / WEIGHTS).read_bytes()
    assert all(seen.has_token for seen in hub.list_requests(origin=Origin.HUB))
    assert [seen.has_token for seen in hub.list_requests(origin=Origin.CDN)] == [False]


@pytest.mark.parametrize(
    ("flags", "token", "error"),
    [
        ("public", False, None),
        ("private", "hf_reader", None),
        ("private", "hf_other", RepositoryNotFoundError),
        ("private", False, RepositoryNotFoundError),
        ("gated", "hf_reader", None),
        ("gated", "hf_other", GatedRepoError),
        ("gated", False, GatedRepoError),
        ("disabled", "hf_reader", DisabledRepoError),
        ("absent", "hf_reader", RepositoryNotFoundError),
    ],
)
def test_auth_check_decides_by_repository_and_token(
    hub: Hub, served_folder: Path, flags: str, token: str | bool, error: type[Exception] | None
) -> None:
    name = f"rights/{flags}"
    hub.grant("hf_other")
    if flags != "absent":
        served = Served(
            folder=served_folder,
            private=flags == "private",
            gated=flags == "gated",
            disabled=flags == "disabled",
            tokens=("hf_reader",),
        )
        hub.add_repository(name, served)
    api = HfApi(endpoint=hub.url, token=token)
    if error is None:
        api.auth_check(name)
    else:
        with pytest.raises(error) as caught:
            api.auth_check(name)
        if error is RepositoryNotFoundError:
            response = caught.value.response  # type: ignore[attr-defined]
            assert response.status_code == (404 if token else 401)


def test_gate_stands_before_files_and_not_before_metadata(hub: Hub, api: HfApi) -> None:
    hub.change_repository(NAME, gated=True)
    assert api.model_info(NAME).gated == "manual"
    assert list(api.list_repo_tree(NAME))
    assert get(resolve_url(hub, "config.json")).headers["X-Error-Code"] == "GatedRepo"
    hub.change_repository(NAME, gated=False)
    assert get(resolve_url(hub, "config.json")).status_code == 200


def test_revoked_right_and_revoked_token_are_refused_at_once(hub: Hub, served_folder: Path) -> None:
    hub.add_repository("org/closed", Served(folder=served_folder, private=True, tokens=("hf_r",)))
    reader = HfApi(endpoint=hub.url, token="hf_r")
    reader.auth_check("org/closed")
    hub.revoke("hf_r", "org/closed")
    with pytest.raises(RepositoryNotFoundError):
        reader.auth_check("org/closed")
    hub.revoke("hf_r")
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        reader.whoami()


def test_whoami_names_the_user_of_a_token(hub: Hub) -> None:
    hub.grant("hf_ann", user="ann")
    assert HfApi(endpoint=hub.url, token="hf_ann").whoami()["name"] == "ann"


def test_unknown_revision_and_file_have_their_own_errors(hub: Hub, api: HfApi) -> None:
    with pytest.raises(RevisionNotFoundError):
        api.model_info(NAME, revision="absent")
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download(NAME, "absent.json")
    assert not api.file_exists(NAME, "absent.json")


def test_moved_repository_redirects_with_its_rights(hub: Hub, served_folder: Path) -> None:
    hub.add_repository("org/old", Served(folder=served_folder, private=True, tokens=("hf_m",)))
    hub.move_repository("org/old", "org/new")
    moved = HfApi(endpoint=hub.url, token="hf_m")
    assert moved.model_info("org/old").id == "org/new"
    assert moved.file_exists("org/old", WEIGHTS)
    assert get(resolve_url(hub, WEIGHTS, "org/old")).status_code == 401


def test_removed_repository_is_gone_from_both_origins(hub: Hub, served_folder: Path) -> None:
    hub.add_repository("org/gone", served_folder)
    url = httpx.get(resolve_url(hub, WEIGHTS, "org/gone")).headers["Location"]
    hub.remove_repository("org/gone")
    assert get(url).status_code == 404
    assert get(resolve_url(hub, WEIGHTS, "org/gone")).status_code == 401


def test_models_are_listed_by_the_base_they_were_quantized_from(hub: Hub, api: HfApi) -> None:
    found = [model.id for model in api.list_models(filter="base_model:quantized:org/base")]
    assert NAME in found
    assert not list(api.list_models(filter="base_model:finetune:org/base"))


def test_commit_stays_as_it_was_when_the_branch_moves_on(hub: Hub, api: HfApi) -> None:
    first = hub.get_commit(NAME).sha
    hub.set_tag(NAME, "v1", first)
    second = hub.add_commit(NAME, files={"config.json": b"{}"}, removed=["README.md"])
    assert api.model_info(NAME).sha == second
    assert get(resolve_url(hub, "config.json")).content == b"{}"
    assert get(resolve_url(hub, "README.md")).status_code == 404
    assert get(resolve_url(hub, "README.md", revision="v1")).text == CARD
    assert [commit.commit_id for commit in api.list_repo_commits(NAME)] == [second, first]
    hub.set_branch(NAME, "main", first)
    assert api.model_info(NAME).sha == first


def test_edited_folder_does_not_change_a_commit(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("before")
    hub.add_repository("org/edited", tmp_path)
    (tmp_path / "config.json").write_text("after")
    assert get(resolve_url(hub, "config.json", "org/edited")).text == "before"
    assert get(resolve_url(hub, "config.json", "org/edited", "main")).headers["ETag"] == (
        '"' + hashlib.sha1(b"blob 6\x00before").hexdigest() + '"'
    )


def test_large_files_resolve_to_a_signed_address_on_the_cdn(hub: Hub) -> None:
    head = httpx.head(resolve_url(hub))
    commit = hub.get_commit(NAME)
    assert head.status_code == 302
    assert head.headers["X-Repo-Commit"] == commit.sha
    assert head.headers["X-Linked-ETag"] == f'"{commit.etags[WEIGHTS]}"'
    assert int(head.headers["X-Linked-Size"]) == commit.sizes_bytes[WEIGHTS]
    assert head.headers["Location"].startswith(hub.cdn_url)


def test_cdn_refuses_tokens_and_bad_or_old_signatures(hub: Hub) -> None:
    url = signed_url(hub)
    assert get(url, Authorization="Bearer hf_x").status_code == 400
    assert get(url[:-1] + ("0" if url[-1] != "0" else "1")).status_code == 403
    hub.configure(signature_ttl_seconds=-1)
    assert get(signed_url(hub)).status_code == 403
    assert get(url).status_code == 200


@pytest.mark.parametrize("path", ["config.json", WEIGHTS])
@pytest.mark.parametrize(
    ("wanted", "status", "part"),
    [
        ("bytes=0-3", 206, slice(0, 4)),
        ("bytes=5-", 206, slice(5, None)),
        ("bytes=-7", 206, slice(-7, None)),
        ("bytes=5-999999999", 206, slice(5, None)),
        ("bytes=999999999-", 416, slice(0, 0)),
        ("bytes=0-1,3-4", 200, slice(None)),
    ],
)
def test_ranges_are_served_as_asked(
    hub: Hub, served_folder: Path, path: str, wanted: str, status: int, part: slice
) -> None:
    answer = get(resolve_url(hub, path), Range=wanted)
    assert answer.status_code == status
    if status != 416:
        assert answer.content == (served_folder / path).read_bytes()[part]


def test_fault_meets_only_the_requests_its_rule_names(hub: Hub) -> None:
    number = hub.add_fault(Status(status=503), path="config", method="GET", skip=1, times=2)
    url = resolve_url(hub, "config.json")
    assert [get(url).status_code for _ in range(4)] == [200, 503, 503, 200]
    assert httpx.head(url).status_code == 200
    assert get(resolve_url(hub, "README.md")).status_code == 200
    assert hub.count_fired(number) == 2
    hub.add_fault(Status(status=500), origin=Origin.CDN)
    assert get(url).status_code == 200
    assert get(resolve_url(hub)).status_code == 500


def test_ordered_429_reads_as_a_rate_limit(hub: Hub) -> None:
    hub.add_fault(too_many_requests(retry_after_seconds=7))
    answer = get(resolve_url(hub))
    told = parse_ratelimit_headers(answer.headers)
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "7"
    assert told is not None
    assert (told.remaining, told.reset_in_seconds, told.limit) == (0, 7, 1000)


def seconds_of(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def test_latency_delays_the_answer(hub: Hub) -> None:
    hub.add_fault(Latency(seconds=0.2))
    assert seconds_of(lambda: get(resolve_url(hub, "config.json"))) >= 0.2


@pytest.mark.parametrize("fault", [Reset(), Reset(after_bytes=100_000)])
def test_reset_is_a_connection_reset(hub: Hub, fault: Fault) -> None:
    hub.add_fault(fault, origin=Origin.CDN)
    with pytest.raises(httpx.ReadError, match="reset"):
        get(signed_url(hub))


def test_close_ends_the_body_after_the_bytes_ordered(hub: Hub) -> None:
    hub.add_fault(Close(after_bytes=100_000), origin=Origin.CDN)
    received: list[bytes] = []
    with httpx.stream("GET", signed_url(hub)) as answer, pytest.raises(httpx.RemoteProtocolError):
        received.extend(answer.iter_raw())
    assert len(b"".join(received)) == 100_000
    assert hub.read_counts().file_bytes() == 100_000


def test_stall_holds_a_body_until_the_test_lets_it_go(hub: Hub, served_folder: Path) -> None:
    number = hub.add_fault(Stall(after_bytes=100_000), origin=Origin.CDN)
    with ThreadPoolExecutor(1) as pool:
        download = pool.submit(get, resolve_url(hub))
        hub.wait_for(sent_bytes=100_000, origin=Origin.CDN)
        assert hub.read_counts().file_bytes() == 100_000
        assert not download.done()
        hub.clear_faults(number)
        assert download.result(10).content == (served_folder / WEIGHTS).read_bytes()


def test_stall_before_the_answer_is_a_gate(hub: Hub) -> None:
    hub.add_fault(Stall(), path="config")
    with ThreadPoolExecutor(2) as pool:
        held = [pool.submit(get, resolve_url(hub, "config.json")) for _ in range(2)]
        hub.wait_for(requests=2, path="config")
        assert not any(waiting.done() for waiting in held)
        hub.clear_faults()
        assert [waiting.result(10).status_code for waiting in held] == [200, 200]


def test_waiting_for_what_does_not_come_ends_in_time(hub: Hub) -> None:
    with pytest.raises(TimeoutError):
        hub.wait_for(requests=1, timeout_seconds=0.05)


def test_corrupt_byte_is_the_only_one_that_differs(hub: Hub, served_folder: Path) -> None:
    hub.add_fault(CorruptByte(offset_bytes=200_000), origin=Origin.CDN)
    right = (served_folder / WEIGHTS).read_bytes()
    got = get(resolve_url(hub)).content
    differing = [place for place in range(len(right)) if right[place] != got[place]]
    assert differing == [200_000]
    assert get(resolve_url(hub), Range="bytes=0-199999").content == right[:200_000]
    assert get(resolve_url(hub), Range="bytes=200000-200009").content != right[200_000:200_010]


def test_other_content_has_the_size_and_headers_of_the_right_one(
    hub: Hub, served_folder: Path, tmp_path: Path
) -> None:
    right = (served_folder / WEIGHTS).read_bytes()
    number = hub.add_fault(OtherContent())
    got = get(resolve_url(hub)).content
    assert len(got) == len(right)
    assert got != right
    hub.clear_faults(number)
    (tmp_path / "other").write_bytes(right[::-1])
    hub.add_fault(OtherContent(file=str(tmp_path / "other")))
    assert get(resolve_url(hub)).content == right[::-1]


def test_drip_sends_small_pieces_with_pauses(hub: Hub) -> None:
    hub.add_fault(Drip(chunk_bytes=60_000, pause_seconds=0.05), origin=Origin.CDN)
    assert seconds_of(lambda: get(resolve_url(hub))) >= 0.3


@pytest.mark.parametrize(
    ("scope", "least_seconds", "most_seconds"),
    [(RateScope.CONNECTION, 0.3, 1.1), (RateScope.ALL, 1.2, 4.0)],
)
def test_rate_bounds_one_connection_or_all_together(
    hub: Hub, scope: RateScope, least_seconds: float, most_seconds: float
) -> None:
    hub.add_fault(Rate(bytes_per_second=1_000_000, scope=scope), origin=Origin.CDN)
    urls = [signed_url(hub) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        elapsed = seconds_of(lambda: list(pool.map(get, urls)))
    assert least_seconds <= elapsed < most_seconds


def test_ignored_range_sends_the_whole_file(hub: Hub, served_folder: Path) -> None:
    hub.add_fault(IgnoreRange(), origin=Origin.CDN)
    answer = get(resolve_url(hub), Range="bytes=0-9")
    assert answer.status_code == 200
    assert answer.content == (served_folder / WEIGHTS).read_bytes()


def test_headers_can_be_hostile_or_missing(hub: Hub) -> None:
    fault = Headers(replaced={"etag": '"../../x"'}, removed=("X-Repo-Commit", "Content-Length"))
    hub.add_fault(fault, path="config")
    answer = get(resolve_url(hub, "config.json"))
    assert answer.headers.get_list("ETag") == ['"../../x"']
    assert "X-Repo-Commit" not in answer.headers
    assert "Content-Length" not in answer.headers
    assert answer.json() == {"model_type": "llama"}


def test_metadata_can_be_rewritten_to_a_hostile_sha(hub: Hub, api: HfApi) -> None:
    hub.add_fault(Rewrite(pattern=r'"sha":"\w+"', replacement='"sha":"../../x"'))
    assert api.model_info(NAME).sha == "../../x"


def test_metadata_bytes_are_counted_apart_from_file_bytes(hub: Hub) -> None:
    answer = get(f"{hub.url}/api/models/{NAME}")
    head = httpx.head(resolve_url(hub, "config.json"))
    counts = hub.read_counts()
    assert head.status_code == 200
    assert counts.sent_bytes() == len(answer.content)
    assert counts.file_bytes() == 0
    assert counts.requests(repository=NAME) == 2
    hub.reset_counts()
    assert hub.read_counts().rows == ()


def test_wrong_call_says_what_is_wrong(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(HubCallError, match="no revision 'absent'"):
        hub.set_tag(NAME, "v2", "absent")
    with pytest.raises(HubCallError, match="holds no file"):
        hub.add_repository("org/empty", tmp_path)


def test_command_prints_a_ready_line_and_serves_until_it_is_told_to_stop(
    served_folder: Path,
) -> None:
    described = f"org/secret={served_folder},private,token=hf_cli"
    command = [sys.executable, "-m", "tests.hub", "--repo", described]
    command += ["--repo", f"org/fenced={served_folder}", "--gated", "org/fenced"]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["pid"] == process.pid
        HfApi(endpoint=ready["url"], token="hf_cli").auth_check("org/secret")
        with pytest.raises(GatedRepoError):
            HfApi(endpoint=ready["url"], token="hf_cli").auth_check("org/fenced")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_hub_stops_while_it_stalls_a_client(served_folder: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        with running_hub({NAME: served_folder}) as hub:
            hub.add_fault(Stall(after_bytes=10), origin=Origin.CDN)
            download = pool.submit(get, resolve_url(hub))
            hub.wait_for(sent_bytes=10, origin=Origin.CDN)
        with pytest.raises(httpx.TransportError):
            download.result(10)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(hub.url.rpartition(":")[2]))) != 0


def test_two_builds_of_one_model_at_once_leave_one_whole_folder(tmp_path: Path) -> None:
    both_built = threading.Barrier(2)

    def build(folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        both_built.wait(10)

    with ThreadPoolExecutor(2) as pool:
        builds = [pool.submit(build_into, build, tmp_path / "model") for _ in range(2)]
        for finished in builds:
            finished.result(10)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["config.json"]


LOAD_WITH_TRANSFORMERS = """
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("org/sharded")
model = AutoModelForCausalLM.from_pretrained("org/sharded")
text = "any text: \u00fc\u4e16"
assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
print(model.num_parameters(), model.dtype)
"""


@pytest.mark.slow
def test_transformers_loads_a_sharded_model_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    hub.add_repository("org/sharded", get_model_folder("tiny_llama_sharded"))
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", LOAD_WITH_TRANSFORMERS],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["197184", "torch.float32"]
    assert hub.read_counts().requests(origin=Origin.CDN, method="GET") == 3
