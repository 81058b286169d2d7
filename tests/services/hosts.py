"""Snapshots, specs and running hosts for the tests of model hosts."""

import hashlib
import json
import os
import shutil
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.hub.models import get_model_folder
from warmrack_store.cache.gguf_header import parse_gguf
from warmrack_store.cache.verified import VerifiedFile
from warmrack_store.facts import FileFact, RefFact, RepositoryFacts
from warmrack_store.requests import LoadRequest, Mode
from warmrack_store.resolution import (
    Memory,
    Quantization,
    QuantizationSource,
    Resolution,
    Substitution,
)
from warmrack_store.resolver import resolve
from warmrack_store.resolver.asked import Asked
from warmrack_store.resolver.precision import name_backend
from warmrack_store.tensors import leaf_digest
from warmrack_workers.host_spec import ExpectedLeaf, HostSpec

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTEXT_TOKENS = 256
PRECISIONS = {"F32": "fp32", "BF16": "bf16", "F16": "fp16"}


def make_snapshot(name: str, root: Path) -> Path:
    """A model of the test hub in a cache folder of its own: blobs, and links in a snapshot."""
    return store_snapshot(get_model_folder(name), root)


def store_snapshot(model: Path, root: Path) -> Path:
    blobs, snapshot = root / "blobs", root / "snapshots" / COMMIT
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for source in sorted(path for path in model.iterdir() if path.is_file()):
        blob = blobs / _fact(source).digest
        shutil.copyfile(source, blob)
        (snapshot / source.name).symlink_to(Path("../..") / "blobs" / blob.name)
    return snapshot


def quantized(
    spec: HostSpec,
    method: str,
    source: QuantizationSource = QuantizationSource.STORED,
    *,
    compute_dtype: str = "fp32",
) -> HostSpec:
    """The spec with the resolution of a quantized load."""
    quantization = Quantization(method=method, source=source, compute_dtype=compute_dtype)
    changes = {"quantization": quantization, "precision": method}
    if source is QuantizationSource.ON_THE_FLY:
        changes |= {"mode": Mode.OPTIMIZED, "substitution": Substitution.QUANTIZED}
    resolution = spec.resolution.model_copy(update=changes)
    return spec.model_copy(update={"resolution": resolution, "backend": "bnb"})


def make_gguf_spec(snapshot: Path, runtime: Path, kind: str) -> HostSpec:
    """The spec of one of the snapshot's GGUF files, as the resolver chooses it."""
    paths = sorted(snapshot.iterdir())
    facts = RepositoryFacts(
        repository="tests/tiny",
        commit=COMMIT,
        files=tuple(_fact(path) for path in paths),
        gguf=parse_gguf(paths[0].name, paths[0].read_bytes()),
    )
    ref = RefFact(repository="tests/tiny", commit=COMMIT, private=False, gated=False)
    request = LoadRequest(model="tests/tiny", precision=f"gguf:{kind}")
    resolution = resolve(request, Asked(ref=ref, facts=facts), versions={})
    backend = name_backend(resolution.quantization)
    return make_spec(snapshot, runtime, resolution=resolution, backend=backend)


def make_endless(root: Path) -> Path:
    """A model that never ends its text by itself."""
    model = root / "endless"
    shutil.copytree(get_model_folder("tiny_llama"), model)
    (model / "generation_config.json").write_text("{}")
    return store_snapshot(model, root / "cache")


