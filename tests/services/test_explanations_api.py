"""Explanations and estimates over HTTP, of facts that SQL holds, in a pool of made-up nodes."""

from typing import Any

import httpx
import pytest

from tests.services.test_api import is_problem, serving
from tests.unit.repositories import make_facts, ref_of, tensor
from tests.unit.test_gguf import repository as make_gguf
from warmrack_daemon.services import Services
from warmrack_store.ledgers import copies, names, nodes, rates, residents, resolutions
from warmrack_store.ledgers.pool import HOST_SECONDS, HUB_RATE
from warmrack_store.refs import ModelRef
from warmrack_store.requests import LoadRequest, Network
from warmrack_store.resolution import Resolution
from warmrack_store.resolving import resolve_request
from warmrack_store.states import NodeState, ResidentState

MIB = 2**20
LAYER = tensor("model.layers.0.mlp.up_proj.weight", (1024, 4096))
FACTS = make_facts({"model.safetensors": (LAYER,)})
ASKED = {"model": "org/name", "network": "offline"}


@pytest.fixture
def pool(services: Services) -> Services:
    """Three nodes: one with a device that is too small, one that is away."""
    with services.database.write() as tx:
        names.put_ref(tx, ModelRef(repository="org/name"), ref_of(FACTS))
        resolutions.put_facts(tx, FACTS)
        _register(tx, "node-0", small=16 * MIB, large=1024 * MIB)
        _register(tx, "node-1", large=1024 * MIB)
        epoch = _register(tx, "node-2", large=1024 * MIB)
        nodes.set_state(tx, "node-2", NodeState.DRAINING, epoch=epoch)
    return services


def _register(tx: Any, name: str, **budgets: int) -> int:
    devices = [{"name": device, "budget_bytes": size} for device, size in budgets.items()]
    return nodes.register(
        tx,
        name,
        url=None,
        mirror_url=None,
        machine=name,
        store=f"store-{name}",
        devices=devices,
        labels={},
        tasks={},
        versions={},
        pid=1,
    )


def resolve(services: Services) -> Resolution:
    request = LoadRequest(model="org/name", network=Network.OFFLINE)
    return resolve_request(services.database, services.hub, request, None, versions={})


def put_copy(services: Services, node: str) -> None:
    resolution = resolve(services)
    with services.database.write() as tx:
        copies.put_copy(
            tx,
            store=f"store-{node}",
            repository=resolution.repository,
            commit=resolution.commit,
            selection=resolution.selection,
            complete=True,
            bytes_done=resolution.size_bytes,
            bytes_total=resolution.size_bytes,
            files=(),
        )


def put_resident(services: Services, node: str, size_bytes: int, **fields: Any) -> None:
    row = {
        "id": f"r-{node}",
        "state": ResidentState.WARM,
        "cache_key": "another",
        "resolution_id": "res",
        "repository": "org/other",
        "commit": "c",
        "precision": "bf16",
        "node": node,
        "node_epoch": 1,
        "device": "large",
        "charged_bytes": size_bytes,
        "pinned": False,
        "keep_alive_seconds": 600.0,
    }
    with services.database.write() as tx:
        residents.insert_resident(tx, row | fields)


