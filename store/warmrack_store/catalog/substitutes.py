"""What could stand in for a name in another precision, as a catalog declares it."""

from dataclasses import dataclass
from functools import lru_cache

from warmrack_store.catalog.entries import Catalog, Entry, Origin, Provenance
from warmrack_store.catalog.shipped import CATALOG_VERSION, load_catalog

NF4 = "nf4"
FP8 = "fp8"
BF16 = "bf16"
_FOUR_BIT_ENDING = "-bnb-4bit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Substitute:
    """A repository that the catalog declares to be the same model in that precision."""

    repository: str
    precision: str
    """nf4, fp8 or bf16, as the row and the name promise; its facts have the last word."""
    provenance: Provenance
    """Of the catalog; `origin` is the row's place in it."""
    origin: Origin


def list_substitutes(
    name: str, precision: str | None = None, *, version: str | None = None
) -> tuple[Substitute, ...]:
    """The other repositories of every row that holds `name`, of one precision or of all.

    In the catalog's order, without `name` itself and without repeats; empty for a name that the
    catalog does not know. Case does not matter. Each is a candidate, not a promise: the lineage
    gate judges it.
    """
    found = _index(version or CATALOG_VERSION).get(name.lower(), ())
    return tuple(one for one in found if precision is None or one.precision == precision)


@lru_cache(maxsize=8)
def _index(version: str) -> dict[str, tuple[Substitute, ...]]:
    return index_catalog(load_catalog(version))


def index_catalog(catalog: Catalog) -> dict[str, tuple[Substitute, ...]]:
    """Every name of the catalog, in lower case, with what could stand in for it."""
    found: dict[str, dict[str, Substitute]] = {}
    for entry in catalog.entries:
        offered = _list_offers(catalog, entry)
        for name in entry.names():
            known = found.setdefault(name.lower(), {})
            for one in offered:
                known.setdefault(one.repository.lower(), one)
    for pair in catalog.extra_16bit:
        one = _substitute(catalog, pair.stand_in, BF16, pair.origin)
        found.setdefault(pair.name.lower(), {}).setdefault(one.repository.lower(), one)
    return {
        name: tuple(one for key, one in known.items() if key != name)
        for name, known in found.items()
    }


def _list_offers(catalog: Catalog, entry: Entry) -> tuple[Substitute, ...]:
    """A row's repositories with their precision; an override takes the place of what it replaces."""
    replaced = {pair.name.lower(): pair.stand_in for pair in catalog.overrides}
    named = [(entry.four_bit, BF16)]
    if entry.fp8 is not None:
        named += [(entry.fp8.official, FP8), (entry.fp8.block, FP8), (entry.fp8.row, FP8)]
    offers: dict[str, Substitute] = {}
    for name, promised in [*named, *((name, BF16) for name in entry.sixteen)]:
        repository = replaced.get(name.lower(), name)
        four_bit = repository.lower().endswith(_FOUR_BIT_ENDING)
        precision = NF4 if four_bit else promised
        offers.setdefault(
            repository.lower(), _substitute(catalog, repository, precision, entry.origin)
        )
    return tuple(offers.values())


def _substitute(catalog: Catalog, repository: str, precision: str, origin: Origin) -> Substitute:
    return Substitute(
        repository=repository, precision=precision, provenance=catalog.provenance, origin=origin
    )
