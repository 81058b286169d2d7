"""What a check found."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from warmrack_store.settings import Settings


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """Works, but not as well as it could, or cannot be looked at from here."""
    WRONG = "wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check's line; `remedy` says how to mend what is not ok."""

    check: str
    verdict: Verdict
    message: str
    remedy: str = ""


Check = Callable[[Settings], Iterator[Finding]]


def ok(check: str, message: str) -> Finding:
    return Finding(check=check, verdict=Verdict.OK, message=message)


def warning(check: str, message: str, remedy: str) -> Finding:
    return Finding(check=check, verdict=Verdict.WARNING, message=message, remedy=remedy)


def wrong(check: str, message: str, remedy: str) -> Finding:
    return Finding(check=check, verdict=Verdict.WRONG, message=message, remedy=remedy)