def ask(services: Services, path: str, **fields: Any) -> dict[str, Any]:
    with serving(services) as api:
        answer = api.post(f"/api/v1/{path}", json=ASKED | fields)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def by_device(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{row['node']}/{row['device']}": row for row in answer["devices"]}


def test_each_device_says_whether_it_fits_and_why_with_the_numbers(pool: Services) -> None:
    put_copy(pool, "node-1")
    rows = by_device(ask(pool, "estimate"))
    assert sorted(rows) == ["node-0/large", "node-0/small", "node-1/large", "node-2/large"]
    small, best, away = rows["node-0/small"], rows["node-1/large"], rows["node-2/large"]
    assert (small["fits"], small["expected_seconds"]) == (False, None)
    assert "may give 16.0 MiB" in small["reason"]
    assert (best["best"], best["missing_bytes"], best["reason"]) == (
        True,
        0,
        "its files are on disk here",
    )
    assert rows["node-0/large"]["missing_bytes"] > 0
    assert (away["fits"], away["expected_seconds"]) == (True, None)
    assert away["reason"] == "the node is draining"


def test_a_full_device_fits_after_an_eviction_that_takes_its_time(pool: Services) -> None:
    put_resident(pool, "node-0", 1000 * MIB)
    answer = ask(pool, "estimate")
    row = by_device(answer)["node-0/large"]
    assert (row["fits"], row["fits_now"], row["used_bytes"]) == (True, False, 1000 * MIB)
    assert "24.0 MiB of 1.0 GiB free: others must go first" in row["reason"]
    assert "evict" in [step["stage"] for step in row["steps"]]
    assert by_device(answer)["node-1/large"]["best"]


def test_a_warm_model_is_there_at_once(pool: Services) -> None:
    resolution = resolve(pool)
    put_resident(pool, "node-1", 500 * MIB, cache_key=resolution.cache_key)
    answer = ask(pool, "estimate")
    row = by_device(answer)["node-1/large"]
    assert (row["holds"], row["best"], row["expected_seconds"]) == (True, True, 0)
    assert (answer["expected_seconds"], row["reason"]) == (0, "it is warm here")


def test_what_nobody_has_measured_is_marked(pool: Services) -> None:
    def list_measured() -> dict[str, bool]:
        row = by_device(ask(pool, "estimate"))["node-0/large"]
        return {step["stage"]: step["measured"] for step in row["steps"]}

    assert list_measured() == {"fetch": False, "load": False}
    with pool.database.write() as tx:
        rates.record_rate(tx, "node-0", HUB_RATE, 100.0)
        rates.record_rate(tx, "node-0", HOST_SECONDS, 2.0)
    assert list_measured() == {"fetch": True, "load": True}


def test_an_estimate_is_the_explanation_without_its_reasons(pool: Services) -> None:
    explained, estimated = ask(pool, "explain"), ask(pool, "estimate")
    assert explained["trail"]
    assert "trail" not in estimated
    for name in ("commit", "precision", "memory", "devices", "download_bytes", "memory_bytes"):
        assert explained[name] == estimated[name], name
    assert estimated["memory"]["weights_bytes"] == LAYER.size_bytes
    assert estimated["size_bytes"] == estimated["download_bytes"]


def test_more_sequences_at_once_need_more_cache(pool: Services) -> None:
    one, four = ask(pool, "estimate"), ask(pool, "estimate?batch=4")
    assert four["memory"]["batch"] == 4
    assert four["memory"]["cache_bytes"] == 4 * one["memory"]["cache_bytes"]
    assert four["memory_bytes"] > one["memory_bytes"]


def test_more_sequences_of_a_gguf_file_keep_its_weights_in_the_estimate(
    services: Services,
) -> None:
    facts = make_gguf("name-Q2_K.gguf")
    with services.database.write() as tx:
        names.put_ref(tx, ModelRef(repository="org/name"), ref_of(facts))
        resolutions.put_facts(tx, facts)
    one, four = (
        ask(services, path, precision="gguf:Q2_K")["memory"]
        for path in ("estimate", "estimate?batch=4")
    )
    assert four["weights_bytes"] == one["weights_bytes"] > 0
    assert four["cache_bytes"] == 4 * one["cache_bytes"] > 0


def test_a_load_that_quantizes_says_so_in_its_memory_and_its_time(pool: Services) -> None:
    wanted = {"mode": "optimized", "precision": "int8", "quantize": "on_the_fly"}
    answer = ask(pool, "estimate", **wanted)
    assert answer["memory"]["weights_bytes"] == LAYER.size_bytes // 2
    assert answer["memory"]["quantization_state_bytes"] == 4 * 1024
    stages = [step["stage"] for step in by_device(answer)["node-1/large"]["steps"]]
    assert stages == ["fetch", "load", "quantize"]


def test_nothing_is_stored_for_a_question(pool: Services) -> None:
    before = _count(pool)
    ask(pool, "explain")
    ask(pool, "estimate")
    assert _count(pool) == before


def _count(services: Services) -> int:
    with services.database.read() as tx:
        return len(residents.list_live(tx)) + len(copies.list_copies(tx))


def test_a_pool_without_devices_has_no_time_and_says_what_is_missing(services: Services) -> None:
    with services.database.write() as tx:
        names.put_ref(tx, ModelRef(repository="org/name"), ref_of(FACTS))
        resolutions.put_facts(tx, FACTS)
    answer = ask(services, "estimate")
    assert (answer["devices"], answer["expected_seconds"]) == ([], None)
    assert answer["download_bytes"] == answer["size_bytes"]


@pytest.mark.parametrize("path", ["explain", "estimate"])
def test_a_question_that_cannot_be_answered_is_a_problem(pool: Services, path: str) -> None:
    with serving(pool) as api:
        unknown = api.post(f"/api/v1/{path}", json=ASKED | {"model": "org/unknown"})
        assert is_problem(unknown, 422, "offline-miss")
        shape: httpx.Response = api.post(f"/api/v1/{path}", json={"model": "org/name", "x": 1})
        assert is_problem(shape, 400, "bad-request")


def test_a_batch_of_none_is_refused(pool: Services) -> None:
    with serving(pool) as api:
        assert is_problem(api.post("/api/v1/estimate?batch=0", json=ASKED), 400, "bad-request")
