"""Celery's side of the doorbell: the only file that names its messages, queues and options."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from celery import Celery
from celery.exceptions import CeleryError
from kombu.exceptions import KombuError, OperationalError

from warmrack_store.errors import StoreUnavailable

log = structlog.get_logger()
BELL = "warmrack.bell"
INTAKE_QUEUE = "warmrack"
RESOLVE_QUEUE = "warmrack.resolve"
INTAKE_TASKS = {"warmrack.load": "load", "warmrack.prefetch": "prefetch", "warmrack.task": "task"}

_PUBLISH_RETRY = {"max_retries": 2, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5}
_INTAKE_PAUSE_SECONDS = 1.0
_INTAKE_VISIBILITY_SECONDS = 30
"""An unacknowledged submit is delivered again after this; its task id keeps it one job."""


def node_queue(node: str) -> str:
    return f"node.{node}"


def make_app(broker_url: str, *, result_backend: str | None = None) -> Celery:
    """A Celery app with our options: JSON only, late acknowledgement, one message at a time."""
    app = Celery("warmrack", broker=broker_url, backend=result_backend, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        task_acks_late=True,
        task_ignore_result=result_backend is None,
        task_create_missing_queues=True,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_transport="warmrack_store.brokers.tolerant_redis:Transport",
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={"socket_timeout": 10, "socket_connect_timeout": 3},
    )
    return app


class CeleryDoorbell:
    """Rings by sending an empty message; who hears it asks SQL."""

    def __init__(self, broker_url: str) -> None:
        self._app = make_app(broker_url)

    def ring(self, node: str | None) -> None:
        """Wake a node, or with None any worker. Raises StoreUnavailable."""
        queue = RESOLVE_QUEUE if node is None else node_queue(node)
        try:
            self._app.send_task(
                BELL, queue=queue, ignore_result=True, retry=True, retry_policy=_PUBLISH_RETRY
            )
        except (OperationalError, KombuError, CeleryError, OSError) as error:
            raise StoreUnavailable("the broker does not answer") from error


def _make_worker(app: Celery, *, queues: str, name: str, threads: int) -> Any:
    """Celery's worker without its command line, which costs 7 MB and takes over the signals.

    Without gossip, mingle and heartbeat: their traffic grows with the square of the nodes, and a
    node's liveness is a row in SQL.
    """
    # Pool threads trace tasks under the default app, whose backend would get the results.
    app.set_default()
    return app.WorkController(
        pool_cls="threads",
        concurrency=threads,
        queues=queues,
        hostname=name,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        loglevel="WARNING",
    )


def run_bell_worker(
    broker_url: str, *, node: str, on_bell: Callable[[], None], threads: int
) -> None:
    """Answer the bells of one node until the process ends. Blocks; signals stay the caller's."""
    app = make_app(broker_url)

    @app.task(name=BELL, shared=False)  # type: ignore[untyped-decorator]
    def bell() -> None:
        on_bell()

    queues = f"{RESOLVE_QUEUE},{node_queue(node)}"
    _make_worker(app, queues=queues, name=f"warmrack@{node}", threads=threads).start()


class Intake:
    """Receives `warmrack.load` and its like from other people's Celery apps."""

    def __init__(
        self,
        broker_url: str,
        *,
        result_backend: str,
        submit: Callable[[str, Mapping[str, Any], str], str],
    ) -> None:
        """`submit(kind, kwargs, task_id)` stores the job and gives its id."""
        self._app = make_app(broker_url, result_backend=result_backend)
        self._app.conf.broker_transport_options = {
            **self._app.conf.broker_transport_options,
            "visibility_timeout": _INTAKE_VISIBILITY_SECONDS,
            "unacked_key": "warmrack.intake.unacked",
            "unacked_index_key": "warmrack.intake.unacked_index",
            "unacked_mutex_key": "warmrack.intake.unacked_mutex",
        }
        for name, kind in INTAKE_TASKS.items():
            self._register(name, kind, submit)
        self._worker: Any = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._consume, name="intake", daemon=True)

    def _register(
        self, name: str, kind: str, submit: Callable[[str, Mapping[str, Any], str], str]
    ) -> None:
        from celery.exceptions import Ignore

        @self._app.task(name=name, bind=True, shared=False)  # type: ignore[untyped-decorator]
        def receive(task: Any, /, **kwargs: Any) -> str:  # `task` is a keyword of theirs, too
            job_id = submit(kind, kwargs, task.request.id)
            if kwargs.get("wait"):
                raise Ignore  # the answer is owed: it is sent when the job has ended
            return job_id

    def start(self) -> None:
        """Consume in a thread of its own; returns at once."""
        self._worker = self._make_worker()
        self._thread.start()

    def is_running(self) -> bool:
        """Whether messages are taken, as far as the broker answers."""
        return self._thread.is_alive() and not self._stop.is_set() and self._worker is not None

    def _make_worker(self) -> Any:
        return _make_worker(
            self._app, queues=INTAKE_QUEUE, name="warmrack-intake@localhost", threads=4
        )

    def _consume(self) -> None:
        """Until `stop`: a worker that ends by itself is followed by another one."""
        while not self._stop.is_set():
            worker = self._worker = self._worker or self._make_worker()
            worker.start()
            self._worker = None
            if not self._stop.is_set():
                log.error("The intake has ended; it starts again.", action="intake-restart")
                self._stop.wait(_INTAKE_PAUSE_SECONDS)

    def answer(self, task_id: str, result: Mapping[str, Any]) -> None:
        """Send the result that a `wait=True` message is owed."""
        self._app.backend.store_result(task_id, dict(result), "SUCCESS")

    def stop(self) -> None:
        self._stop.set()
        if (worker := self._worker) is not None:
            worker.stop(in_sighandler=False)
