"""G7: the first token of a resident model through the gateway, against the model alone."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from bench.measurements import Chapter, Finding, Goal, Judged, Measurement, Row, Side, Unit
from bench.peers.in_process import running_model
from bench.streams import stream_client
from tests.acceptance.stack import Stack, running_stack
from tests.hub.control import running_hub
from tests.hub.models import get_model_folder
from warmrack_store.database import Database
from warmrack_store.ledgers import residents
from warmrack_workers.host_spec import HostSpec, read_spec

_MODEL = "bench/smollm2"
_ROUNDS = 48
_WAIT_SECONDS = 90.0
_PROMPT = "The capital of France is"
# More than the first, because a host that answers is at work on the next one already.
_TOKENS = 4
_GATEWAY, _SOCKET, _BARE, _GENERATE = "gateway", "host", "bare", "generate"
Calls = dict[str, Callable[[], tuple[float, str]]]


def measure() -> Iterator[Finding]:
    with ExitStack() as parts:
        hub = parts.enter_context(running_hub({_MODEL: get_model_folder("smollm2")}))
        stack = parts.enter_context(running_stack(hub))
        with stack.client() as client:
            client.wait(client.load(_MODEL).id, timeout_seconds=_WAIT_SECONDS)
        calls = _open_calls(parts, stack, _read_host(stack))
        sides = _interleave(calls)
    yield from _judge(sides)


def _read_host(stack: Stack) -> HostSpec:
    """What the host was told, its socket and threads among it."""
    database = Database(f"sqlite:///{stack.state_dir / 'warmrack.db'}")
    try:
        with database.read() as tx:
            (resident,) = residents.list_live(tx)
    finally:
        database.close()
    assert resident.socket is not None
    return read_spec(Path(resident.socket).with_suffix(".json"))


def _open_calls(parts: ExitStack, stack: Stack, host: HostSpec) -> Calls:
    gateway = parts.enter_context(stream_client(stack.url))
    own = parts.enter_context(stream_client(host.socket_path))
    model = parts.enter_context(running_model(host.snapshot_dir, threads=host.threads))
    payload = {"prompt": _PROMPT, "max_tokens": _TOKENS}
    task = {"model": _MODEL, "payload": payload}

    def through_gateway() -> tuple[float, str]:
        first = gateway.call("/api/v1/tasks/generate", task)
        return first.seconds, first.text

    def through_socket() -> tuple[float, str]:
        first = own.call("/tasks/generate", payload)
        return first.seconds, first.text

    def alone(whole: bool) -> tuple[float, str]:
        first = model.call(_PROMPT, whole=whole)
        return first.seconds, first.text

    return {
        _GATEWAY: through_gateway,
        _SOCKET: through_socket,
        _BARE: lambda: alone(False),
        _GENERATE: lambda: alone(True),
    }


def _interleave(calls: Calls) -> dict[str, Side]:
    """Every round takes each side once, beginning with another one, so that what disturbs the
    machine disturbs all of them. Raises ValueError where they do not answer alike."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    texts = set()
    names = list(calls)
    for number in range(_ROUNDS):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            # In a fixed order whoever came second in the same process was up to 6 ms faster; so
            # a call that is not counted goes before each one that is.
            calls[name]()
            seconds, text = calls[name]()
            samples[name].append(seconds)
            texts.add(text)
    if len(texts) != 1:
        raise ValueError(f"the sides answered differently: {sorted(texts)}")
    return {
        name: Side(name=name, unit=Unit.SECONDS, samples=tuple(seconds))
        for name, seconds in samples.items()
    }


def _judge(sides: dict[str, Side]) -> Iterator[Finding]:
    yield Measurement(
        what="first token, streamed through the gateway",
        ours=sides[_GATEWAY],
        against=_named(sides[_BARE], "the model alone in one process (one forward pass)"),
        goal=Goal(judged=Judged.DIFFERENCE, limit=0.002),
    )
    yield Measurement(
        what="of it, streamed on the host's own socket",
        ours=sides[_SOCKET],
        against=_named(sides[_BARE], "the same"),
    )
    yield Measurement(
        what="the gateway",
        ours=sides[_GATEWAY],
        against=_named(sides[_GENERATE], "the library's `generate` of one token"),
    )


def _named(side: Side, name: str) -> Side:
    return Side(name=name, unit=side.unit, samples=side.samples)


ROW = Row(
    name="G7",
    title="first token of a resident model",
    chapter=Chapter.WARM,
    limit_seconds=240,
    measure=measure,
    if_missed="The host's own socket has the smaller part. The gateway's is Python: HTTP, the "
    "framework and the checks of a request, which take longer behind a forward pass that has "
    "emptied the processor's caches. The hop to the host is a raw relay already. Next: a route for "
    "tasks beside the framework, which knows the bytes of a request that it has checked before.",
)
