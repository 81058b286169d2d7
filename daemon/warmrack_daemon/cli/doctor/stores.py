"""Checks of what warmrack leans on: the database, the broker, the Hub."""

from collections.abc import Iterator

import httpx
import redis
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from warmrack_daemon.cli.doctor.findings import Check, Finding, ok, warning, wrong
from warmrack_store.database import Database, schema_revision
from warmrack_store.errors import StoreUnavailable
from warmrack_store.ledgers import leases
from warmrack_store.settings import Settings

_TIMEOUT_SECONDS = 5.0


def check_database(settings: Settings) -> Iterator[Finding]:
    """Whether it answers, has the newest schema and takes a write; a missing file is not made."""
    url = settings.effective_database_url
    try:
        parsed = make_url(url)
    except ArgumentError:
        yield wrong("database", "WARMRACK_DATABASE_URL is no URL", "See docs/settings.md.")
        return
    shown = parsed.render_as_string(hide_password=True)
    if parsed.get_backend_name() == "sqlite" and not _sqlite_exists(parsed.database):
        yield warning("database", f"{shown} is not there yet", "`warmrack up` makes it.")
        return
    try:
        revision, head = schema_revision(url)
    except StoreUnavailable as error:
        yield wrong("database", f"{shown}: {error.message}", error.hint)
        return
    if revision != head:
        yield wrong("database", f"{shown} is at {revision}, not {head}", "Run `warmrack migrate`.")
        return
    try:
        _write(url)
    except StoreUnavailable as error:
        remedy = "Free space on its disk, and look at who may write it."
        yield wrong("database", f"{shown} takes no write: {error.message}", remedy)
    else:
        yield ok("database", f"{shown} is at {revision}")


def _write(url: str) -> None:
    """Commit something that nobody reads: a full disk is not noticed before the commit."""
    database = Database(url)
    try:
        with database.write() as tx:
            held = leases.acquire(
                tx, subject="doctor", kind="doctor", holder="doctor", ttl_seconds=1.0
            )
            if held is not None:
                leases.release(tx, held)
    finally:
        database.close()


def _sqlite_exists(path: str | None) -> bool:
    from pathlib import Path

    return path is not None and Path(path).exists()


def check_broker(settings: Settings) -> Iterator[Finding]:
    """Whether it answers and keeps its queues over a restart."""
    if settings.broker_url is None:
        yield ok("broker", "embedded: it runs inside `warmrack up`")
        return
    try:
        with redis.Redis.from_url(
            settings.broker_url,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
        ) as client:
            persistence = client.info("persistence")
    except ValueError:
        yield wrong("broker", "WARMRACK_BROKER_URL is no redis:// URL", "See docs/settings.md.")
        return
    except redis.RedisError as error:
        yield wrong("broker", f"does not answer: {error}", "Check WARMRACK_BROKER_URL.")
        return
    if persistence.get("aof_enabled"):
        yield ok("broker", "answers and keeps an append-only file")
    else:
        remedy = "Jobs are safe in the database; `appendonly yes` saves the seconds to find them."
        yield warning("broker", "answers, but a restart loses its queues", remedy)


def check_hub(settings: Settings) -> Iterator[Finding]:
    """Whether the Hub answers, and whether it knows the caller's token."""
    endpoint = settings.hub_endpoint
    headers = {"Authorization": f"Bearer {settings.hub_token}"} if settings.hub_token else {}
    path = "/api/whoami-v2" if settings.hub_token else "/api/models?limit=1"
    try:
        answer = httpx.get(endpoint + path, headers=headers, timeout=_TIMEOUT_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = f"{endpoint} does not answer: {error}"
        yield wrong("hub", why, "Check WARMRACK_HUB_ENDPOINT and the network.")
        return
    if answer.status_code >= 500:
        yield wrong("hub", f"{endpoint} answers {answer.status_code}", "Check the Hub's status.")
    elif settings.hub_token and answer.status_code in {401, 403}:
        yield wrong("hub", f"{endpoint} does not know the token", "Renew WARMRACK_HUB_TOKEN.")
    else:
        token = ", and it knows the token" if settings.hub_token else ", without a token"
        yield ok("hub", f"{endpoint} answers{token}")


CHECKS: tuple[Check, ...] = (check_database, check_broker, check_hub)
