"""Stock tools pull from a node as from the Hub, and get what the Hub would let them have."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.acceptance.conftest import GATED, LLAMA, PRIVATE, TOKEN
from tests.acceptance.stack import Stack, running_stack
from tests.hub.control import Hub

pytestmark = pytest.mark.slow

_SNAPSHOT = """
import sys
from huggingface_hub import snapshot_download
print(snapshot_download(sys.argv[1], token=sys.argv[2] or False))
"""
_LOAD = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
AutoTokenizer.from_pretrained(sys.argv[1])
print(sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(sys.argv[1]).parameters()))
"""


def _prefetch(stack: Stack, model: str, token: str | None = None) -> None:
    with stack.client(hub_token=token) as client:
        client.wait(client.prefetch(model, nodes=["node-0"]).id, timeout_seconds=60)


def _mirror_url(stack: Stack, node: str = "node-0") -> str:
    with stack.client() as client:
        return str(next(one.mirror_url for one in client.nodes() if one.name == node))


def _run(command: list[str], endpoint: str, home: Path) -> "subprocess.CompletedProcess[str]":
    """A stock tool that knows nothing but the mirror."""
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.run(
        command, env={**kept, **own}, capture_output=True, text=True, timeout=90, check=False
    )


def _download(model: str, endpoint: str, home: Path, token: str = "") -> Path:
    done = _run([sys.executable, "-c", _SNAPSHOT, model, token], endpoint, home)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_stock_snapshot_download_gets_the_same_files_without_the_hub(
    pool: Stack, hub: Hub, tmp_path: Path
) -> None:
    _prefetch(pool, LLAMA)
    hub.reset_counts()
    from_mirror = _download(LLAMA, _mirror_url(pool), tmp_path / "a")
    assert hub.read_counts().file_bytes(repository=LLAMA) == 0
    from_hub = _download(LLAMA, hub.url, tmp_path / "b")
    held, published = _digests(from_mirror), _digests(from_hub)
    assert held.keys() >= {"config.json", "model.safetensors"}
    assert held == {path: published[path] for path in held}
    assert from_mirror.name == from_hub.name


def test_hf_command_downloads_and_verifies_from_a_node(pool: Stack, tmp_path: Path) -> None:
    _prefetch(pool, LLAMA)
    hf, endpoint = str(Path(sys.executable).with_name("hf")), _mirror_url(pool)
    for command in (["download", LLAMA], ["cache", "verify", LLAMA]):
        done = _run([hf, *command], endpoint, tmp_path)
        assert done.returncode == 0, done.stderr


def test_transformers_loads_a_model_from_a_node(pool: Stack, tmp_path: Path) -> None:
    _prefetch(pool, LLAMA)
    done = _run([sys.executable, "-c", _LOAD, LLAMA], _mirror_url(pool), tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 0


@pytest.mark.parametrize(("model", "code"), [(GATED, "GatedRepo"), (PRIVATE, "RepoNotFound")])
def test_held_files_go_only_to_a_token_that_reads_them_at_the_hub(
    pool: Stack, hub: Hub, model: str, code: str, tmp_path: Path
) -> None:
    _prefetch(pool, model, TOKEN)
    hub.grant("hf_stranger")
    endpoint = _mirror_url(pool)
    url = f"{endpoint}/{model}/resolve/main/config.json"
    assert httpx.get(url, headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    anonymous = httpx.get(url)
    stranger = httpx.get(url, headers={"authorization": "Bearer hf_stranger"})
    assert anonymous.headers["x-error-code"] == stranger.headers["x-error-code"] == code
    assert (anonymous.status_code, stranger.status_code) == (
        401,
        403 if code == "GatedRepo" else 404,
    )
    assert "hidden_size" not in anonymous.text + stranger.text
    refused = _run([sys.executable, "-c", _SNAPSHOT, model, "hf_stranger"], endpoint, tmp_path)
    assert refused.returncode != 0
    assert ("GatedRepoError" if code == "GatedRepo" else "RepositoryNotFound") in refused.stderr
    assert _download(model, endpoint, tmp_path / "let-in", TOKEN).is_dir()


def test_ranges_heads_and_what_is_not_held_are_answered_as_a_hub_does(pool: Stack) -> None:
    _prefetch(pool, LLAMA)
    with httpx.Client(base_url=_mirror_url(pool)) as client:
        file = f"/{LLAMA}/resolve/main/model.safetensors"
        head, whole = client.head(file), client.get(file)
        assert int(head.headers["content-length"]) == len(whole.content)
        assert head.headers["x-linked-size"] == str(len(whole.content))
        digest = hashlib.sha256(whole.content).hexdigest()
        assert head.headers["etag"] == head.headers["x-linked-etag"] == f'"{digest}"'
        assert len(head.headers["x-repo-commit"]) == 40
        part = client.get(file, headers={"range": "bytes=5-104"})
        assert (part.status_code, part.content) == (206, whole.content[5:105])
        assert part.headers["content-range"] == f"bytes 5-104/{len(whole.content)}"
        past = client.get(file, headers={"range": f"bytes={len(whole.content)}-"})
        assert past.status_code == 416
        for path, code in (
            (f"/{LLAMA}/resolve/main/absent.bin", "EntryNotFound"),
            (f"/{LLAMA}/resolve/no-such-branch/config.json", "RevisionNotFound"),
            ("/acme/never-heard-of/resolve/main/config.json", "RepoNotFound"),
        ):
            assert client.get(path).headers["x-error-code"] == code


def test_file_that_changed_on_disk_is_not_served(hub: Hub) -> None:
    with running_stack(hub) as stack:
        _prefetch(stack, LLAMA)
        url = f"{_mirror_url(stack)}/{LLAMA}/resolve/main/config.json"
        assert httpx.get(url).status_code == 200
        (place,) = stack.cache_dir.glob("models--acme--tiny-llama/snapshots/*/config.json")
        place.resolve().write_bytes(b"{}")
        assert httpx.get(url).status_code == 404


def test_pull_through_fetches_what_is_asked_for_with_the_askers_rights(
    hub: Hub, tmp_path: Path
) -> None:
    with running_stack(hub, settings={"WARMRACK_MIRROR_PULL_THROUGH": "true"}) as stack:
        endpoint = _mirror_url(stack)
        folder = _download(LLAMA, endpoint, tmp_path / "public")
        assert (folder / "model.safetensors").is_file()
        refused = _run([sys.executable, "-c", _SNAPSHOT, PRIVATE, ""], endpoint, tmp_path / "no")
        assert "RepositoryNotFound" in refused.stderr
        assert _download(PRIVATE, endpoint, tmp_path / "yes", TOKEN).is_dir()
        with stack.client() as client:
            assert {job.state for job in client.jobs() if job.model == LLAMA} == {"succeeded"}
