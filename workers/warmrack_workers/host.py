"""The program of a model host: one model on one device, from its load to the end of its process."""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from warmrack_store.errors import (
    Defect,
    Integrity,
    ModelCold,
    NotExact,
    OutOfMemory,
    WarmrackError,
)
from warmrack_store.receipts import Receipt
from warmrack_store.rechecks import MemoryCheck
from warmrack_store.states import ResidentState
from warmrack_workers.adapters import attach, gather_all
from warmrack_workers.audit import check_files, find_failure, judge
from warmrack_workers.backends import LoadedModel, get_backend
from warmrack_workers.downstream import Warm
from warmrack_workers.evidence import inspect_files
from warmrack_workers.exhaustion import ran_out
from warmrack_workers.host_spec import HostSpec, read_spec
from warmrack_workers.host_status import ErrorRecord, HostStatus
from warmrack_workers.processes import get_identity
from warmrack_workers.reaudit import audit_again
from warmrack_workers.serial_batcher import SerialBatcher
from warmrack_workers.view import viewed

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")

READ_GRACE_SECONDS = 30.0
"""How long a failed host waits for its agent to read why."""


class Host:
    """The state of one resident. Everything but the load itself runs in the event loop, so a
    check of the state and the change that depends on it are one step."""

    def __init__(self, spec: HostSpec) -> None:
        self.spec = spec
        self.state = ResidentState.STARTING
        self.error: WarmrackError | None = None
        self.receipt: Receipt | None = None
        self.timings: dict[str, float] = {}
        self.in_flight = 0
        self.finished = asyncio.Event()
        self._identity = get_identity(os.getpid())
        self._warm: Warm | None = None
        self._loaded: LoadedModel | None = None
        self._weights_bytes = 0
        self._idle_since = time.monotonic()
        self._moved = asyncio.Event()
        self._failing: asyncio.Task[None] | None = None

    async def bring_up(self) -> None:
        """Load, audit, and be warm, or be gone with the reason."""
        started = time.perf_counter()
        try:
            self._move(ResidentState.LOADING)
            with viewed(self.spec) as seen:
                loaded = await self._timed("load_seconds", lambda: _load(seen))
                self.timings.update(loaded.timings)
                self._move(ResidentState.AUDITING)
                evidence = await self._timed("audit_seconds", lambda: gather_all(seen, loaded))
            self.receipt = judge(evidence)
            if failure := find_failure(evidence, self.receipt):
                raise failure
            self._weights_bytes = count_bytes(loaded.model)
            self._warm, self._loaded = self._ready(loaded), loaded
            self.timings["ready_seconds"] = time.perf_counter() - started
            self._idle_since = time.monotonic()
            self._move(ResidentState.WARM)
        except WarmrackError as error:
            await self._fail(error)
        except Exception as error:
            _log.exception("the load failed", extra={"action": "load-failed"})
            told = f"the load failed with {type(error).__name__}: {error}"
            await self._fail(OutOfMemory(told) if ran_out(error) else Defect(told))

    async def recheck(self) -> MemoryCheck:
        """The audit once more, on the model as it is in memory now, while it serves.

        One that fails ends the host: what it holds is no longer what its receipt says. Raises
        ModelCold where the model is not warm.
        """
        self.admit()
        loaded = self._loaded
        assert loaded is not None, "admitted: the model is warm"
        try:
            report, failure = await asyncio.to_thread(
                audit_again, self.spec, loaded, self._weights_bytes
            )
        finally:
            self.release()
        if failure is not None and self.state is not ResidentState.GONE:
            self._failing = asyncio.create_task(self._fail(failure))
        return report

    def admit(self) -> Warm:
        """Take a place for one task; whoever gets it must `release` it. Raises ModelCold."""
        if self.state is not ResidentState.WARM or self._warm is None:
            raise ModelCold(f"{self.spec.model} is {self.state} here")
        self.in_flight += 1
        return self._warm

    def release(self) -> None:
        self.in_flight -= 1
        self._idle_since = time.monotonic()
        self._end_if_drained()

    def drain(self, idle_seconds: float) -> bool:
        """Take no more work and end after the last; refused while warm and not idle long enough."""
        if self.state is not ResidentState.WARM:
            return self.state is ResidentState.DRAINING
        if idle_seconds > 0 and self.idle_seconds < idle_seconds:
            return False
        self._move(ResidentState.DRAINING)
        self._end_if_drained()
        return True

    @property
    def idle_seconds(self) -> float:
        return 0.0 if self.in_flight else time.monotonic() - self._idle_since

    @property
    def warm(self) -> Warm | None:
        return self._warm

    async def wait_change(self, after: str, wait_seconds: float) -> None:
        """Until the state is another than `after`, at most so long."""
        deadline = time.monotonic() + wait_seconds
        while self.state == after and (left := deadline - time.monotonic()) > 0:
            try:
                await asyncio.wait_for(self._moved.wait(), left)
            except TimeoutError:
                return

    def status(self) -> HostStatus:
        resolution = self.spec.resolution
        cache_bytes = self._warm.batcher.cache_bytes if self._warm else 0
        return HostStatus(
            resident_id=self.spec.resident_id,
            epoch=self.spec.epoch,
            state=self.state,
            pid=self._identity.pid,
            start_time=self._identity.start_time,
            model=self.spec.model,
            repository=resolution.repository,
            commit=resolution.commit,
            device=self.spec.device,
            in_flight=self.in_flight,
            idle_seconds=self.idle_seconds,
            bytes=self._weights_bytes + cache_bytes + resolution.memory.workspace_bytes,
            error=ErrorRecord.model_validate(self.error.to_record()) if self.error else None,
            receipt=self.receipt,
            timings=self.timings,
        )

    def note_read(self) -> None:
        """Somebody has seen the status; a failed host has nothing more to say."""
        if self.state is ResidentState.GONE:
            self.finished.set()

    def _ready(self, loaded: LoadedModel) -> Warm:
        return Warm(
            model=loaded.model,
            tokenizer=loaded.tokenizer,
            batcher=SerialBatcher(loaded.model, threads=self.spec.threads),
            context_tokens=self.spec.context_tokens,
            generates=self.spec.resolution.generates,
        )

    async def _timed(self, name: str, function: Callable[[], _Result]) -> _Result:
        started = time.perf_counter()
        try:
            return await asyncio.to_thread(function)
        finally:
            self.timings[name] = time.perf_counter() - started

    async def _fail(self, error: WarmrackError) -> None:
        self.error = error
        self._move(ResidentState.GONE)
        try:
            await asyncio.wait_for(self.finished.wait(), READ_GRACE_SECONDS)
        except TimeoutError:
            self.finished.set()

    def _end_if_drained(self) -> None:
        if self.state is ResidentState.DRAINING and not self.in_flight:
            self._move(ResidentState.GONE)
            self.finished.set()

    def _move(self, state: ResidentState) -> None:
        self.state = state
        self._moved.set()
        self._moved = asyncio.Event()
        _log.info("%s is %s", self.spec.model, state, extra={"action": f"host-{state}"})


