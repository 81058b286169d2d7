"""What changed between two catalogs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from warmrack_store.catalog.entries import Catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A row that both catalogs have, with the values that differ."""

    table: str
    name: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Rows by `table: name`, each list in the order of its catalog."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[Change, ...]

    @property
    def empty(self) -> bool:
        return not (self.added or self.removed or self.changed)


def diff_catalogs(before: Catalog, after: Catalog) -> Difference:
    """What `after` has that `before` has not, the reverse, and what they say differently.

    Rows are told apart by their 4-bit name; where they came from and their order do not count.
    """
    old, new = _rows(before), _rows(after)
    changed = [
        Change(table=table, name=name, before=old[table, name], after=value)
        for (table, name), value in new.items()
        if (table, name) in old and old[table, name] != value
    ]
    return Difference(
        added=tuple(f"{table}: {name}" for table, name in new if (table, name) not in old),
        removed=tuple(f"{table}: {name}" for table, name in old if (table, name) not in new),
        changed=tuple(changed),
    )


def _rows(catalog: Catalog) -> Mapping[tuple[str, str], Any]:
    content = catalog.content()
    rows: dict[tuple[str, str], Any] = {}
    for row in content["entries"]:
        rows["entries", row["four_bit"]] = {key: row[key] for key in row if key != "four_bit"}
    for table in ("extra_16bit", "overrides"):
        rows |= {(table, name): stand_in for name, stand_in in content[table].items()}
    return rows
