"""The database: transactions that read, transactions that write, and the migrations."""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, CursorResult, Engine, RowMapping, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.sql.base import Executable

from warmrack_store.errors import BadRequest, StoreUnavailable

_BUSY_SECONDS = 15
_POSTGRES_PATIENCE = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""libpq's parameters, in seconds and the last in ms: a server that vanished without a word (its
machine is off) is noticed within half a minute, not after the kernel's quarter of an hour. The URL's own win."""
_SQLITE_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_POSTGRES_NOW = sa.text("SELECT extract(epoch FROM clock_timestamp())")


class Transaction:
    """One open transaction. `now` is the database's clock, read once.

    Leases are compared across machines, so everybody reads the same clock: the PostgreSQL
    server's, or for SQLite this machine's (all its users are on it).
    """

    def __init__(self, connection: Connection, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._clock = clock
        self._now: float | None = None

    @property
    def now(self) -> float:
        if self._now is None:
            if self.is_postgres:
                self._now = float(self._connection.execute(_POSTGRES_NOW).scalar_one())
            else:
                self._now = self._clock()
        return self._now

    @property
    def is_postgres(self) -> bool:
        return self._connection.dialect.name == "postgresql"

    def execute(
        self, statement: Executable, rows: Sequence[dict[str, Any]] | None = None
    ) -> CursorResult[Any]:
        return self._connection.execute(statement, rows)

    def find(self, statement: Executable) -> RowMapping | None:
        """The first row, or None."""
        return self._connection.execute(statement).mappings().first()

    def list(self, statement: Executable) -> Sequence[RowMapping]:
        return self._connection.execute(statement).mappings().all()

    def change(self, statement: Executable) -> int:
        """How many rows a compare-and-set moved; zero means somebody else was faster."""
        return self._connection.execute(statement).rowcount

    def serialize(self, name: str) -> None:
        """Let one transaction at a time pass this point (SQLite's writers already do)."""
        if self.is_postgres:
            self._connection.execute(
                sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(name)))
            )


class Database:
    """A pool of connections to one SQLite file (WAL) or one PostgreSQL database."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        self._engine = _make_engine(url)
        self._writer = self._engine.execution_options(warmrack_begin="BEGIN IMMEDIATE")
        self._reader = self._engine
        if self.dialect == "postgresql":
            self._reader = self._engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        self._clock = clock

    @property
    def dialect(self) -> str:
        return self._engine.dialect.name

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A transaction that sees one state of the database and changes nothing."""
        with _unavailable(), self._reader.begin() as connection:
            yield Transaction(connection, self._clock)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """A transaction that commits when its block ends and rolls back when it raises."""
        with _unavailable(), self._writer.begin() as connection:
            yield Transaction(connection, self._clock)

    def close(self) -> None:
        self._engine.dispose()


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in _SQLITE_BROKEN:
            raise StoreUnavailable(
                f"the database file is broken: {error.orig}",
                hint="Put a copy of it in its place. Without one, move it away: `warmrack up` "
                "starts with an empty one, and the cache is kept.",
            ) from error
        if _is_schema_missing(error):
            raise StoreUnavailable(
                f"the database has not the tables of this version: {error.orig}",
                hint="Run `warmrack migrate`; the work goes on by itself then.",
            ) from error
        if isinstance(error, (OperationalError, InterfaceError)):
            raise StoreUnavailable(f"the database does not answer: {error.orig}") from error
        if error.connection_invalidated:
            raise StoreUnavailable(f"the database connection broke: {error.orig}") from error
        raise
    except PoolTimeout as error:
        raise StoreUnavailable("every connection to the database is busy") from error


def _is_schema_missing(error: DBAPIError) -> bool:
    """A table or column is not there, as PostgreSQL (by SQLSTATE) or SQLite (by words) says it."""
    if getattr(error.orig, "sqlstate", None) in ("42P01", "42703"):
        return True
    said = str(error.orig)
    return said.startswith(("no such table", "no such column")) or "has no column named" in said


def _parse_url(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise BadRequest("WARMRACK_DATABASE_URL is not a database URL") from error
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise BadRequest(
            f"database {parsed.get_backend_name()!r} is not supported",
            hint="Use postgresql+psycopg://... or sqlite:///...",
        )
    return parsed


def _make_engine(url: str) -> Engine:
    parsed = _parse_url(url)
    if parsed.get_backend_name() != "sqlite":
        return sa.create_engine(
            parsed,
            connect_args={k: v for k, v in _POSTGRES_PATIENCE.items() if k not in parsed.query},
            pool_pre_ping=True,
            pool_size=10,
            max_overflow=20,
        )
    engine = sa.create_engine(parsed, connect_args={"timeout": _BUSY_SECONDS}, pool_size=20)
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the begin event below says BEGIN, the driver never does
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    begin = connection.get_execution_options().get("warmrack_begin", "BEGIN")
    connection.exec_driver_sql(begin)


def migrate(url: str) -> None:
    """Bring the database to the newest schema; does nothing where it is there already."""
    from alembic import command

    parsed = _parse_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        _make_parent(Path(parsed.database))
    with _unavailable():
        command.upgrade(alembic_config(url), "head")


def _make_parent(file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadRequest(
            f"{file.parent} cannot be made for the database: {error.strerror}",
            hint="Set WARMRACK_STATE_DIR or WARMRACK_DATABASE_URL.",
        ) from error


def alembic_config(url: str) -> Any:
    """Alembic's configuration for this package's migrations."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["url"] = url
    return config


def schema_revision(url: str) -> tuple[str | None, str | None]:
    """The revision the database is at, and the newest one; equal where nothing is to be done."""
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    head = ScriptDirectory.from_config(alembic_config(url)).get_current_head()
    engine = _make_engine(url)
    try:
        with _unavailable(), engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision(), head
    finally:
        engine.dispose()
