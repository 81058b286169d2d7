"""A catalog's records: which names one publisher declares to be the same model."""

import hashlib
from typing import Any

from pydantic import Field

from warmrack_store.records import Record, canonical_json


class Provenance(Record):
    """What a catalog was read from."""

    package: str
    version: str
    licence: str
    """SPDX id that the files themselves state; `unknown` where they state none."""
    files: dict[str, str]
    """Path in the package -> sha256 of the file that was read."""


class Origin(Record):
    """Where in the package one row stands."""

    file: str
    symbol: str
    """The name that the table has there."""
    line: int = Field(ge=1)


class Fp8Names(Record):
    """Repositories that hold the model in FP8."""

    official: str
    """The maker's own."""
    block: str
    """Scaled by blocks."""
    row: str
    """Scaled by rows."""


class Entry(Record):
    """One model: its 4-bit repository, and the repositories that hold it in 16 bits."""

    four_bit: str
    sixteen: tuple[str, ...] = Field(min_length=1)
    """The first is the publisher's own 16-bit repository; later ones may be 4-bit spellings."""
    fp8: Fp8Names | None = None
    origin: Origin

    def names(self) -> tuple[str, ...]:
        """Every name of the row, as spelt there, without repeats."""
        fp8 = () if self.fp8 is None else (self.fp8.official, self.fp8.block, self.fp8.row)
        return tuple(dict.fromkeys((self.four_bit, *self.sixteen, *fp8)))


class Pair(Record):
    """A name that is replaced by another one, whatever the rows say."""

    name: str
    stand_in: str
    origin: Origin


class Catalog(Record):
    """One version of a publisher's table, in the publisher's order: later rows win."""

    version: str
    provenance: Provenance
    entries: tuple[Entry, ...]
    extra_16bit: tuple[Pair, ...] = ()
    """16-bit stand-ins besides the rows."""
    overrides: tuple[Pair, ...] = ()
    """What is served in place of a name that the rows lead to; names in lower case."""

    def content(self) -> dict[str, Any]:
        """The names alone, without where they came from; what two catalogs are compared by."""
        rows = [
            entry.model_dump(mode="json", exclude={"origin"}, exclude_none=True)
            for entry in self.entries
        ]
        return {
            "entries": rows,
            "extra_16bit": {pair.name: pair.stand_in for pair in self.extra_16bit},
            "overrides": {pair.name: pair.stand_in for pair in self.overrides},
        }

    @property
    def digest(self) -> str:
        """sha256 over the canonical JSON of the whole catalog, provenance included."""
        whole = self.model_dump(mode="json", exclude_none=True)
        return hashlib.sha256(canonical_json(whole).encode()).hexdigest()

    def names(self) -> tuple[str, ...]:
        """Every name of the rows, one spelling each (names are compared without case)."""
        found: dict[str, str] = {}
        for entry in self.entries:
            for name in entry.names():
                found.setdefault(name.lower(), name)
        return tuple(found.values())
