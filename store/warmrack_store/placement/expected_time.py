"""The policy that places a model where it is expected to be ready first."""

from warmrack_store.placement.views import Expected, Need, NodeView, Rates


def expect(need: Need, node: NodeView, rates: Rates) -> Expected:
    """Seconds until the model is warm here: its bytes' way, the host, the queue, an eviction.

    Warm is at once. A load under way is taken as half done. Nobody queues before a warm model.
    """
    if need.memory_bytes is not None and node.warm_resident:
        return Expected(cost_seconds=0.0, reason="the model is warm here")
    fetch_seconds = _missing_bytes(need, node) / rates.hub_bytes_per_second
    queue_seconds = node.queued_jobs * rates.queued_job_seconds
    if need.memory_bytes is None:
        return _explain(node, fetch_seconds + queue_seconds)
    load_seconds = rates.host_seconds + need.size_bytes / rates.disk_bytes_per_second
    if node.loading_resident:
        return _explain(node, (fetch_seconds + load_seconds) / 2)
    if all(device.free_bytes < need.memory_bytes for device in node.devices):
        load_seconds += rates.evict_seconds
    return _explain(node, fetch_seconds + load_seconds + queue_seconds)


def _missing_bytes(need: Need, node: NodeView) -> float:
    if node.has_snapshot:
        return 0.0
    return need.size_bytes * (1.0 - min(1.0, max(0.0, node.cached_fraction)))


def _explain(node: NodeView, cost_seconds: float) -> Expected:
    if node.loading_resident:
        where = "it is on its way here already"
    elif node.has_snapshot:
        where = "its files are on disk here"
    else:
        where = "its files come from the Hub"
    return Expected(
        cost_seconds=cost_seconds,
        reason=f"{where}, {node.queued_jobs} jobs queued, ready in about {cost_seconds:.1f} s",
    )
