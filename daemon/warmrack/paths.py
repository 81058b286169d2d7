"""The parts of a path that a caller names: an id, a model, a task."""

from urllib.parse import quote

from warmrack_store.errors import BadRequest

_NO_NAMES = frozenset({"", ".", ".."})
"""What a URL takes for another place."""


def quote_name(name: object, what: str, *, several: bool = False) -> str:
    """`name` as one part of a path, or where `several` may be as parts divided by slashes.

    Raises BadRequest for what is no name: another place of the API would be asked.
    """
    if not isinstance(name, str):
        raise BadRequest(f"{what} {name!r:.80} is not text", hint=f"Give the {what} as text.")
    if any(part in _NO_NAMES for part in (name.split("/") if several else [name])):
        raise BadRequest(f"{what} {name!r:.80} names nothing", hint=f"Give the {what} itself.")
    try:
        return quote(name, safe="/" if several else "")
    except UnicodeEncodeError as error:
        raise BadRequest(
            f"{what} {name!r:.80} is not Unicode text", hint="Type it in UTF-8."
        ) from error
