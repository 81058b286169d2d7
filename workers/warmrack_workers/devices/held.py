"""What this node's own hosts hold already when its agent starts."""

from collections import Counter

from warmrack_store.database import Database
from warmrack_store.ledgers import residents
from warmrack_workers.processes import ProcessIdentity, is_alive


def held_bytes(database: Database, node: str) -> dict[str, int]:
    """What the hosts that outlived a former agent are charged, by device.

    They are about to be adopted: memory that they hold is no one else's, though it is not free.
    """
    with database.read() as tx:
        left = residents.list_live(tx, node=node)
    held: Counter[str] = Counter()
    for row in left:
        if row.pid is None or row.start_time is None:
            continue
        if is_alive(ProcessIdentity(pid=row.pid, start_time=row.start_time)):
            held[row.device] += row.charged_bytes
    return dict(held)
