"""The doorbell: it says that a queue has work, never which; SQL chooses."""

from typing import Protocol


class Doorbell(Protocol):
    """Rings queues. A ring that is lost is made up for by the reconciler."""

    def ring(self, node: str | None) -> None:
        """Wake a node, or with None any worker. Raises StoreUnavailable."""
        ...
