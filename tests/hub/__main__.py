"""`python -m tests.hub`: a Hub in a process of its own."""

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path

from tests.hub.faults import FaultRule, Origin, Rate, RateScope
from tests.hub.server import HubServer

_FLAGS = frozenset(("private", "gated", "disabled"))


def main() -> None:
    """Print one JSON line `{"url", "cdn_url", "pid"}` when ready; serve until SIGTERM."""
    options = _parse_options()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    with tempfile.TemporaryDirectory(prefix="test-hub-") as objects:
        server = HubServer(Path(objects), port=options.port)
        _apply(server, options)
        server.start()
        try:
            ready = {"url": server.url, "cdn_url": server.cdn_url, "pid": os.getpid()}
            print(json.dumps(ready), flush=True)
            if options.until_stdin_closes:
                threading.Thread(target=_watch_stdin, args=(stop,), daemon=True).start()
            stop.wait()
        finally:
            server.stop()


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.hub", description=__doc__)
    parser.add_argument(
        "--repo",
        action="append",
        default=[],
        metavar="NAME=DIR[,private][,gated][,disabled][,token=TOKEN]...",
        help="serve a folder as a repository",
    )
    parser.add_argument("--gated", action="append", default=[], metavar="NAME")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--rate", type=float, metavar="BYTES", help="CDN bytes a second in all")
    parser.add_argument(
        "--connection-rate", type=float, metavar="BYTES", help="CDN bytes a second a connection"
    )
    parser.add_argument("--until-stdin-closes", action="store_true")
    return parser.parse_args()


def _apply(server: HubServer, options: argparse.Namespace) -> None:
    for described in options.repo:
        _serve(server, described)
    for name in options.gated:
        server.repositories.change(name, gated=True)
    paces = ((RateScope.ALL, options.rate), (RateScope.CONNECTION, options.connection_rate))
    for scope, rate in paces:
        if rate is not None:
            fault = Rate(bytes_per_second=rate, scope=scope)
            server.rules.add(FaultRule(fault=fault, origin=Origin.CDN))


def _serve(server: HubServer, described: str) -> None:
    name, _equals, rest = described.partition("=")
    folder, *options = rest.split(",")
    flags = _FLAGS.intersection(options)
    server.repositories.add(
        name,
        Path(folder),
        private="private" in flags,
        gated="gated" in flags,
        disabled="disabled" in flags,
    )
    for option in options:
        if option.startswith("token="):
            server.readers.grant(option.removeprefix("token="), [name])
        elif option not in _FLAGS:
            raise SystemExit(f"--repo {described}: no option {option!r}")


def _watch_stdin(stop: threading.Event) -> None:
    """End with the process that started this one, also when that was killed."""
    # The descriptor, not the stream: a thread inside sys.stdin's lock would hang the exit.
    while os.read(sys.stdin.fileno(), 4096):
        continue
    stop.set()


if __name__ == "__main__":
    main()
