"""Who may read which repository: the Hub's own answers, each believed for a set time.

A yes to nobody's token makes a repository public: then everybody may read it, whoever asks.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from warmrack_store.database import Database
from warmrack_store.errors import Gated, Refusal, RepoNotFound, Transient, Unauthorized
from warmrack_store.facts import RefFact
from warmrack_store.hub import HubFacts
from warmrack_store.ledgers import decisions
from warmrack_store.ledgers.decisions import Decision
from warmrack_store.resolution import Resolution
from warmrack_store.settings import Settings
from warmrack_store.vault import Vault

_DENIALS = (Gated, RepoNotFound, Unauthorized)
_ASKERS = 8
_STORED_AGAIN_SECONDS = 5.0
"""A yes that repeats the known one within this time is not stored again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """How long each kind of answer holds, in seconds; a grace adds to it while the Hub is away."""

    allow_seconds: float = 600.0
    deny_seconds: float = 30.0
    public_seconds: float = 3600.0
    grace_seconds: float = 0.0
    public_grace_seconds: float = 7 * 86400.0

    @classmethod
    def of(cls, settings: Settings) -> "Belief":
        return cls(
            allow_seconds=settings.right_allow_seconds,
            deny_seconds=settings.right_deny_seconds,
            public_seconds=settings.right_public_seconds,
            grace_seconds=settings.right_grace_seconds,
            public_grace_seconds=settings.right_public_grace_seconds,
        )

    def left_seconds(self, decision: Decision, *, public: bool, hub_away: bool = False) -> float:
        """How long the decision still holds; not at all where it is negative."""
        if not decision.allows:
            return self.deny_seconds - decision.age_seconds
        holds = self.public_seconds if public else self.allow_seconds
        if hub_away:
            holds += self.public_grace_seconds if public else self.grace_seconds
        return holds - decision.age_seconds


class Rights:
    """The rights of one cluster's callers; safe to share between threads."""

    def __init__(
        self, *, database: Database, hub: HubFacts, vault: Vault, belief: Belief | None = None
    ) -> None:
        self._database = database
        self._hub = hub
        self._vault = vault
        self._belief = belief or Belief()
        self._public = vault.mark(None)

    def check(self, repository: str, token: str | None) -> float:
        """Raise unless the token reads the repository; else for how many seconds that holds.

        Raises Gated, RepoNotFound or Unauthorized as the Hub says it, and Transient where it says
        nothing and no grace is left.
        """
        mark = self._vault.mark(token)
        known = self._find(repository, mark)
        for decision in known:
            left = self.left_seconds(decision)
            if left > 0:
                if decision.allows:
                    return left
                if decision.mark == mark:
                    raise decision.to_error()
        return self._ask(repository, token, known)

    def check_parts(self, resolution: Resolution, token: str | None) -> float:
        """As `check` for each non-public repository that the files come from.

        What was public when it was resolved counts as public: an hour at most, since nobody
        remembers a resolution for longer.
        """
        closed = [part for part in resolution.parts if part.private or part.gated]
        return min((self.check(part.repository, token) for part in closed), default=float("inf"))

    def ask(self, repository: str, token: str | None) -> float:
        """As `check`, but of the Hub itself, whatever is believed."""
        return self._ask(repository, token, ())

    def note(self, ref: RefFact, token: str | None) -> None:
        """The Hub has just let the token pass."""
        shown = token if ref.private or ref.gated else None
        mark = self._vault.mark(shown)
        for known in self._find(ref.repository, mark):
            if known.mark == mark and known.allows and known.age_seconds < _STORED_AGAIN_SECONDS:
                return
        self._store(ref.repository, shown, None)

    def note_refusal(self, repository: str, token: str | None, refusal: Refusal) -> None:
        """The Hub has just refused, by which a name it knows no more is no public one either."""
        if not isinstance(refusal, _DENIALS):
            return
        self._store(repository, token, refusal)
        if token is not None and not isinstance(refusal, Unauthorized):
            with self._database.write() as tx:
                decisions.forget(tx, repository, self._public)

    def list_readable(self, repositories: Iterable[str], token: str | None) -> frozenset[str]:
        """Those among them that the token reads, in lower case.

        Asks the Hub where it is not known; what nobody can say is not readable.
        """
        spelled = {name.lower(): name for name in repositories}
        names = sorted(spelled)
        if not names:
            return frozenset()
        with ThreadPoolExecutor(max_workers=_ASKERS, thread_name_prefix="rights") as pool:
            answers = list(pool.map(lambda name: self._may_read(spelled[name], token), names))
        return frozenset(name for name, yes in zip(names, answers, strict=True) if yes)

    def left_seconds(self, decision: Decision, *, hub_away: bool = False) -> float:
        """How long it still holds: while the Hub answers, or while it does not."""
        public = decision.mark == self._public
        return self._belief.left_seconds(decision, public=public, hub_away=hub_away)

    def _may_read(self, repository: str, token: str | None) -> bool:
        try:
            self.check(repository, token)
        except (Refusal, Transient):
            return False
        return True

    def _find(self, repository: str, mark: str) -> Sequence[Decision]:
        with self._database.read() as tx:
            return decisions.list_decisions(tx, [repository], {mark, self._public})

    def _ask(self, repository: str, token: str | None, known: Sequence[Decision]) -> float:
        try:
            self._hub.check_right(repository, token)
        except Refusal as refusal:
            self.note_refusal(repository, token, refusal)
            raise
        except Transient:
            graces = [self.left_seconds(one, hub_away=True) for one in known if one.allows]
            if max(graces, default=0.0) <= 0:
                raise
            return max(graces)
        self._store(repository, token, None)
        return self._belief.allow_seconds if token else self._belief.public_seconds

    def _store(self, repository: str, token: str | None, refusal: Refusal | None) -> None:
        kept = self._vault.encrypt(token) if token and refusal is None else None
        with self._database.write() as tx:
            decisions.put_decision(
                tx,
                repository=repository,
                mark=self._vault.mark(token),
                refusal=refusal,
                ciphertext=kept,
            )
