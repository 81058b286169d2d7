"""The instruments of the bench: the stream client, the memory of a process, a peer's absence."""

import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from bench.memory import Memory, maps_library, parse_rollup, read_memory
from bench.peers import transformers_serve
from bench.peers.missing import PeerMissing
from bench.streams import stream_client


class _Script(BaseHTTPRequestHandler):
    """Answers by path; the token of /held comes before the rest, which waits for `release`."""

    protocol_version = "HTTP/1.1"
    release = threading.Event()
    connections: ClassVar[set[object]] = set()

    def do_POST(self) -> None:
        self.connections.add(self.client_address)
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(503 if self.path == "/cold" else 200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if self.path == "/held":
            self._chunk(b'event: token\ndata: {"text": " Paris"}\n\n')
            self.release.wait(10)
        self._chunk(b'event: done\ndata: {"text": " Paris"}\n\n')
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, body: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(body), body))

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a test's output is its own."""


@pytest.fixture
def service() -> Iterator[str]:
    _Script.release.clear()
    _Script.connections.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Script) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_first_piece_is_timed_before_the_rest_of_the_answer(service: str) -> None:
    held_seconds = 0.3
    with stream_client(service) as client:
        timer = threading.Timer(held_seconds, _Script.release.set)
        timer.start()
        first = client.call("/held", {})
        timer.join()
    assert first.text == " Paris"
    assert first.seconds < held_seconds


def test_one_connection_serves_all_calls(service: str) -> None:
    _Script.release.set()
    with stream_client(service) as client:
        for _ in range(3):
            client.call("/held", {})
    assert len(_Script.connections) == 1


@pytest.mark.parametrize(("path", "said"), [("/cold", "answered 503"), ("/empty", "no token")])
def test_answer_without_a_token_is_no_measurement(service: str, path: str, said: str) -> None:
    with stream_client(service) as client, pytest.raises(ConnectionError, match=said):
        client.call(path, {})


def test_rollup_gives_both_kinds_of_memory() -> None:
    text = "5500-7fff ---p 00000000 00:00 0 [rollup]\nRss: 2048 kB\nPss: 1024 kB\nPss_Dirty: 1 kB\n"
    assert parse_rollup(text) == Memory(resident_bytes=2 * 2**20, proportional_bytes=2**20)


def test_memory_that_a_process_touches_is_seen() -> None:
    size_bytes = 64 * 2**20
    before = read_memory(os.getpid())
    with mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        for offset in range(0, size_bytes, mmap.PAGESIZE):
            held[offset] = 1
        after = read_memory(os.getpid())
    assert after.resident_bytes - before.resident_bytes > 0.9 * size_bytes
    assert after.proportional_bytes - before.proportional_bytes > 0.9 * size_bytes


def test_mapped_library_is_told_by_its_file_not_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "libfolder"
    folder.mkdir()
    path = folder / "libneedle.so.1"
    path.write_bytes(b"x" * mmap.PAGESIZE)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ):
        assert maps_library(os.getpid(), "libneedle")
        assert not maps_library(os.getpid(), "libfolder")
    assert not maps_library(os.getpid(), "libneedle")


def test_peer_whose_package_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers_serve, "_NEEDS", ("json", "no_such_package"))
    with pytest.raises(PeerMissing, match="no_such_package"), transformers_serve.running_server():
        pytest.fail("a server without its packages ran")


def test_unknown_row_is_refused_before_anything_is_measured() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "G0"],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "no such row: G0" in done.stderr
