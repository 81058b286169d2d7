"""The public Python client of warmrack: two clients, the records and the error tree.

with warmrack.Client() as client:
    job = client.wait(client.load("org/name", keep_alive="10m").id)
    print(client.run_task("org/name", "generate", {"prompt": "Hello"})["text"])
"""

from warmrack.async_client import AsyncClient
from warmrack.client import Client
from warmrack.results import (
    Device,
    Done,
    Egress,
    Estimate,
    Event,
    Explanation,
    Failure,
    Fit,
    Job,
    Node,
    PoolKey,
    Progress,
    Receipt,
    Recheck,
    Resident,
    Resolved,
    Snapshot,
    Token,
)
from warmrack_store import errors
from warmrack_store.errors import Defect, Ended, Refusal, Transient, WarmrackError
from warmrack_store.requests import LoadRequest, Mode, Quantize
from warmrack_store.states import JobKind, JobState, Priority, ResidentState, Tier
from warmrack_store.submissions import Submission

__all__ = [
    "AsyncClient",
    "Client",
    "Defect",
    "Device",
    "Done",
    "Egress",
    "Ended",
    "Estimate",
    "Event",
    "Explanation",
    "Failure",
    "Fit",
    "Job",
    "JobKind",
    "JobState",
    "LoadRequest",
    "Mode",
    "Node",
    "PoolKey",
    "Priority",
    "Progress",
    "Quantize",
    "Receipt",
    "Recheck",
    "Refusal",
    "Resident",
    "ResidentState",
    "Resolved",
    "Snapshot",
    "Submission",
    "Tier",
    "Token",
    "Transient",
    "WarmrackError",
    "errors",
]
