"""`transformers serve`, the library's own server."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.peers.missing import PeerMissing
from tests.acceptance.stack import free_port, wait_until

_NEEDS = ("fastapi", "uvicorn", "pydantic", "openai")
"""transformers.utils.import_utils.is_serve_available"""
_START_SECONDS = 60.0
_CALL_SECONDS = 90.0
_STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersServer:
    url: str

    def time_load(self, folder: Path) -> float:
        """Seconds until it says that the model is ready; it must not be loaded yet."""
        started = time.perf_counter()
        events = self._call("/load_model", {"model": str(folder)})
        seconds = time.perf_counter() - started
        if '"status": "ready"' not in events or '"cached": true' in events:
            raise ChildProcessError("`transformers serve` did not load the model")
        return seconds

    def unload(self) -> None:
        self._call("/reset", {})

    def answers(self) -> bool:
        try:
            return '"ok"' in self._call("/health", None)
        except urllib.error.URLError:
            return False

    def _call(self, path: str, body: dict[str, Any] | None) -> str:
        """The whole answer; a GET without a body."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=_CALL_SECONDS) as answer:
            text: str = answer.read().decode()
        return text


@contextmanager
def running_server(*options: str) -> Iterator[TransformersServer]:
    """A server without a model. Raises PeerMissing where it cannot be started here."""
    if missing := [name for name in _NEEDS if find_spec(name) is None]:
        raise PeerMissing(f"transformers[serving] is not installed ({', '.join(missing)})")
    port = free_port()
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", *options]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with subprocess.Popen(
        command,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        server = TransformersServer(url=f"http://127.0.0.1:{port}")
        try:
            wait_until(
                "`transformers serve`",
                lambda: process.poll() is not None or server.answers(),
                _START_SECONDS,
            )
            if process.poll() is not None:
                raise PeerMissing(f"`transformers serve` ended with code {process.returncode}")
            yield server
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
