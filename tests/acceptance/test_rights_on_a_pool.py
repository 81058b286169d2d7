"""Rights on what is cached and warm, by the command line and over HTTP, on real processes."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.acceptance.conftest import GATED, PRIVATE, TOKEN
from tests.acceptance.stack import Stack, running_stack, wait_until
from tests.hub.control import Hub, Served
from tests.hub.models import get_model_folder

STRANGER = "hf_stranger_without_rights"
LEAVING = "hf_will_be_revoked"
REVOKED = "acme/revoked"
OPERATOR = "operator-of-the-acceptance-pool"
SCANNED = "hf_token_that_must_be_nowhere"
CODES = [(GATED, "gated", 403), (PRIVATE, "repo-not-found", 404)]
PROMPT = {"prompt": "x", "max_tokens": 2}


@pytest.fixture(scope="module")
def strict(hub: Hub) -> Iterator[Stack]:
    """A pool that believes a right for two seconds, with a gated and a private model warm."""
    hub.grant(STRANGER)
    settings = {
        "WARMRACK_RIGHT_ALLOW_SECONDS": "2",
        "WARMRACK_RIGHT_DENY_SECONDS": "1",
    }
    with running_stack(hub, settings=settings) as stack:
        for model, _, _ in CODES:
            returned, job = stack.run_json("load", model, WARMRACK_HUB_TOKEN=TOKEN)
            assert returned == 0, job
        yield stack


@pytest.mark.slow
@pytest.mark.parametrize("token", [STRANGER, None])
@pytest.mark.parametrize(("model", "code", "status"), CODES)
def test_a_second_user_gets_the_hubs_refusal_on_what_is_cached_and_warm(
    strict: Stack, model: str, code: str, status: int, token: str | None
) -> None:
    settings = {"WARMRACK_HUB_TOKEN": token} if token else {}
    for command in (
        ("prefetch", model),
        ("load", model),
        ("explain", model),
        ("task", model, "generate", json.dumps(PROMPT)),
    ):
        returned, answer = strict.run_json(*command, **settings)
        assert (returned, answer["error"]["code"]) == (3, code), command
    headers = {"X-Hub-Token": token} if token else {}
    body = {"model": model, "payload": PROMPT}
    url = f"{strict.url}/api/v1/tasks/generate"
    answer = httpx.post(url, json=body, headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    for path in ("residents", "snapshots", "jobs", "egress?by=repository"):
        listed = httpx.get(f"{strict.url}/api/v1/{path}", headers=headers, timeout=60)
        names = [row.get("repository", row.get("model")) for row in listed.json()["items"]]
        own = [row for row in listed.json()["items"] if row.get("state") == "failed"]
        assert names.count(model) == sum(row["model"] == model for row in own), path


@pytest.mark.slow
def test_a_revocation_unloads_the_model_within_the_set_time(strict: Stack, hub: Hub) -> None:
    served = Served(folder=get_model_folder("tiny_llama"), private=True, tokens=(LEAVING,))
    hub.add_repository(REVOKED, served)
    returned, job = strict.run_json("load", REVOKED, WARMRACK_HUB_TOKEN=LEAVING)
    assert returned == 0, job
    [resident] = [one for one in _list_residents(strict, LEAVING) if one["model"] == REVOKED]
    hub.revoke(LEAVING, REVOKED)
    wait_until(
        "the resident that nobody may use is gone",
        lambda: resident["id"] not in {one["id"] for one in _list_residents(strict, TOKEN)},
        timeout_seconds=15,
    )
    task = ("task", REVOKED, "generate", json.dumps(PROMPT))
    returned, answer = strict.run_json(*task, WARMRACK_HUB_TOKEN=LEAVING)
    assert (returned, answer["error"]["code"]) == (3, "repo-not-found")
    assert {GATED, PRIVATE} <= {one["model"] for one in _list_residents(strict, TOKEN)}


@pytest.mark.slow
def test_a_token_is_nowhere_after_a_private_load(hub: Hub) -> None:
    hub.grant(SCANNED, PRIVATE)
    with running_stack(hub, settings={"WARMRACK_OPERATOR_TOKEN": OPERATOR}) as stack:
        returned, job = stack.run_json("load", PRIVATE, WARMRACK_HUB_TOKEN=SCANNED)
        assert returned == 0, job
        task = ("task", PRIVATE, "generate", json.dumps(PROMPT))
        assert stack.run_json(*task, WARMRACK_HUB_TOKEN=SCANNED)[0] == 0
        for path in (f"jobs/{job['id']}", f"jobs/{job['id']}/events", f"jobs/{job['id']}/receipt"):
            shown = httpx.get(
                f"{stack.url}/api/v1/{path}", headers={"X-Hub-Token": SCANNED}, timeout=60
            )
            assert PRIVATE in shown.text or "succeeded" in shown.text
            assert SCANNED not in shown.text
        for process in stack.list_processes():
            assert not _mentions(process), process.cmdline()
        files = [file for file in stack.folder.rglob("*") if file.is_file()]
        assert {"warmrack.db", "warmrack.db-wal"} & {file.name for file in files}
        for file in files:
            assert SCANNED.encode() not in file.read_bytes(), file


def _mentions(process: psutil.Process) -> bool:
    folder = Path(f"/proc/{process.pid}")
    return any(SCANNED.encode() in (folder / name).read_bytes() for name in ("cmdline", "environ"))


def _list_residents(stack: Stack, token: str) -> list[dict[str, str]]:
    answer = httpx.get(f"{stack.url}/api/v1/residents", headers={"X-Hub-Token": token}, timeout=60)
    found: list[dict[str, str]] = answer.json()["items"]
    return found
