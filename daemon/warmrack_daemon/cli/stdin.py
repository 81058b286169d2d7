"""What is typed into a command, or comes through a pipe."""

import sys

from warmrack_store.errors import BadRequest


def read_stdin() -> str:
    """All of stdin. Raises BadRequest where it is not UTF-8."""
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise BadRequest(
            f"stdin is not UTF-8: {error.reason} at byte {error.start}",
            hint="Convert it first: `iconv -t utf-8`.",
        ) from error
