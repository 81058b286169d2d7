"""A Hub behind TLS that stalls; the test Hub speaks plain HTTP only."""

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.services.test_fetch_snapshot import list_lingering_threads
from warmrack_store.errors import Cancelled
from warmrack_store.facts import FileFact
from warmrack_workers.fetch.fetcher import FetchPlan, fetch_snapshot
from warmrack_workers.fetch.hub_source import HubSource

FILE = FileFact(path="a.bin", size=100_000, git_sha1="a" * 40, sha256="b" * 64)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(50_000)


def write_certificate(target: Path) -> Path:
    """A certificate and key for 127.0.0.1 that vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test hub")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    target.write_bytes(certificate.public_bytes(pem) + secret)
    return target


@dataclass(frozen=True, slots=True)
class StalledServer:
    port: int
    stalled: Event
    """Set once it has sent all it will send."""


@contextmanager
def stalled_server(certificate: Path, answer: bytes) -> Iterator[StalledServer]:
    """Answers one request with `answer` and then nothing more."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    stalled = Event()

    def serve() -> None:
        plain, _ = listener.accept()
        with suppress(OSError), context.wrap_socket(plain, server_side=True) as stream:
            stream.recv(65_536)
            stream.sendall(answer)
            stalled.set()
            stream.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=serve)
        thread.start()
        yield StalledServer(listener.getsockname()[1], stalled)
        thread.join(timeout=10)


@pytest.mark.parametrize("answer", [b"", ANSWER], ids=["before the answer", "in the body"])
def test_a_stalled_tls_transfer_is_cancelled_within_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    certificate = write_certificate(tmp_path / "hub.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    plan = FetchPlan(
        cache_dir=tmp_path / "cache",
        repository="acme/tiny",
        commit="c" * 40,
        files=(FILE,),
        public=True,
    )
    stop = Event()
    stopped_at: list[float] = []

    def stop_when_stalled(server: StalledServer) -> None:
        assert server.stalled.wait(10)
        stopped_at.append(time.monotonic())
        stop.set()

    with stalled_server(certificate, answer) as server:
        watcher = Thread(target=stop_when_stalled, args=(server,))
        watcher.start()
        endpoint = f"https://127.0.0.1:{server.port}"
        with (
            HubSource(
                endpoint=endpoint, repository=plan.repository, commit=plan.commit, token=None
            ) as source,
            pytest.raises(Cancelled),
        ):
            fetch_snapshot(plan, source, on_progress=lambda _progress: None, stop=stop)
        ended = time.monotonic()
        watcher.join()
    assert ended - stopped_at[0] < 1.0
    assert list_lingering_threads() == []
