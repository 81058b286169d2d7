"""How long an idle model stays warm: for a time, or pinned until somebody lets it go."""

from dataclasses import dataclass

from warmrack_store.durations import PINNED, parse_duration

_UNPINNED = "10m"
"""What holds for an unpinned model where the node's own keep-alive is `pinned` as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """`keep_alive_seconds` holds beside a pin too: it is what is left when the pin is taken off."""

    keep_alive_seconds: float
    pinned: bool = False

    def merge(self, other: "Stay") -> "Stay":
        """What serves both: the longer keep-alive, and a pin where either has one."""
        return Stay(
            keep_alive_seconds=max(self.keep_alive_seconds, other.keep_alive_seconds),
            pinned=self.pinned or other.pinned,
        )


def get_stay(keep_alive: str | None, default: str) -> Stay:
    """The stay that a submission asks for; `default` is the node's keep-alive."""
    asked = keep_alive or default
    if asked != PINNED:
        return Stay(keep_alive_seconds=parse_duration(asked))
    left = default if default != PINNED else _UNPINNED
    return Stay(keep_alive_seconds=parse_duration(left), pinned=True)
