"""What a request would become, and which devices of the pool could hold it."""

from typing import Any

from warmrack_daemon.services import Services, own_version
from warmrack_store.durations import format_size
from warmrack_store.ledgers.pool import get_rates, list_views
from warmrack_store.placement import Need, NodeView, Rates
from warmrack_store.placement.expected_time import expect
from warmrack_store.receipts import name_receipt
from warmrack_store.requests import LoadRequest, check_supported
from warmrack_store.resolution import Resolution
from warmrack_store.resolving import resolve_request


def explain(services: Services, request: LoadRequest, token: str | None) -> dict[str, Any]:
    """The resolution with, for each device, whether it fits and when it would be ready; and what
    is proved so far: the name."""
    check_supported(request)
    resolution = resolve_request(
        services.database, services.hub, request, token, versions={"warmrack": own_version()}
    )
    return {
        **resolution.model_dump(mode="json"),
        **_where(services, resolution),
        "receipt": name_receipt(resolution).model_dump(mode="json"),
    }


def _where(services: Services, resolution: Resolution) -> dict[str, Any]:
    with services.database.read() as tx:
        views, rates = list_views(tx, resolution), get_rates(tx)
    devices = [row for view in views for row in _devices(resolution, view, rates)]
    fitting = [row["expected_seconds"] for row in devices if row["fits"]]
    return {"devices": devices, "expected_seconds": min(fitting, default=None)}


def _devices(resolution: Resolution, view: NodeView, rates: Rates) -> list[dict[str, Any]]:
    needed = resolution.memory.total_bytes
    need = Need(size_bytes=resolution.size_bytes, memory_bytes=needed)
    expected = expect(need, view, rates)
    return [
        {
            "node": view.name,
            "state": view.state.value,
            "device": device.name,
            "budget_bytes": device.budget_bytes,
            "free_bytes": device.free_bytes,
            "fits": device.budget_bytes >= needed,
            "fits_now": device.free_bytes >= needed,
            "expected_seconds": round(expected.cost_seconds, 3),
            "reason": expected.reason
            if device.budget_bytes >= needed
            else f"needs {format_size(needed)}, has {format_size(device.budget_bytes)}",
        }
        for device in view.devices
    ]
