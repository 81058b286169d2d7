"""The command `doctor`."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from warmrack_daemon.cli import options
from warmrack_daemon.cli.output import print_json, print_line

if TYPE_CHECKING:
    from warmrack_daemon.cli.doctor.findings import Check, Finding
    from warmrack_store.settings import Settings

_MARKS = {"ok": "✓", "warning": "!", "wrong": "✗"}


def doctor(json: options.Json = False) -> None:
    """Check what warmrack stands on; exits 1 where something is wrong."""
    from warmrack_store.settings import load_settings

    findings = []
    for finding in _examine(load_settings()):
        findings.append(finding)
        if not json:
            _print(finding)
    if json:
        print_json({"items": [asdict(finding) for finding in findings], "next": None})
    if any(finding.verdict == "wrong" for finding in findings):
        raise typer.Exit(1)


def _checks() -> "tuple[Check, ...]":
    from warmrack_daemon.cli.doctor import machine, service, stores

    return (*machine.CHECKS, *stores.CHECKS, *service.CHECKS)


def _examine(settings: "Settings") -> "Iterator[Finding]":
    """Every finding as it comes; a check that breaks is a finding itself."""
    from warmrack_daemon.cli.doctor.findings import wrong

    for check in _checks():
        name = check.__name__.removeprefix("check_").replace("_", " ")
        try:
            yield from check(settings)
        except Exception as error:
            why = f"the check itself failed: {type(error).__name__}: {error}"
            yield wrong(name, why, "Please report this.")


def _print(finding: "Finding") -> None:
    print_line(f"{_MARKS[finding.verdict]} {finding.check}: {finding.message}")
    if finding.remedy:
        print_line(f"  {finding.remedy}")
