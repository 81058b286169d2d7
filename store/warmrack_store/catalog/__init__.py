"""The known stand-ins of models: versioned tables of names, each row with its provenance."""

from warmrack_store.catalog.entries import Catalog, Entry, Fp8Names, Origin, Pair, Provenance
from warmrack_store.catalog.shipped import CATALOG_VERSION, list_versions, load_catalog
from warmrack_store.catalog.substitutes import Substitute, list_substitutes

__all__ = [
    "CATALOG_VERSION",
    "Catalog",
    "Entry",
    "Fp8Names",
    "Origin",
    "Pair",
    "Provenance",
    "Substitute",
    "list_substitutes",
    "list_versions",
    "load_catalog",
]
