"""What is printed: data on stdout, talk on stderr."""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

_UNFOLDED_WIDTH = 24
"""Ids and names stay in one piece, so that they can be copied."""


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


def print_styled(text: str, style: str | None = None) -> None:
    """One line, in its style where stdout is a terminal."""
    if style is None or not sys.stdout.isatty():
        print_line(text)
        return
    from rich.console import Console
    from rich.text import Text

    Console(soft_wrap=True).print(Text(clean(text), style))


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    styles: Sequence[str | None] | None = None,
) -> None:
    """Aligned columns of which nothing is cut; on a terminal, long texts are folded to fit, and
    each row has its style."""
    head = [column.upper() for column in columns]
    lines = [["" if cell is None else clean(str(cell)) for cell in row] for row in rows]
    widths = [max(len(line[index]) for line in [head, *lines]) for index in range(len(columns))]
    screen = shutil.get_terminal_size().columns
    if sys.stdout.isatty() and _fits(widths, screen):
        _print_folded(head, lines, screen, styles or [None] * len(lines))
        return
    for line in [head, *lines]:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        write("  ".join(padded).rstrip() + "\n")


def _fits(widths: Sequence[int], screen: int) -> bool:
    """Whether folding the long columns alone is enough: Rich folds the widest ones first."""
    needed = sum(min(width, _UNFOLDED_WIDTH) + 2 for width in widths)
    return needed <= screen


def _print_folded(
    head: Sequence[str],
    lines: Sequence[Sequence[str]],
    screen: int,
    styles: Sequence[str | None],
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in head:
        table.add_column(name, overflow="fold")
    for line, style in zip(lines, styles, strict=True):
        table.add_row(*(Text(cell) for cell in line), style=style)
    Console(width=screen).print(table)


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
