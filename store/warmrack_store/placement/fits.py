"""Each device of the pool held against what a model needs: whether it fits, why, and how soon."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace

from warmrack_store.durations import format_size
from warmrack_store.placement.expected_time import (
    count_missing_bytes,
    describe_place,
    list_steps,
)
from warmrack_store.placement.views import DeviceView, Need, NodeView, Rates, Step
from warmrack_store.states import NodeState


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One device. `expected_seconds` is None where the model cannot become warm there now."""

    node: NodeView
    device: DeviceView
    fits: bool
    """Within the budget, at least after others have gone."""
    fits_now: bool
    holds: bool
    """The model is warm on this very device."""
    reason: str
    missing_bytes: int
    """What the node would fetch first."""
    steps: tuple[Step, ...] = ()
    expected_seconds: float | None = None
    best: bool = False

    @property
    def assumed(self) -> tuple[str, ...]:
        """The stages whose time is assumed, since nothing like it was measured here yet."""
        return tuple(step.stage.value for step in self.steps if not step.measured)


def list_fits(
    need: Need,
    nodes: Iterable[NodeView],
    rates: Rates,
    holding: Collection[tuple[str, str]] = (),
) -> tuple[Fit, ...]:
    """Every device of the pool in order of node; the one to be ready first is `best`.

    `holding` are the (node, device) on which the model is warm. `need` is of a load.
    """
    ordered = sorted(nodes, key=lambda node: node.name)
    fits = [fit for node in ordered for fit in _list_of_node(need, node, rates, holding)]
    ready = [fit for fit in fits if fit.expected_seconds is not None]
    best = min(ready, key=_rank, default=None)
    return tuple(replace(fit, best=True) if fit is best else fit for fit in fits)


def _rank(fit: Fit) -> tuple[float, bool, int, str, str]:
    """Soonest, then without an eviction, then where most stays free."""
    seconds = fit.expected_seconds or 0.0
    return (seconds, not fit.fits_now, -fit.device.free_bytes, fit.node.name, fit.device.name)


def _list_of_node(
    need: Need, node: NodeView, rates: Rates, holding: Collection[tuple[str, str]]
) -> Iterator[Fit]:
    for device in node.devices:
        holds = (node.name, device.name) in holding
        alone = replace(node, devices=(device,), warm_resident=holds)
        yield _fit(need, alone, device, rates, holds=holds)


def _fit(need: Need, node: NodeView, device: DeviceView, rates: Rates, *, holds: bool) -> Fit:
    needed = need.memory_bytes or 0
    fits = holds or device.open_bytes >= needed
    fits_now = holds or device.free_bytes >= needed
    becomes_warm = fits and node.state is NodeState.READY
    steps = list_steps(need, node, rates) if becomes_warm else ()
    return Fit(
        node=node,
        device=device,
        fits=fits,
        fits_now=fits_now,
        holds=holds,
        reason=_explain(needed, node, device, fits=fits, fits_now=fits_now, holds=holds),
        missing_bytes=int(count_missing_bytes(need, node)),
        steps=steps,
        expected_seconds=sum(step.seconds for step in steps) if becomes_warm else None,
    )


def _explain(
    needed: int, node: NodeView, device: DeviceView, *, fits: bool, fits_now: bool, holds: bool
) -> str:
    """The numbers are in the words, so that the line stands alone."""
    room = f"needs {format_size(needed)}, may give {format_size(device.budget_bytes)}"
    if not fits and device.budget_bytes >= needed:
        return f"{room}, but {', '.join(device.pinned)} pinned there leaves less"
    if not fits:
        return f"too small: {room}"
    if node.state is not NodeState.READY:
        return f"the node is {node.state.value}"
    if holds:
        return "it is warm here"
    if fits_now:
        return describe_place(node)
    free = f"{format_size(device.free_bytes)} of {format_size(device.budget_bytes)} free"
    return f"needs {format_size(needed)}, {free}: others must go first; {describe_place(node)}"
