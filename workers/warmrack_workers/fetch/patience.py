"""How often and after how long a source is asked again; pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Tries are those in a row that brought no byte."""

    tries: int = 5
    first_seconds: float = 0.5
    longest_seconds: float = 60.0
    """A source that asks for a longer wait gives the job back to its queue instead."""

    def find_delay_seconds(
        self, tries: int, retry_after_seconds: float | None, jitter: float
    ) -> float | None:
        """Seconds to wait after the failed try number `tries` (from 1); None: give up.

        `jitter` in [0, 1) spreads clients that failed together over the upper half of the delay.
        """
        asked = retry_after_seconds or 0.0
        if tries >= self.tries or asked > self.longest_seconds:
            return None
        backoff = min(self.first_seconds * 2.0 ** (tries - 1), self.longest_seconds)
        return max(asked, backoff * (0.5 + jitter / 2))
