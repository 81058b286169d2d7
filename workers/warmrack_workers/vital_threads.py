"""The threads without which an agent is no agent: where one dies, its process ends.

Whoever started the agent starts it again; its hosts live on and are adopted.
"""

import os
import threading

_VITAL = frozenset({"residency", "heart"})


def end_with_vital_threads() -> None:
    """Let an error that ends a vital thread end this process, with exit code 1."""
    threading.excepthook = _note_death


def _note_death(died: threading.ExceptHookArgs) -> None:
    try:
        threading.__excepthook__(died)
    finally:  # the traceback may be what the full disk had no room for
        if died.thread is not None and died.thread.name in _VITAL:
            os._exit(1)
