"""A catalog made from an `unsloth` package, whose table is read as data."""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from warmrack_store.catalog.entries import Catalog, Entry, Fp8Names, Origin, Pair, Provenance
from warmrack_store.catalog.literals import (
    Item,
    list_calls,
    list_changes,
    list_rows,
    read_text,
    read_texts,
)
from warmrack_store.catalog.wheel import PACKAGE, Package, open_package
from warmrack_store.errors import BadRequest

TABLE_FILE = "unsloth/models/mapper.py"
TABLE = "__INT_TO_FLOAT_MAPPER"
EXTRA = "MAP_TO_UNSLOTH_16bit"
OVERRIDE_FILE = "unsloth/models/loader_utils.py"
OVERRIDES = "BAD_MAPPINGS"
_LICENCES = {"Apache License, Version 2.0": "Apache-2.0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A catalog, with one sentence on each piece of the source that is not plain data."""

    catalog: Catalog
    left_out: tuple[str, ...]


def build_catalog(wheel: Path | None = None) -> Built:
    """The catalog of a wheel, or of the `unsloth` that is installed beside this interpreter.

    Nothing of the package is imported or run. Raises BadRequest where there is no such package,
    or where it does not hold the table.
    """
    package = open_package(wheel)
    table_bytes, override_bytes = package.read(TABLE_FILE), package.read(OVERRIDE_FILE)
    table, overrides = _parse(table_bytes, TABLE_FILE), _parse(override_bytes, OVERRIDE_FILE)
    rows = [_read_entry(item) for item in list_rows(table, TABLE)]
    replaced = [_read_override(item) for item in list_rows(overrides, OVERRIDES)]
    entries = tuple(row for row in rows if isinstance(row, Entry))
    if not entries:
        raise BadRequest(f"{TABLE_FILE} holds no table {TABLE} that can be read as data")
    notes = [row for row in (*rows, *replaced) if isinstance(row, str)]
    notes += _note_changes(table, TABLE_FILE, TABLE)
    notes += _note_changes(overrides, OVERRIDE_FILE, OVERRIDES)
    files = {TABLE_FILE: table_bytes, OVERRIDE_FILE: override_bytes}
    catalog = Catalog(
        version=f"{PACKAGE}-{package.version}",
        provenance=_describe(package, files),
        entries=entries,
        extra_16bit=tuple(_read_extra(table)),
        overrides=tuple(row for row in replaced if isinstance(row, Pair)),
    )
    return Built(catalog=catalog, left_out=tuple(notes))


def _describe(package: Package, files: dict[str, bytes]) -> Provenance:
    return Provenance(
        package=PACKAGE,
        version=package.version,
        licence=_find_licence(files.values()),
        files={path: hashlib.sha256(text).hexdigest() for path, text in files.items()},
    )


def _parse(text: bytes, path: str) -> ast.Module:
    try:
        return ast.parse(text, path)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadRequest(f"{path} is not Python that can be parsed: {error}") from error


def _read_entry(item: Item) -> Entry | str:
    """A row of the table, or why it is left out."""
    four_bit = read_text(item.key)
    parts = _read_parts(item.value)
    if four_bit is None or parts is None or not parts["16"]:
        return f"{TABLE_FILE}:{item.line}: a row of {TABLE} is not plain data"
    eight = parts["8"]
    if len(eight) not in (0, 3):
        return f"{TABLE_FILE}:{item.line}: {four_bit} has {len(eight)} FP8 names, not 3"
    fp8 = Fp8Names(official=eight[0], block=eight[1], row=eight[2]) if eight else None
    origin = Origin(file=TABLE_FILE, symbol=TABLE, line=item.line)
    return Entry(four_bit=four_bit, sixteen=parts["16"], fp8=fp8, origin=origin)


def _read_parts(value: ast.expr) -> dict[str, tuple[str, ...]] | None:
    """The names of a row by bits: a tuple of 16-bit names, or a dict of tuples."""
    if not isinstance(value, ast.Dict):
        texts = read_texts(value)
        return None if texts is None else {"16": texts, "8": ()}
    parts: dict[str, tuple[str, ...]] = {"16": (), "8": ()}
    for key, held in zip(value.keys, value.values, strict=True):
        bits, texts = None if key is None else read_text(key), read_texts(held)
        if bits not in parts or texts is None:
            return None
        parts[bits] = texts
    return parts


def _read_override(item: Item) -> Pair | str:
    name, stand_in = read_text(item.key), read_text(item.value)
    if name is None or stand_in is None:
        return f"{OVERRIDE_FILE}:{item.line}: a row of {OVERRIDES} is not plain data"
    origin = Origin(file=OVERRIDE_FILE, symbol=OVERRIDES, line=item.line)
    return Pair(name=name.lower(), stand_in=stand_in, origin=origin)


def _read_extra(table: ast.Module) -> Iterator[Pair]:
    for name, stand_in, line in list_calls(table, EXTRA):
        origin = Origin(file=TABLE_FILE, symbol=EXTRA, line=line)
        yield Pair(name=name, stand_in=stand_in, origin=origin)


def _note_changes(tree: ast.Module, path: str, name: str) -> list[str]:
    lines = list_changes(tree, name)
    return [f"{path}:{line}: {name} is changed by code, which is not run" for line in lines]


def _find_licence(files: Iterable[bytes]) -> str:
    """What all the files state; `unknown` where one states none that is known here."""
    found = {
        next((spdx for text, spdx in _LICENCES.items() if text.encode() in file), "unknown")
        for file in files
    }
    return found.pop() if len(found) == 1 else "unknown"
