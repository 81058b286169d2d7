"""A host program without a model, for the tests of its watcher: `python fake_host.py SOCKET ID`.

It answers `GET /status` as a warm host, `--answers N` times only, and holds `--bytes N` of memory.
Its first line on stdout comes when it listens.
"""

import argparse
import json
import os
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("resident_id")
    parser.add_argument("--answers", type=int, default=sys.maxsize)
    parser.add_argument("--bytes", type=int, default=0)
    asked = parser.parse_args()
    held = bytearray(b"x") * asked.bytes
    left = asked.answers

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                return  # the connection is closed without an answer
            body = json.dumps(status_of(asked.resident_id, len(held))).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """The address of a client on a unix socket is empty, which the usual one trips over."""

    with UnixStreamServer(asked.socket, Handler) as server:
        print("listens", flush=True)
        server.serve_forever()


def status_of(resident_id: str, held_bytes: int) -> dict[str, object]:
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return {
        "resident_id": resident_id,
        "epoch": 1,
        "state": "warm",
        "pid": os.getpid(),
        "start_time": int(stat[19]),
        "model": "org/a",
        "repository": "org/a",
        "commit": "0" * 40,
        "device": "cpu:0",
        "in_flight": 0,
        "idle_seconds": 0.0,
        "bytes": held_bytes,
        "error": None,
        "receipt": None,
        "timings": {},
    }


if __name__ == "__main__":
    main()
