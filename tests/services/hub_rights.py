"""Rights held against a real small Hub, with times that a test can wait for."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.services.stores import Store
from warmrack_store.facts import RefFact
from warmrack_store.hub import HubFacts
from warmrack_store.rights import Belief, Rights
from warmrack_store.vault import Vault

KEY = b"k" * 32


@contextmanager
def opened_rights(store: Store, endpoint: str, **seconds: float) -> Iterator[Rights]:
    hub = HubFacts(endpoint)
    belief = Belief(**seconds)
    try:
        yield Rights(database=store.database, hub=hub, vault=Vault(KEY), belief=belief)
    finally:
        hub.close()


def note_public(rights: Rights, repository: str) -> None:
    """As if the Hub had just said that anybody may read it."""
    rights.note(RefFact(repository=repository, commit="0" * 40, private=False, gated=False), None)
