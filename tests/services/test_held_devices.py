"""What the hosts of a former agent still hold, by their rows and their processes."""

import os

from tests.services.stores import Store
from tests.services.test_residents import put
from warmrack_store.states import ResidentState
from warmrack_workers.devices.held import held_bytes
from warmrack_workers.processes import get_identity


def test_only_living_hosts_of_this_node_hold_memory(sqlite: Store) -> None:
    me = get_identity(os.getpid())
    alive = {"pid": me.pid, "start_time": me.start_time}
    put(sqlite.database, "a", device="cuda:0", charged_bytes=1, **alive)
    put(sqlite.database, "b", device="cuda:0", charged_bytes=2, **alive)
    put(sqlite.database, "c", device="cuda:1", charged_bytes=4, **alive)
    put(sqlite.database, "dead", charged_bytes=8, pid=me.pid, start_time=me.start_time + 1)
    put(sqlite.database, "gone", charged_bytes=16, state=ResidentState.GONE, **alive)
    put(sqlite.database, "unborn", charged_bytes=32)
    put(sqlite.database, "else", charged_bytes=64, node="n1", **alive)
    assert held_bytes(sqlite.database, "n0") == {"cuda:0": 3, "cuda:1": 4}
