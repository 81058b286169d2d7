"""Caches of other tools taken in, what is wrong in one found, and snapshots carried as files."""

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import BERT, GATED, LLAMA, PRIVATE, SHARDED, TOKEN
from tests.acceptance.stack import Stack, running_stack
from tests.hub.control import Hub
from tests.services.hosts import flip_last_byte, replace_bytes

pytestmark = pytest.mark.slow

INTEGRITY = 5
STOCK = """
import sys
from huggingface_hub import snapshot_download
name, local, *patterns = sys.argv[1:]
print(snapshot_download(name, local_files_only=local == "offline", allow_patterns=patterns or None))
"""


@pytest.fixture(scope="module")
def rack(hub: Hub) -> Iterator[Stack]:
    with running_stack(hub) as stack:
        yield stack


def stock(stack: Stack, cache: Path, name: str, *rest: str, token: str | None = None) -> Path:
    """What a stock client gives, online or `offline`, in a process of its own."""
    secret = {"HF_TOKEN": token} if token else {}
    done = subprocess.run(
        [sys.executable, "-c", STOCK, name, *(rest or ("online",))],
        env={**stack.environment, "HF_HUB_CACHE": str(cache), **secret},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def hf_verify(stack: Stack, cache: Path, name: str) -> int:
    """`hf cache verify`, the real one."""
    hf = Path(sys.executable).with_name("hf")
    command = [str(hf), "cache", "verify", name, "--cache-dir", str(cache)]
    command.append("--fail-on-missing-files")
    done = subprocess.run(
        command, env=stack.environment, capture_output=True, text=True, timeout=100, check=False
    )
    return done.returncode


def test_own_cache_that_a_stock_client_filled_is_adopted_in_place(rack: Stack) -> None:
    snapshot = stock(rack, rack.cache_dir, LLAMA)
    before = {path.name: path.stat().st_ino for path in snapshot.iterdir()}
    code, found = rack.run_json("cache", "adopt", "--model", LLAMA)
    assert code == 0, found
    (one,) = found["items"]
    assert (one["proof"], one["complete"], one["recorded"]) == ("hub", True, True)
    assert one["read_bytes"] == one["size_bytes"]
    assert {path.name: path.stat().st_ino for path in snapshot.iterdir()} == before
    rack.hub.reset_counts()
    with rack.client() as client:
        job = client.wait(client.load(LLAMA, network="offline").id, timeout_seconds=90)
        assert client.receipt(job.id).identical
    assert rack.hub.read_counts().requests() == 0
    assert hf_verify(rack, rack.cache_dir, LLAMA) == 0
    assert stock(rack, rack.cache_dir, LLAMA, "offline") == snapshot
    _, again = rack.run_json("cache", "adopt", "--model", LLAMA)
    assert again["items"][0]["read_bytes"] < one["read_bytes"], "unchanged files are not re-hashed"


def test_other_folder_is_taken_in_without_moving_or_copying(rack: Stack, tmp_path: Path) -> None:
    other = rack.folder / "other"
    snapshot = stock(rack, other, SHARDED)
    shard = sorted(snapshot.glob("*.safetensors"))[0].resolve()
    code, found = rack.run_json("cache", "adopt", str(other))
    assert code == 0, found
    (one,) = found["items"]
    assert (one["recorded"], one["copied_bytes"]) == (True, 0)
    assert one["linked_bytes"] > 0
    assert shard.exists()
    ours = rack.cache_dir / "models--acme--tiny-sharded" / "blobs" / shard.name
    assert ours.stat().st_ino == shard.stat().st_ino
    rack.hub.reset_counts()
    assert rack.run("prefetch", SHARDED).returncode == 0
    assert rack.hub.read_counts().file_bytes() < 100_000


def test_non_public_snapshot_is_adopted_only_by_who_may_read_it(rack: Stack) -> None:
    other = rack.folder / "closed"
    stock(rack, other, PRIVATE, token=TOKEN)
    code, found = rack.run_json("cache", "adopt", str(other))
    assert (code, found["items"]) == (0, [])
    assert [one["repository"] for one in found["refused"]] == ["(not public)"]
    assert not (rack.cache_dir / "models--acme--private").exists()
    code, found = rack.run_json("cache", "adopt", str(other), WARMRACK_HUB_TOKEN=TOKEN)
    assert [one["recorded"] for one in found["items"]] == [True]
    assert (rack.cache_dir / "models--acme--private").stat().st_mode & 0o077 == 0


def test_corrupt_blob_is_found_kept_and_fetched_anew(rack: Stack) -> None:
    assert rack.run("prefetch", BERT).returncode == 0
    assert rack.run_json("cache", "verify", BERT)[0] == 0
    (snapshot,) = (rack.cache_dir / "models--acme--tiny-bert" / "snapshots").iterdir()
    replace_bytes(snapshot / "model.safetensors", flip_last_byte, quietly=True)
    code, found = rack.run_json("cache", "verify", BERT, "--quick")
    assert code in (0, INTEGRITY), "a quiet change may escape a look at sizes and times"
    code, found = rack.run_json("cache", "verify", BERT)
    assert (code, found["passed"]) == (INTEGRITY, False)
    (bad,) = [one for one in found["items"][0]["findings"] if one["kind"] == "corrupt"]
    _, kept = rack.run_json("cache", "quarantine", "ls")
    (one,) = [k for k in kept["items"][0]["items"] if k["id"] == bad["quarantined"]]
    assert one["expected"] == bad["expected"] != one["actual"] == bad["actual"]
    assert rack.run("cache", "quarantine", "restore", one["id"]).returncode == INTEGRITY
    assert rack.run("cache", "quarantine", "rm", one["id"]).returncode == 0
    assert rack.run("prefetch", BERT).returncode == 0
    assert rack.run_json("cache", "verify", BERT)[0] == 0


def test_exported_snapshot_is_loaded_on_an_empty_pool_that_reaches_no_hub(
    rack: Stack, hub: Hub, tmp_path: Path
) -> None:
    assert rack.run("prefetch", LLAMA).returncode == 0
    file, again = tmp_path / "llama.tar", tmp_path / "again.tar"
    for target in (file, again):
        done = rack.run("cache", "export", LLAMA, "-o", str(target))
        assert done.returncode == 0, done.stderr
    assert file.read_bytes() == again.read_bytes()
    with tarfile.open(file) as plain:
        assert plain.getnames()[0] == "manifest.json"
    away = {"WARMRACK_HUB_ENDPOINT": "http://127.0.0.1:9"}
    with running_stack(hub, settings=away) as empty:
        broken = tmp_path / "broken.tar"
        broken.write_bytes(flip_middle(file.read_bytes()))
        code, found = empty.run_json("cache", "import", str(broken))
        assert (code, found["error"]["code"]) == (INTEGRITY, "integrity")
        assert not list(empty.cache_dir.glob("models--*/snapshots/*"))
        code, found = empty.run_json("cache", "import", str(file))
        assert (code, found["proof"]) == (0, "listing"), found
        with empty.client() as client:
            job = client.wait(client.load(LLAMA, network="offline").id, timeout_seconds=90)
            assert client.receipt(job.id).identical
        assert stock(empty, empty.cache_dir, LLAMA, "offline").is_dir()


def flip_middle(body: bytes) -> bytes:
    at = len(body) // 2
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


def test_gated_snapshot_is_exported_only_to_who_may_read_it(rack: Stack, tmp_path: Path) -> None:
    allowed = {"WARMRACK_HUB_TOKEN": TOKEN}
    assert rack.run("prefetch", GATED, **allowed).returncode == 0
    target = tmp_path / "gated.tar"
    denied = rack.run("cache", "export", GATED, "-o", str(target))
    assert (denied.returncode, os.path.lexists(target)) == (3, False)
    assert rack.run("cache", "export", GATED, "-o", str(target), **allowed).returncode == 0


def test_findings_name_a_gated_repository_only_to_who_may_read_it(rack: Stack) -> None:
    allowed = {"WARMRACK_HUB_TOKEN": TOKEN}
    assert rack.run("prefetch", GATED, **allowed).returncode == 0
    (snapshot,) = (rack.cache_dir / "models--acme--gated" / "snapshots").iterdir()
    replace_bytes(snapshot / "model.safetensors", flip_last_byte, quietly=True)
    code, found = rack.run_json("cache", "verify")
    told = [one for one in found["items"][0]["findings"] if one["kind"] == "corrupt"]
    assert (code, [one["repository"] for one in told]) == (INTEGRITY, ["(not public)"])
    assert GATED not in str(found)
    _, hidden = rack.run_json("cache", "quarantine", "ls")
    assert GATED not in str(hidden)
    _, shown = rack.run_json("cache", "quarantine", "ls", **allowed)
    (one,) = [k for k in shown["items"][0]["items"] if k["repository"] == GATED]
    assert rack.run("cache", "quarantine", "rm", one["id"]).returncode == 3
    assert rack.run("cache", "quarantine", "rm", one["id"], **allowed).returncode == 0