def _load(spec: HostSpec) -> LoadedModel:
    found = check_files(inspect_files(spec))
    if not found.passed:
        raise Integrity(f"{spec.model}: E2: {found.detail}")
    try:
        return attach(spec, get_backend(spec.backend).load(spec))
    except NotExact as error:
        # Changed bytes may break a parser before any tensor of them can be compared.
        again = check_files(inspect_files(spec.model_copy(update={"files": ()})))
        if again.passed:
            raise
        raise Integrity(f"{spec.model}: E2: {again.detail}") from error


def count_bytes(model: Any) -> int:
    """Bytes of all parameters and buffers, and of quantization state; tied ones once."""
    tensors = (*model.parameters(), *model.buffers(), *model.state_dict().values())
    return sum({t.data_ptr(): t.nbytes for t in tensors}.values())


def run(spec_path: Path) -> int:
    """The whole life of a host; returns its exit code. Nothing but this process is needed: it
    outlives the nursery that forked it and the agent that asked for it."""
    import torch
    import transformers

    from warmrack_workers.host_server import serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    spec = read_spec(spec_path)
    torch.set_num_threads(spec.threads)
    transformers.utils.logging.disable_progress_bar()
    host = asyncio.run(serve(spec, spec_path))
    return host.error.exit_code if host.error else 0


def main() -> None:
    """`python -m warmrack_workers.host SPEC`: a host that was not forked."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m warmrack_workers.host SPEC")
    code = run(Path(sys.argv[1]))
    logging.shutdown()
    # A batcher may still be inside a forward pass; the interpreter would wait for it.
    os._exit(code)


if __name__ == "__main__":
    main()
