"""Look-up tables derived from a catalog's rows; their keys are in lower case."""

from dataclasses import dataclass, field
from functools import cached_property

from warmrack_store.catalog.entries import Catalog, Entry

PUBLISHER = "unsloth/"


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What each name of the catalog leads to; later rows have overwritten earlier ones.

    As the mapping of Unsloth 2026.10.9 derives them. No more than look-ups: whether a stand-in
    is the same model is for the lineage gate to say.
    """

    four_bit: dict[str, str] = field(default_factory=dict)
    """16-bit or FP8 name -> 4-bit repository."""
    sixteen_bit: dict[str, str] = field(default_factory=dict)
    """4-bit name -> 16-bit repository."""
    publishers_16bit: dict[str, str] = field(default_factory=dict)
    """16-bit or FP8 name -> the table publisher's own copy of it."""
    fp8_block: dict[str, str] = field(default_factory=dict)
    fp8_row: dict[str, str] = field(default_factory=dict)
    """Any name of a row with FP8 -> its repository in FP8."""
    overrides: dict[str, str] = field(default_factory=dict)

    @cached_property
    def names(self) -> frozenset[str]:
        """Every name that some table knows."""
        known = (self.four_bit, self.sixteen_bit, self.publishers_16bit, self.fp8_block)
        return frozenset().union(*known, self.fp8_row, self.overrides)


def make_tables(catalog: Catalog) -> Tables:
    tables = Tables()
    for entry in catalog.entries:
        _add_fp8(tables, entry)
        _add_rows(tables, entry)
    extra = {pair.name.lower(): pair.stand_in for pair in catalog.extra_16bit}
    tables.publishers_16bit.update(extra)
    tables.overrides.update({pair.name.lower(): pair.stand_in for pair in catalog.overrides})
    return tables


def _add_rows(tables: Tables, entry: Entry) -> None:
    first, *others = entry.sixteen
    tables.four_bit.update({name.lower(): entry.four_bit for name in entry.sixteen})
    tables.sixteen_bit[entry.four_bit.lower()] = first
    if not others or not first.startswith(PUBLISHER):
        return
    quantized = [] if entry.fp8 is None else [entry.fp8.block, entry.fp8.row]
    tables.publishers_16bit.update({name.lower(): first for name in (*others, *quantized)})


def _add_fp8(tables: Tables, entry: Entry) -> None:
    """The FP8 names of a row; its 16-bit names, which come after, win where both say something."""
    fp8 = entry.fp8
    if fp8 is None:
        return
    repositories = (fp8.official, fp8.block, fp8.row)
    tables.four_bit.update({name.lower(): entry.four_bit for name in repositories})
    if fp8.block.startswith(PUBLISHER):
        tables.publishers_16bit.update({name.lower(): fp8.block for name in repositories})
    known = (entry.four_bit, f"{fp8.official}-dynamic", *repositories, *entry.sixteen)
    tables.fp8_block.update({name.lower(): fp8.block for name in known})
    tables.fp8_row.update({name.lower(): fp8.row for name in known})
