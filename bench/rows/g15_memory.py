"""G15: the memory of a machine's control plane and agent while no model is loaded."""

from collections.abc import Iterator

import psutil

from bench.measurements import Chapter, Finding, Goal, Judged, Measurement, Row, Side, Unit
from bench.memory import Memory, maps_library, read_memory
from tests.acceptance.stack import Stack, running_stack
from tests.hub.control import running_hub
from tests.hub.models import get_model_folder

_MODEL = "bench/tiny-llama"
_ROUNDS = 3
_WAIT_SECONDS = 90.0
_LIMIT_BYTES = 200e6
_TORCH = "libtorch"
_LIGHT = ("control plane", "agent")


def measure() -> Iterator[Finding]:
    with (
        running_hub({_MODEL: get_model_folder("tiny_llama")}) as hub,
        running_stack(hub) as stack,
    ):
        fresh = _read(stack)
        rounds = [_read_after_a_load(stack) for _ in range(_ROUNDS)]
        torch = sum(maps_library(_find_pids(stack)[name], _TORCH) for name in _LIGHT)
    yield from _judge(fresh, rounds)
    yield Measurement(
        what="processes of the two that have torch mapped",
        ours=Side(name="with torch", unit=Unit.COUNT, samples=(torch,)),
        goal=Goal(judged=Judged.OURS, limit=0),
    )


def _find_pids(stack: Stack) -> dict[str, int]:
    assert stack.process is not None
    agent = stack.find_pid("node-0")
    (nursery,) = psutil.Process(agent).children()
    return {
        "control plane": stack.find_pid("control"),
        "agent": agent,
        "broker": stack.find_pid("broker"),
        "`up`": stack.process.pid,
        "nursery": nursery.pid,
    }


def _read(stack: Stack) -> dict[str, Memory]:
    return {name: read_memory(pid) for name, pid in _find_pids(stack).items()}


def _read_after_a_load(stack: Stack) -> dict[str, Memory]:
    """With everything imported that only work imports."""
    with stack.client() as client:
        client.wait(client.load(_MODEL).id, timeout_seconds=_WAIT_SECONDS)
        client.run_task(_MODEL, "generate", {"prompt": "Hello", "max_tokens": 2})
        client.unload(_MODEL)
    return _read(stack)


def _judge(fresh: dict[str, Memory], rounds: list[dict[str, Memory]]) -> Iterator[Finding]:
    resident = [sum(one[name].resident_bytes for name in _LIGHT) for one in rounds]
    yield Measurement(
        what="control plane + agent, resident memory after a load, a task and an unload",
        ours=_side("RSS", resident),
        goal=Goal(judged=Judged.OURS, limit=_LIMIT_BYTES),
    )
    proportional = [sum(one[name].proportional_bytes for name in _LIGHT) for one in rounds]
    yield Measurement(
        what="the same, with shared pages divided among their users (PSS)",
        ours=_side("PSS", proportional),
    )
    yield Measurement(
        what="the same as they started (RSS)",
        ours=_side("RSS", [sum(fresh[name].resident_bytes for name in _LIGHT)]),
    )
    for name in fresh:
        yield Measurement(
            what=f"{name} (RSS)", ours=_side(name, [one[name].resident_bytes for one in rounds])
        )


def _side(name: str, samples: list[int]) -> Side:
    return Side(name=name, unit=Unit.BYTES, samples=tuple(samples))


ROW = Row(
    name="G15",
    title="memory without models",
    chapter=Chapter.MEMORY,
    limit_seconds=180,
    measure=measure,
    if_missed="Most of it is imports that both need: redis, SQLAlchemy, Celery, FastAPI, httpx and "
    "huggingface_hub. Next: ask the Hub from a process of its own, or of the agent alone, so that "
    "the control plane imports neither of the last two.",
)
