"""Devices as a setting names them, and as the machine has them."""

import os
from pathlib import Path

import pytest

from warmrack_store.errors import BadRequest
from warmrack_workers.devices import Device, cpu, cuda, list_devices

GIB = 2**30


def test_named_devices_have_the_budgets_that_are_named() -> None:
    assert list_devices("cpu:0=4GiB, cpu:1=512MiB,", {}) == (
        Device(name="cpu:0", budget_bytes=4 * GIB),
        Device(name="cpu:1", budget_bytes=GIB // 2),
    )
    assert list_devices("cuda:3=1GiB", {})[0].kind == "cuda"


def test_a_cpu_device_without_a_size_gets_less_than_the_machine_has() -> None:
    [device] = list_devices("cpu:0", {})
    assert device.budget_bytes == cpu.budget_bytes()
    assert 0 < device.budget_bytes < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_cpu_device_of_a_container_gets_no_more_than_the_container(
    tmp_path: Path, name: str
) -> None:
    unlimited = cpu.budget_bytes(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(f"{GIB}\n")
    assert unlimited > GIB > cpu.budget_bytes(tmp_path) > GIB // 2
    for none in ("max\n", f"{2**63 - 4096}\n"):
        (tmp_path / name).write_text(none)
        assert cpu.budget_bytes(tmp_path) == unlimited


def test_auto_is_every_gpu_or_else_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "free_bytes_by_index", lambda: {0: GIB, 1: 2 * GIB})
    assert [device.name for device in list_devices("auto", {})] == ["cuda:0", "cuda:1"]
    monkeypatch.setattr(cuda, "free_bytes_by_index", dict)
    assert [device.name for device in list_devices(" auto ", {})] == ["cpu:0"]


@pytest.mark.parametrize("spec", ["auto", "cuda:0, cuda:1"])
def test_memory_of_this_nodes_own_hosts_stays_in_its_devices_budget(
    monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    monkeypatch.setattr(cuda, "free_bytes_by_index", lambda: {0: GIB, 1: 2 * GIB})
    assert list_devices(spec, {"cuda:0": 3 * GIB, "cpu:0": GIB}) == (
        Device(name="cuda:0", budget_bytes=4 * GIB),
        Device(name="cuda:1", budget_bytes=2 * GIB),
    )


@pytest.mark.parametrize(
    "spec",
    ["", ",", "cpu", "cpu:", "cpu:x", "cpu:-1", "tpu:0", "cpu:0=0", "cpu:0=many", "cpu:0=-1GiB",
     "cpu:0=1GiB,cpu:0=1GiB", "cpu:0=1GiB,cpu:00=1GiB", "cuda:97"],
)  # fmt: skip
def test_a_spec_that_makes_no_sense_is_refused(spec: str) -> None:
    with pytest.raises(BadRequest):
        list_devices(spec, {})


def test_free_memory_is_read_from_the_drivers_tool() -> None:
    assert cuda.parse_free("0, 40536\n1, 12\n\n") == {0: 40536 * 2**20, 1: 12 * 2**20}
    assert cuda.parse_free("") == {}


def test_cores_are_divided_among_cpu_devices_but_never_to_nothing() -> None:
    cores = len(os.sched_getaffinity(0))
    assert cpu.threads_per_device(1) == cores
    assert cpu.threads_per_device(10 * cores) == 1
    assert cpu.threads_per_device(0) == cores
