"""The repository that a request names, as the Hub described it."""

from dataclasses import dataclass

from warmrack_store.errors import Defect
from warmrack_store.facts import RefFact, RepositoryFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the name meant at the Hub `age_seconds` ago, with the facts of that commit."""

    ref: RefFact
    facts: RepositoryFacts
    age_seconds: float = 0.0

    def __post_init__(self) -> None:
        facts, ref = self.facts, self.ref
        if (facts.repository, facts.commit) != (ref.repository, ref.commit):
            raise Defect(
                f"facts of {facts.repository}@{facts.commit} for {ref.repository}@{ref.commit}"
            )
