"""What a resolution may know of the pool: a recorded input, the same for every worker."""

from pydantic import Field

from warmrack_store.records import Record
from warmrack_store.resolution import Memory


class Pool(Record):
    """The devices' budgets in bytes by `node/device`, and the revisions that lie in a cache.

    Without any device nothing is known, and nothing is refused for its size.
    """

    budgets: dict[str, int] = Field(default_factory=dict)
    cached: frozenset[tuple[str, str]] = frozenset()
    """(repository, commit) of complete copies, among those that a request may become."""

    roots: dict[str, str] = Field(default_factory=dict)
    """Tensor roots by `repository@commit` of revisions whose leaves are kept."""

    def fits(self, memory: Memory) -> bool:
        return not self.budgets or memory.total_bytes <= max(self.budgets.values())

    def describe_largest(self) -> str:
        name = max(self.budgets, key=lambda name: (self.budgets[name], name))
        return f"{name} with {self.budgets[name]} bytes"


UNKNOWN = Pool()
