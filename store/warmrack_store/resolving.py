"""From a request to its pinned resolution: the Hub is asked for what SQL does not hold yet."""

from collections.abc import Mapping

from warmrack_store.database import Database
from warmrack_store.facts import RefFact, RepositoryFacts
from warmrack_store.hub import HubFacts
from warmrack_store.ledgers import resolutions
from warmrack_store.requests import LoadRequest
from warmrack_store.resolution import Resolution
from warmrack_store.resolver import resolve


def resolve_request(
    database: Database,
    hub: HubFacts,
    request: LoadRequest,
    token: str | None,
    *,
    versions: Mapping[str, str],
) -> Resolution:
    """The resolution, made with the caller's own token.

    The name, and the caller's right to it, are asked of the Hub each time; the facts of a commit
    are asked once per cluster.
    """
    ref = hub.find_ref(request.ref(), token)
    return resolve(request, _facts(database, hub, ref, token), ref, versions=versions)


def _facts(database: Database, hub: HubFacts, ref: RefFact, token: str | None) -> RepositoryFacts:
    with database.read() as tx:
        known = resolutions.find_facts(tx, ref.repository, ref.commit)
    if known is not None:
        # Visibility belongs to the repository, not to the commit: it is as it is now.
        return known.model_copy(update={"private": ref.private, "gated": ref.gated})
    facts = hub.get_facts(ref, token)
    with database.write() as tx:
        resolutions.put_facts(tx, facts)
    return facts