def replace_bytes(path: Path, change: Callable[[bytes], bytes], *, quietly: bool) -> None:
    """Change a file in place; `quietly` puts its times back, so that only its bytes tell."""
    blob = path.resolve()
    stat = blob.stat()
    blob.write_bytes(change(blob.read_bytes()))
    if quietly:
        os.utime(blob, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def flip_last_byte(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def make_spec(snapshot: Path, runtime: Path, **changes: Any) -> HostSpec:
    """What the agent would write after it verified the snapshot as it is now."""
    paths = sorted(snapshot.iterdir())
    leaves = {
        name: leaf
        for path in paths
        if path.suffix == ".safetensors"
        for name, leaf in _read_leaves(path).items()
    }
    fields: dict[str, Any] = {
        "resident_id": "r1",
        "epoch": 1,
        "model": "tests/tiny",
        "resolution": changes.get("resolution") or _resolve(paths, leaves),
        "snapshot_dir": snapshot,
        "files": tuple(_verify(path) for path in paths),
        "leaves": leaves,
        "device": "cpu:0",
        "threads": 1,
        "context_tokens": CONTEXT_TOKENS,
        "socket_path": runtime / "h.sock",
        "log_path": runtime / "h.log",
    }
    return HostSpec.model_validate(fields | changes)


@contextmanager
def runtime_folder() -> Iterator[Path]:
    """A short one: a socket's path ends at 107 bytes, which pytest's own folders reach."""
    with tempfile.TemporaryDirectory(prefix="wr-") as folder:
        yield Path(folder)


def connect(spec: HostSpec, timeout_seconds: float = 60.0) -> httpx.Client:
    """A client of the host, as soon as its socket is there."""
    await_socket(spec.socket_path)
    transport = httpx.HTTPTransport(uds=str(spec.socket_path))
    return httpx.Client(transport=transport, base_url="http://host", timeout=timeout_seconds)


def await_state(client: httpx.Client, *wanted: str, seconds: float = 60.0) -> dict[str, Any]:
    """The status once the host is in one of these states; long polls until then."""
    deadline = time.monotonic() + seconds
    status: dict[str, Any] = client.get("/status").json()
    while status["state"] not in wanted:
        assert time.monotonic() < deadline, f"the host stays {status['state']}"
        query = {"after": status["state"], "wait": "10"}
        status = client.get("/status", params=query).json()
    return status


def await_socket(path: Path, seconds: float = 60.0) -> None:
    """Until somebody listens there; the kernel tells nobody, so this is a poll with a deadline."""
    deadline = time.monotonic() + seconds
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):
                assert time.monotonic() < deadline, f"nobody listens on {path}"
                threading.Event().wait(0.005)
            else:
                return


def read_events(response: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    """(event, data) of a stream, as they come; dropping the iterator closes the stream."""
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def _fact(path: Path) -> FileFact:
    data = path.read_bytes()
    git_sha1 = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    large = path.suffix == ".safetensors"
    sha256 = hashlib.sha256(data).hexdigest() if large else None
    return FileFact(path=path.name, size=len(data), git_sha1=git_sha1, sha256=sha256)


def _verify(path: Path) -> VerifiedFile:
    fact, stat = _fact(path), path.stat()
    return VerifiedFile(
        path=fact.path,
        size_bytes=fact.size,
        digest=fact.digest,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        inode=stat.st_ino,
        mtime_ns=stat.st_mtime_ns,
    )


def _read_leaves(path: Path) -> dict[str, ExpectedLeaf]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    body = memoryview(data)[8 + length :]
    return {
        name: ExpectedLeaf(
            dtype=entry["dtype"],
            shape=tuple(entry["shape"]),
            leaf=leaf_digest(entry["dtype"], entry["shape"], body[slice(*entry["data_offsets"])]),
            path=path.name,
        )
        for name, entry in header.items()
    }


def _resolve(paths: list[Path], leaves: dict[str, ExpectedLeaf]) -> Resolution:
    config = json.loads(next(path for path in paths if path.name == "config.json").read_text())
    dtypes = {leaf.dtype for leaf in leaves.values()}
    architecture = config["architectures"][0]
    return Resolution(
        request_digest="0" * 32,
        asked="tests/tiny",
        ref_asked=None,
        repository="tests/tiny",
        commit=COMMIT,
        private=False,
        gated=False,
        substitution=Substitution.NONE,
        files=tuple(_fact(path) for path in paths),
        weights=tuple(path.name for path in paths if path.suffix == ".safetensors"),
        architecture=architecture,
        model_type=config["model_type"],
        parameters=1,
        stored_dtypes=dict.fromkeys(dtypes, 1),
        precision=PRECISIONS[dtypes.pop()] if len(dtypes) == 1 else "mixed",
        tokenizer_files=tuple(path.name for path in paths if path.name.startswith("tokenizer")),
        memory=Memory(
            weights_bytes=1, cache_bytes=1, context_tokens=CONTEXT_TOKENS, workspace_bytes=1
        ),
        generates=architecture.endswith("ForCausalLM"),
        trail=(),
        catalog_version="test",
    )
