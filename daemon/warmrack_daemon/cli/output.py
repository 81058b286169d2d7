"""What is printed: data on stdout, talk on stderr."""

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel


def print_json(value: object) -> None:
    """One JSON document: on one line, indented on a terminal."""
    indent = 2 if sys.stdout.isatty() else None
    write(json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def print_record(record: "BaseModel") -> None:
    """The record as the service sent it."""
    print_json(to_json(record))


def to_json(record: "BaseModel") -> dict[str, Any]:
    return record.model_dump(mode="json", exclude_unset=True)


def print_list(records: "Sequence[BaseModel]") -> None:
    """The records in the shape of the service's own lists."""
    print_json({"items": [to_json(record) for record in records], "next": None})


def print_line(text: str) -> None:
    write(clean(text) + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table that fits the terminal; piped, aligned columns of which nothing is cut."""
    cells = [["" if cell is None else clean(str(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_rich(columns, cells)
        return
    lines = [[column.upper() for column in columns], *cells]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        write("  ".join(padded).rstrip() + "\n")


def _print_rich(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column.upper(), overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def say(label: str, text: str = "", *, style: str | None = None) -> None:
    """One line on stderr, the label in its style where stderr is a terminal."""
    rest = f" {clean(text)}" if text else ""
    if style is None or not sys.stderr.isatty():
        sys.stderr.write(f"{clean(label)}{rest}\n")
        return
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True, soft_wrap=True).print(Text.assemble((clean(label), style), rest))


def write(text: str) -> None:
    """Text to stdout, at once; a reader that has gone away ends the command quietly."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None


def clean(text: str) -> str:
    """Without control characters, which could play tricks on a terminal."""
    return "".join(char if char.isprintable() else " " for char in text)
