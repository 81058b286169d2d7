"""What a request would become, what that needs, and which devices of the pool could hold it."""

from collections.abc import Sequence
from typing import Any

from warmrack_daemon.services import Services, own_version
from warmrack_daemon.stored_tokens import pick_token
from warmrack_store.errors import Defect
from warmrack_store.ledgers import residents, resolutions, skeletons
from warmrack_store.ledgers.pool import get_rates, list_views
from warmrack_store.named_hubs import check_hub
from warmrack_store.placement.fits import Fit, list_fits
from warmrack_store.placement.views import Need
from warmrack_store.receipts import name_receipt
from warmrack_store.requests import LoadRequest, check_supported
from warmrack_store.resolution import Memory, QuantizationSource, Resolution
from warmrack_store.resolver.memory import estimate_memory
from warmrack_store.resolver.variants import read_headers
from warmrack_store.resolving import resolve_request
from warmrack_store.states import ResidentState

_ESTIMATED = {"asked", "ref_asked", "repository", "commit", "substitution", "precision", "cast"} | {
    "architecture",
    "parameters",
    "warnings",
}


def explain(services: Services, request: LoadRequest, token: str | None) -> dict[str, Any]:
    """The resolution with, for each device, whether it fits and when it would be ready; and what
    is proved so far: the name."""
    resolution = _resolve(services, request, token)
    return {
        **resolution.model_dump(mode="json"),
        **_weigh(services, resolution, resolution.memory),
        "receipt": name_receipt(resolution).model_dump(mode="json"),
    }


def estimate(
    services: Services, request: LoadRequest, token: str | None, *, batch: int = 1
) -> dict[str, Any]:
    """Memory and devices alone, for `batch` sequences at once."""
    resolution = _resolve(services, request, token)
    memory = resolution.memory if batch == 1 else _widen(services, resolution, request, batch)
    shown = resolution.model_dump(mode="json", include=_ESTIMATED)
    return {
        **shown,
        **_weigh(services, resolution, memory),
        "memory": memory.model_dump(mode="json"),
    }


def _resolve(services: Services, request: LoadRequest, token: str | None) -> Resolution:
    check_supported(request)
    check_hub(request, services.settings.hub_endpoint)
    token = pick_token(services, request, token)
    versions = {"warmrack": own_version()}
    return resolve_request(
        services.database,
        services.hub,
        request,
        token,
        versions=versions,
        rights=services.rights,
    )


def _widen(services: Services, resolution: Resolution, request: LoadRequest, batch: int) -> Memory:
    """The memory of the same load with more sequences, from the facts that made the resolution."""
    with services.database.read() as tx:
        facts = resolutions.find_facts(tx, resolution.repository, resolution.commit)
        if facts is None:
            raise Defect(f"the facts of {resolution.repository}@{resolution.commit} are gone")
        skeleton = skeletons.find_skeleton(tx, facts.config or {})
    config, headers = read_headers(facts, resolution)
    memory = estimate_memory(
        config,
        headers,
        request.max_seq_length,
        quantization=resolution.quantization,
        cast=resolution.cast,
        batch=batch,
        skeleton=skeleton,
    )
    attached_bytes = resolution.adapter.memory_bytes if resolution.adapter else 0
    return memory.model_copy(update={"weights_bytes": memory.weights_bytes + attached_bytes})


def _weigh(services: Services, resolution: Resolution, memory: Memory) -> dict[str, Any]:
    """The memory's total, and each device held against it."""
    need = Need(
        size_bytes=resolution.size_bytes,
        memory_bytes=memory.total_bytes,
        quantized_bytes=_count_quantized(resolution),
    )
    with services.database.read() as tx:
        views, rates = list_views(tx, resolution), get_rates(tx)
        holding = {
            (one.node, one.device)
            for one in residents.list_live(tx)
            if one.cache_key == resolution.cache_key
            and one.state is ResidentState.WARM
            and not one.drain_requested
        }
    fits = list_fits(need, views, rates, holding)
    return {
        "size_bytes": need.size_bytes,
        "memory_bytes": memory.total_bytes,
        "download_bytes": _count_download(need, fits),
        "cached_on": [view.name for view in views if view.has_snapshot],
        "devices": [_show(fit) for fit in fits],
        "expected_seconds": next((_seconds(fit) for fit in fits if fit.best), None),
    }


def _count_quantized(resolution: Resolution) -> int:
    """Bytes of the weight files where the load quantizes them."""
    quantization = resolution.quantization
    if quantization is None or quantization.source is not QuantizationSource.ON_THE_FLY:
        return 0
    return sum(file.size for file in resolution.files if file.path in resolution.weights)


def _count_download(need: Need, fits: Sequence[Fit]) -> int:
    """Bytes that have to come from the Hub before the best device has the model."""
    best = next((fit.missing_bytes for fit in fits if fit.best), None)
    missing = (fit.missing_bytes for fit in fits)
    return min(missing, default=need.size_bytes) if best is None else best


def _show(fit: Fit) -> dict[str, Any]:
    return {
        "node": fit.node.name,
        "state": fit.node.state.value,
        "device": fit.device.name,
        "budget_bytes": fit.device.budget_bytes,
        "used_bytes": fit.device.used_bytes,
        "free_bytes": fit.device.free_bytes,
        "fits": fit.fits,
        "fits_now": fit.fits_now,
        "holds": fit.holds,
        "best": fit.best,
        "missing_bytes": fit.missing_bytes,
        "expected_seconds": _seconds(fit),
        "steps": [
            {
                "stage": step.stage.value,
                "seconds": round(step.seconds, 3),
                "measured": step.measured,
            }
            for step in fit.steps
        ],
        "reason": fit.reason,
    }


def _seconds(fit: Fit) -> float | None:
    return None if fit.expected_seconds is None else round(fit.expected_seconds, 3)
