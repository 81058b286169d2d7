"""The command line: what is typed, what is printed, how it exits."""

import sys

INTERRUPTED = 130
"""The exit code after Ctrl-C."""


def main() -> None:
    """The entry point of the installed script. Ctrl-C ends it quietly from the first import on."""
    try:
        from warmrack_daemon.cli.program import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)


__all__ = ["INTERRUPTED", "main"]
