"""Each device held against a need: whether it fits, why, and how soon."""

from typing import Any

from warmrack_store.placement import DeviceView, Need, NodeView, Rates
from warmrack_store.placement.fits import Fit, list_fits
from warmrack_store.placement.views import Speed
from warmrack_store.states import NodeState

GIB = 2**30
NEED = Need(size_bytes=10**9, memory_bytes=2 * GIB)
RATES = Rates(disk_bytes_per_second=1e9, hub_bytes_per_second=1e8, host_seconds=0.5)


def device(name: str = "cpu:0", budget_gib: int = 4, used_gib: int = 0) -> DeviceView:
    return DeviceView(name=name, budget_bytes=budget_gib * GIB, used_bytes=used_gib * GIB)


def node(name: str, *devices: DeviceView, **fields: Any) -> NodeView:
    return NodeView(name=name, devices=devices or (device(),), **fields)


def fits(*nodes: NodeView, holding: tuple[tuple[str, str], ...] = ()) -> dict[str, Fit]:
    found = list_fits(NEED, nodes, RATES, holding)
    return {f"{fit.node.name}/{fit.device.name}": fit for fit in found}


def test_the_seconds_are_the_sum_of_the_stages_by_the_rates() -> None:
    fit = fits(node("a", queued_jobs=2))["a/cpu:0"]
    # 1 GB at 100 MB/s, two jobs of 1 s, then a host and 1 GB at 1 GB/s
    assert [(step.stage.value, step.seconds) for step in fit.steps] == [
        ("fetch", 10.0),
        ("queue", 2.0),
        ("load", 1.5),
    ]
    assert fit.expected_seconds == 13.5


def test_quantizing_at_the_load_takes_its_own_time() -> None:
    need = Need(size_bytes=10**9, memory_bytes=GIB, quantized_bytes=10**9)
    fit = list_fits(need, [node("a", has_snapshot=True)], RATES)[0]
    assert [(step.stage.value, step.seconds) for step in fit.steps] == [
        ("load", 1.5),
        ("quantize", 50.0),
    ]
    assert "quantize" in fit.assumed


def test_half_of_the_files_is_half_of_the_fetch() -> None:
    fit = fits(node("a", cached_fraction=0.5))["a/cpu:0"]
    assert (fit.missing_bytes, fit.steps[0].seconds) == (5 * 10**8, 5.0)


def test_each_device_of_a_node_is_judged_alone() -> None:
    found = fits(
        node("a", device("small", 1), device("full", 4, 3), device("free"), has_snapshot=True)
    )
    assert [found[f"a/{name}"].fits for name in ("small", "full", "free")] == [False, True, True]
    assert not found["a/full"].fits_now
    assert [step.stage.value for step in found["a/full"].steps] == ["evict", "load"]
    assert [step.stage.value for step in found["a/free"].steps] == ["load"]
    assert found["a/free"].best


def test_only_the_device_that_holds_the_model_is_warm() -> None:
    found = fits(node("a", device("x"), device("y"), warm_resident=True), holding=(("a", "x"),))
    assert (found["a/x"].expected_seconds, found["a/x"].best) == (0.0, True)
    assert (found["a/y"].expected_seconds or 0) > 0


def test_the_best_is_the_soonest_then_the_one_without_an_eviction_then_the_emptiest() -> None:
    found = fits(node("a"), node("b", has_snapshot=True), node("c", has_snapshot=True))
    assert [name for name, fit in found.items() if fit.best] == ["b/cpu:0"]
    found = fits(node("a", device("x", 4, 1), device("y", 4, 0)))
    assert [name for name, fit in found.items() if fit.best] == ["a/y"]


def test_a_node_that_is_away_fits_but_has_no_time_and_is_never_the_best() -> None:
    found = fits(node("a", state=NodeState.LOST), node("b"))
    assert (found["a/cpu:0"].fits, found["a/cpu:0"].expected_seconds) == (True, None)
    assert found["a/cpu:0"].reason == "the node is lost"
    assert found["b/cpu:0"].best


def test_where_nothing_fits_nothing_is_best_and_the_reason_has_the_numbers() -> None:
    found = fits(node("a", device(budget_gib=1)))
    assert not found["a/cpu:0"].best
    assert found["a/cpu:0"].reason == "too small: needs 2.0 GiB, may give 1.0 GiB"
    assert fits() == {}


def test_a_stage_counts_as_assumed_until_its_speed_was_measured() -> None:
    measured = Rates(measured=frozenset({Speed.HUB}))
    assert list_fits(NEED, [node("a")], RATES)[0].assumed == ("fetch", "load")
    assert list_fits(NEED, [node("a")], measured)[0].assumed == ("load",)


def test_what_is_pinned_on_a_device_does_not_come_free() -> None:
    held = DeviceView(
        name="cpu:0",
        budget_bytes=4 * GIB,
        used_bytes=3 * GIB,
        pinned_bytes=3 * GIB,
        pinned=("m_pin",),
    )
    fit = fits(node("a", held))["a/cpu:0"]
    assert (fit.fits, fit.expected_seconds) == (False, None)
    assert "m_pin pinned there leaves less" in fit.reason
