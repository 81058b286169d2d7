"""What the parts of a control plane share: the database, the broker, the Hub and the vault."""

from dataclasses import dataclass
from importlib import metadata
from typing import Self

from warmrack_store.brokers.celery_doorbell import CeleryDoorbell
from warmrack_store.brokers.doorbell import Doorbell
from warmrack_store.brokers.wakeups import Wakeups
from warmrack_store.database import Database
from warmrack_store.errors import BadRequest
from warmrack_store.hub import HubFacts
from warmrack_store.hub_budget import SharedBudget
from warmrack_store.rights import Belief, Rights
from warmrack_store.settings import Settings
from warmrack_store.vault import Vault, open_vault


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Opened once per process; `close` lets go of connections."""

    settings: Settings
    database: Database
    doorbell: Doorbell
    wakeups: Wakeups
    hub: HubFacts
    vault: Vault
    rights: Rights
    broker_url: str

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Raises BadRequest where the settings name no broker or no cluster key."""
        if settings.broker_url is None or settings.cluster_key_file is None:
            raise BadRequest(
                "WARMRACK_BROKER_URL and WARMRACK_CLUSTER_KEY_FILE are not set",
                hint="Set both, or run `warmrack up`, which brings its own.",
            )
        database = Database(settings.effective_database_url)
        hub = HubFacts(
            settings.hub_endpoint,
            allowed_hosts=settings.hub_endpoints_allowed,
            budget=SharedBudget(database, settings.hub_endpoint),
        )
        vault = open_vault(settings)
        return cls(
            settings=settings,
            database=database,
            doorbell=CeleryDoorbell(settings.broker_url),
            wakeups=Wakeups(settings.broker_url),
            hub=hub,
            vault=vault,
            rights=Rights(database=database, hub=hub, vault=vault, belief=Belief.of(settings)),
            broker_url=settings.broker_url,
        )

    def close(self) -> None:
        self.hub.close()
        self.wakeups.close()
        self.database.close()


def own_version() -> str:
    return metadata.version("warmrack")
