"""Checks of this machine: versions, devices, the disks of the cache and of the state."""

import fcntl
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from warmrack_daemon.cli.doctor.findings import Check, Finding, ok, warning, wrong
from warmrack_store.device_specs import parse_devices
from warmrack_store.durations import format_size
from warmrack_store.errors import BadRequest
from warmrack_store.settings import Settings

_WORKER_LIBRARIES = ("torch", "transformers", "safetensors", "accelerate", "blake3")
_LOW_BYTES = 20 * 2**30
"""Less than one 7B model in 16 bit needs for its files."""
_LOW_STATE_BYTES = 256 * 2**20
_TRIAL_BYTES = 2**20
"""Written to find out whether a disk still takes anything."""
_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


def check_versions(settings: Settings) -> Iterator[Finding]:
    """Python and the worker's libraries, read from their metadata: importing torch takes seconds."""
    del settings
    yield ok("python", f"{platform.python_version()}, warmrack {version('warmrack')}")
    found = {name: _find_version(name) for name in _WORKER_LIBRARIES}
    missing = [name for name, number in found.items() if number is None]
    if missing:
        remedy = "Needed on nodes only: pip install 'warmrack[worker]'."
        yield warning("libraries", f"not installed: {', '.join(missing)}", remedy)
    else:
        yield ok("libraries", ", ".join(f"{name} {number}" for name, number in found.items()))


def _find_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def check_devices(settings: Settings) -> Iterator[Finding]:
    """The devices that are named, and the driver where CUDA ones are."""
    driver = _NVIDIA_DRIVER.exists()
    remedy = "Set WARMRACK_DEVICES to auto or cpu:0=4GiB,cuda:0."
    try:
        named = parse_devices(settings.devices)
    except BadRequest as error:
        yield wrong("devices", error.message, remedy)
        return
    if named is None:
        yield ok("devices", f"auto: {'CUDA devices' if driver else 'the CPU'}")
    elif not driver and any(one.kind == "cuda" for one in named):
        yield wrong("devices", "cuda is named, but no NVIDIA driver is loaded", remedy)
    else:
        yield ok("devices", settings.devices)


def check_cache(settings: Settings) -> Iterator[Finding]:
    """Room on the cache's disk, and whether it knows symbolic links and locks."""
    named = settings.cache_dir.expanduser().absolute()
    folder = _existing(named)
    if os.path.lexists(named) and not named.is_dir():
        yield wrong("cache", f"{named} is no folder", "Set WARMRACK_CACHE_DIR to a folder.")
        return
    if not os.access(folder, os.W_OK):
        yield wrong("cache", f"{folder} cannot be written", "Set WARMRACK_CACHE_DIR.")
        return
    free = shutil.disk_usage(folder).free
    room = f"{format_size(free)} free at {settings.cache_dir}"
    if free < _LOW_BYTES:
        yield warning("disk", room, "Free space, or move the cache: WARMRACK_CACHE_DIR.")
    else:
        yield ok("disk", room)
    yield _file_system(folder)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above that is there."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _file_system(folder: Path) -> Finding:
    remedy = "Put the cache on a local file system (ext4, xfs, btrfs, zfs)."
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".warmrack-doctor-") as trial:
            target = Path(trial) / "blob"
            target.write_bytes(b"x")
            (Path(trial) / "link").symlink_to("blob")
            with target.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.replace(Path(trial) / "link", Path(trial) / "moved")
    except OSError as error:
        return wrong("file system", f"{folder}: no links or locks: {error}", remedy)
    return ok("file system", "links, locks and renames work")


def check_state(settings: Settings) -> Iterator[Finding]:
    """Whether the disk of the state, with the database and the logs, takes another MiB."""
    folder = _existing(settings.state_dir.expanduser().absolute())
    try:
        with tempfile.TemporaryFile(dir=folder) as trial:
            trial.write(bytes(_TRIAL_BYTES))
            trial.flush()
            os.fsync(trial.fileno())
    except OSError as error:
        remedy = "Free space on its disk, or set WARMRACK_STATE_DIR."
        yield wrong("state", f"{folder} cannot be written: {error}", remedy)
        return
    free = shutil.disk_usage(folder).free
    room = f"{format_size(free)} free at {settings.state_dir}"
    if free < _LOW_STATE_BYTES:
        remedy = "Free space: without any, jobs can neither be taken nor ended."
        yield warning("state", room, remedy)
    else:
        yield ok("state", room)


CHECKS: tuple[Check, ...] = (check_versions, check_devices, check_cache, check_state)
