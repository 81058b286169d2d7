"""Plain data in the text of a Python file, found in its syntax tree and never evaluated."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One row of a dict display; `line` is its key's, counted from 1."""

    key: ast.expr
    value: ast.expr
    line: int


def list_rows(tree: ast.Module, name: str) -> Iterator[Item]:
    """The rows of each top-level `name = {...}`, in order."""
    for statement in tree.body:
        value = statement.value if isinstance(statement, (ast.Assign, ast.AnnAssign)) else None
        if isinstance(value, ast.Dict) and name in _assigned(statement):
            for key, held in zip(value.keys, value.values, strict=True):
                yield Item(key=key or held, value=held, line=(key or held).lineno)


def list_changes(tree: ast.Module, name: str) -> Iterator[int]:
    """Lines of the top-level statements that change the table by code, which nobody here runs."""
    for statement in tree.body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        value = statement.value if isinstance(statement, (ast.Assign, ast.AnnAssign)) else None
        assigns = name in _assigned(statement)
        if (assigns and not isinstance(value, ast.Dict)) or _mutates(statement, name):
            yield statement.lineno


def list_calls(tree: ast.Module, first_argument: str) -> Iterator[tuple[str, str, int]]:
    """Calls `f(NAME, "text", "text")` anywhere in the file: both texts, and the line."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or len(node.args) != 3 or node.keywords:
            continue
        table, *texts = node.args
        first, second = (read_text(text) for text in texts)
        if isinstance(table, ast.Name) and table.id == first_argument and first and second:
            yield first, second, node.lineno


def read_text(node: ast.expr) -> str | None:
    """A string, or a string with `.lower()` behind it; None for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    lowered = (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "lower"
        and not (node.args or node.keywords)
    )
    if not lowered:
        return None
    text = read_text(node.func.value)  # type: ignore[attr-defined]  # an Attribute, see above
    return text.lower() if text is not None else None


def read_texts(node: ast.expr) -> tuple[str, ...] | None:
    """A tuple or list of strings; a single string counts as one; None for anything else."""
    if (text := read_text(node)) is not None:
        return (text,)
    if not isinstance(node, (ast.Tuple, ast.List)):
        return None
    texts = tuple(read_text(item) for item in node.elts)
    found = tuple(text for text in texts if text is not None)
    return found if len(found) == len(texts) else None


def _assigned(statement: ast.stmt) -> set[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    if isinstance(statement, (ast.AnnAssign, ast.AugAssign)):
        targets = [statement.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _mutates(statement: ast.stmt, name: str) -> bool:
    """Whether it stores into `name[...]`, deletes from it, or calls a method of it."""
    for node in ast.walk(statement):
        held = node.value if isinstance(node, (ast.Subscript, ast.Attribute)) else None
        named = isinstance(held, ast.Name) and held.id == name
        stores = isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load)
        updates = isinstance(node, ast.Attribute) and node.attr in _MUTATORS
        if named and (stores or updates):
            return True
    return False


_MUTATORS = frozenset({"update", "pop", "popitem", "setdefault", "clear", "__setitem__"})
