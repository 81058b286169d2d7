"""The policy that places a model where it is expected to be ready first."""

from collections.abc import Iterator

from warmrack_store.placement.views import Expected, Need, NodeView, Rates, Speed, Stage, Step


def expect(need: Need, node: NodeView, rates: Rates) -> Expected:
    """Seconds until the model is warm here: its bytes' way, the host, the queue, an eviction."""
    steps = list_steps(need, node, rates)
    cost_seconds = sum(step.seconds for step in steps)
    if need.memory_bytes is not None and node.warm_resident:
        return Expected(cost_seconds=0.0, reason="the model is warm here")
    return Expected(
        cost_seconds=cost_seconds,
        reason=f"{describe_place(node)}, {node.queued_jobs} jobs queued, "
        f"ready in about {cost_seconds:.1f} s",
    )


def list_steps(need: Need, node: NodeView, rates: Rates) -> tuple[Step, ...]:
    """What has to happen here first; stages that take no time are left out.

    Warm is at once. A load under way is taken as half done. Nobody queues before a warm model.
    """
    if need.memory_bytes is not None and node.warm_resident:
        return ()
    return tuple(step for step in _plan_steps(need, node, rates) if step.seconds > 0)


def _plan_steps(need: Need, node: NodeView, rates: Rates) -> Iterator[Step]:
    loads = need.memory_bytes is not None
    share = 0.5 if loads and node.loading_resident else 1.0
    fetch_seconds = count_missing_bytes(need, node) / rates.hub_bytes_per_second
    yield Step(
        stage=Stage.FETCH, seconds=share * fetch_seconds, measured=Speed.HUB in rates.measured
    )
    if share == 1.0:
        queue_seconds = node.queued_jobs * rates.queued_job_seconds
        yield Step(stage=Stage.QUEUE, seconds=queue_seconds, measured=False)
    if need.memory_bytes is None:
        return
    if share == 1.0 and all(device.free_bytes < need.memory_bytes for device in node.devices):
        yield Step(stage=Stage.EVICT, seconds=rates.evict_seconds, measured=False)
    load_seconds = rates.host_seconds + need.size_bytes / rates.disk_bytes_per_second
    yield Step(
        stage=Stage.LOAD, seconds=share * load_seconds, measured=Speed.HOST in rates.measured
    )
    quantize_seconds = need.quantized_bytes / rates.quantize_bytes_per_second
    yield Step(stage=Stage.QUANTIZE, seconds=share * quantize_seconds, measured=False)


def count_missing_bytes(need: Need, node: NodeView) -> float:
    """Bytes that this node would have to fetch first."""
    if node.has_snapshot:
        return 0.0
    return need.size_bytes * (1.0 - min(1.0, max(0.0, node.cached_fraction)))


def describe_place(node: NodeView) -> str:
    """Where the model is, seen from this node."""
    if node.loading_resident:
        return "it is on its way here already"
    if node.has_snapshot:
        return "its files are on disk here"
    return "its files come from the Hub"
