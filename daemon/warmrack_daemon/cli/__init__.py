"""The command line: what is typed, what is printed, how it exits."""

from warmrack_daemon.cli.program import main

__all__ = ["main"]
