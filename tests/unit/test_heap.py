"""Free memory goes back to the system, measured in a process of its own."""

import subprocess
import sys

_CODE = """
import psutil
from warmrack_store import heap
heap.limit_arenas()
me = psutil.Process()
held = [bytes(1000) for _ in range(100_000)]
keep = held[::50]
full = me.memory_info().rss
held = None
heap.give_back()
print(full - me.memory_info().rss)
"""


def test_pages_between_what_is_kept_are_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", _CODE], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 50_000_000
