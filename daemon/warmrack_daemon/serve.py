"""The control plane process: web server, reconciler and intake."""

import argparse
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import uvicorn

from warmrack_daemon.api.app import create_app
from warmrack_daemon.listening import Listening, check_access, check_port
from warmrack_daemon.reconciler import Reconciler
from warmrack_daemon.revocations import Revocations
from warmrack_daemon.services import Services
from warmrack_daemon.submitting import submit
from warmrack_store import heap
from warmrack_store.brokers.celery_doorbell import Intake
from warmrack_store.errors import BadRequest, Defect, NotSupported, WarmrackError
from warmrack_store.logs import configure_logs
from warmrack_store.records import parse_record
from warmrack_store.settings import Settings, load_settings
from warmrack_store.submissions import Submission

_KEEP_ALIVE_SECONDS = 75
"""Longer than any client of ours keeps an idle connection."""
_INTAKE_ONLY = ("api_key", "idempotency_key", "wait")
_MAX_KEY_LENGTH = 200


def run(settings: Settings, listening: Listening) -> None:
    """Serve until SIGTERM or SIGINT. Raises a refusal for an address that may not be served."""
    check_access(settings.auth, listening)
    check_port(listening)
    heap.limit_arenas()
    configure_logs(settings.log)
    services = Services.open(settings)
    intake = Intake(
        services.broker_url,
        result_backend=settings.result_backend or services.broker_url,
        submit=lambda kind, kwargs, task_id: receive(services, kind, kwargs, task_id),
    )
    reconciler = Reconciler(services, intake.answer)
    reconciler.start()
    revocations = Revocations(services)
    revocations.start()
    intake.start()
    config = uvicorn.Config(
        create_app(services, intake_runs=intake.is_running),
        host=listening.host,
        port=listening.port,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=3,
    )
    server = uvicorn.Server(config)
    try:
        with suppress(KeyboardInterrupt):
            server.run()
    finally:
        intake.stop()
        reconciler.stop()
        revocations.stop()
        services.close()
    if not server.started:
        raise Defect("the web server did not start")


def main() -> None:
    """`python -m warmrack_daemon.serve`, which `warmrack serve` becomes."""
    parser = argparse.ArgumentParser(prog="warmrack serve")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8420)
    parser.add_argument("--behind-proxy", action="store_true")
    given = parser.parse_args()
    try:
        run(load_settings(), Listening(**vars(given)))
    except WarmrackError as error:
        print(f"error[{error.code}]: {error.message}\nhint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)


def receive(services: Services, kind: str, kwargs: Mapping[str, Any], task_id: str) -> str:
    """Store the job of a Celery message and give its id.

    The keyword arguments are the body of POST /jobs without `kind`. The message's own id is the
    idempotency key where none is given, so that a message delivered twice is one job.
    """
    body = {name: value for name, value in kwargs.items() if name not in _INTAKE_ONLY}
    try:
        tenant = _intake_tenant(services, kwargs)
        submission = parse_record(Submission, {**body, "kind": kind})
        job = submit(
            services,
            submission,
            token=None,
            tenant=tenant,
            idempotency_key=_message_key(kwargs) or f"celery:{task_id}",
            owed_to_celery=task_id if kwargs.get("wait") else None,
        )
    except WarmrackError as error:
        # Celery carries an exception's arguments only: the code has to be among them.
        raise ValueError(f"{error.code}: {error.message}") from error
    return job.id


def _intake_tenant(services: Services, kwargs: Mapping[str, Any]) -> str:
    if services.settings.intake_tenant is None:
        raise BadRequest("this pool accepts no Celery messages", hint="Set WARMRACK_INTAKE_TENANT.")
    if kwargs.get("api_key") is not None:
        raise NotSupported("api_key is not served by this version")
    if "hub_token" in kwargs:
        raise NotSupported("a Hub token is no part of a Celery message")  # the broker would keep it
    if not isinstance(kwargs.get("wait", False), bool):
        raise BadRequest("wait: must be true or false")
    return services.settings.intake_tenant


def _message_key(kwargs: Mapping[str, Any]) -> str | None:
    key = kwargs.get("idempotency_key")
    if key is None:
        return None
    if not isinstance(key, str) or not key.isprintable() or not 0 < len(key) <= _MAX_KEY_LENGTH:
        raise BadRequest(f"idempotency_key: must be 1 to {_MAX_KEY_LENGTH} printable characters")
    return key


if __name__ == "__main__":
    main()
