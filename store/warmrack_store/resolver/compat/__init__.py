"""What Unsloth 2026.10.9 would load for the same call: names and flags, no Hub asked."""

from warmrack_store.resolver.compat.answers import CompatAnswer, answer
from warmrack_store.resolver.compat.calls import Api, CompatHost, CompatRequest, ask_compat
from warmrack_store.resolver.compat.loads import Raises
from warmrack_store.resolver.compat.names import NameStep, step_name

__all__ = [
    "Api",
    "CompatAnswer",
    "CompatHost",
    "CompatRequest",
    "NameStep",
    "Raises",
    "answer",
    "ask_compat",
    "step_name",
]
