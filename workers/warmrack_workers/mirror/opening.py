"""The mirror of one node, with everything that it answers from."""

from warmrack_store.brokers.doorbell import Doorbell
from warmrack_store.database import Database
from warmrack_store.rights import Rights
from warmrack_store.settings import Settings
from warmrack_store.vault import Vault
from warmrack_workers.fetch.arriving import Arriving
from warmrack_workers.mirror.answers import MirrorAnswers
from warmrack_workers.mirror.blobs import PeerBlobs
from warmrack_workers.mirror.holdings import Holdings
from warmrack_workers.mirror.pull_through import PullThrough
from warmrack_workers.mirror.server import MirrorServer


def open_mirror(
    *,
    settings: Settings,
    database: Database,
    rights: Rights,
    doorbell: Doorbell,
    vault: Vault,
    store: str,
    arriving: Arriving,
) -> MirrorServer:
    """Listening and answering. Raises BadRequest where its address cannot be had."""
    pull = None
    if settings.mirror_pull_through:
        pull = PullThrough(settings=settings, database=database, doorbell=doorbell, vault=vault)
    holdings = Holdings(database, store=store, cache_dir=settings.cache_dir)
    blobs = PeerBlobs(holdings, arriving, node_token=vault.node_token, cache_dir=settings.cache_dir)
    answers = MirrorAnswers(
        holdings,
        rights.check,
        blobs=blobs,
        pull=pull,
    )
    server = MirrorServer(settings.mirror, answers.answer)
    server.start()
    return server
