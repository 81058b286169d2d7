"""The catalogs that come with the product, by version."""

from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from pydantic import ValidationError

from warmrack_store.catalog.entries import Catalog
from warmrack_store.catalog.tables import Tables, make_tables
from warmrack_store.errors import BadRequest, Defect

CATALOG_VERSION = "unsloth-2026.10.9"
"""The catalog that resolutions are made with and name."""


def list_versions() -> tuple[str, ...]:
    names = (path.name for path in _folder().iterdir())
    return tuple(sorted(name.removesuffix(".json") for name in names if name.endswith(".json")))


def load_catalog(version: str | None = None) -> Catalog:
    """The shipped catalog of that version, by default the one in use; read once a process.

    Raises BadRequest for a version that is not shipped.
    """
    return _read(version or CATALOG_VERSION)


def load_tables(version: str | None = None) -> Tables:
    """The look-up tables of that catalog, made once a process."""
    return _derive(version or CATALOG_VERSION)


def parse_catalog(text: str, name: str) -> Catalog:
    """The catalog in a file's text; BadRequest, with `name`, where it holds none."""
    try:
        return Catalog.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadRequest(f"{name} is not a catalog: {where}: {first['msg']}") from error


def render_catalog(catalog: Catalog) -> str:
    """The catalog as a file, the same text for the same catalog."""
    return catalog.model_dump_json(indent=1, exclude_none=True) + "\n"


def _folder() -> Traversable:
    return files("warmrack_store.catalog") / "data"


@lru_cache(maxsize=8)
def _read(version: str) -> Catalog:
    known = list_versions()
    if version not in known:
        raise BadRequest(
            f"catalog {version[:100]!r} is not shipped",
            hint=f"Shipped: {', '.join(known)}; for another one give its file.",
        )
    catalog = parse_catalog((_folder() / f"{version}.json").read_text("utf-8"), version)
    if catalog.version != version:
        raise Defect(f"the file of catalog {version} says that it is {catalog.version}")
    return catalog


@lru_cache(maxsize=8)
def _derive(version: str) -> Tables:
    return make_tables(_read(version))
