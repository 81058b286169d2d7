"""`warmrack up`: ready, refused twice, restarted parts, a clean end, and life after kill -9."""

import os
import signal
from functools import partial

import httpx
import pytest

import warmrack
from tests.acceptance.conftest import LLAMA
from tests.acceptance.stack import Stack, running_stack, wait_until
from tests.hub.control import Hub


def test_ready_line_names_everything_and_the_end_is_clean(hub: Hub) -> None:
    with running_stack(hub, nodes=2) as stack:
        assert stack.ready["url"] == stack.url
        assert stack.ready["nodes"] == ["node-0", "node-1"]
        assert set(stack.ready["pids"]) == {"control", "broker", "node-0", "node-1"}
        probe = httpx.get(f"{stack.url}/readyz", timeout=30)
        assert probe.json() == {"status": "ok", "intake": "running"}
        with stack.client() as client:
            client.wait(client.load(LLAMA).id, timeout_seconds=90)
        assert stack.stop() == 0
        assert stack.list_processes() == []


@pytest.mark.slow
def test_second_up_on_the_same_state_is_refused(hub: Hub) -> None:
    with running_stack(hub) as stack:
        second = stack.run(*stack.up_command()[len(stack.up_command()) - 9 :])
        assert second.returncode == 3
        assert "already-running" in second.stderr
        with stack.client() as client:
            assert client.healthz()["status"] == "ok"


def test_password_of_the_broker_is_on_no_command_line(hub: Hub) -> None:
    with running_stack(hub) as stack:
        password = stack.ready["broker_url"].split(":")[2].partition("@")[0]
        for process in stack.list_processes():
            assert password not in " ".join(process.cmdline())
        config = stack.state_dir / "valkey" / "valkey.conf"
        assert config.stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_part_that_dies_is_started_again(hub: Hub) -> None:
    with running_stack(hub) as stack:
        for name in ("control", "broker", "node-0"):
            old = stack.find_pid(name)
            os.kill(old, signal.SIGKILL)
            wait_until(f"another {name}", partial(_other, stack, name, old))
        with stack.client() as client:
            wait_until("the API", lambda: _answers(client))
            assert client.wait(client.load(LLAMA).id, timeout_seconds=120).state == "succeeded"


def _answers(client: warmrack.Client) -> bool:
    try:
        return bool(client.healthz()["status"] == "ok")
    except warmrack.errors.Unreachable:
        return False


def _other(stack: Stack, name: str, old: int) -> bool:
    try:
        return stack.find_pid(name) != old
    except AssertionError:
        return False


@pytest.mark.slow
def test_host_outlives_its_agent_and_is_adopted(hub: Hub) -> None:
    with running_stack(hub) as stack, stack.client() as client:
        job = client.wait(client.load(LLAMA).id, timeout_seconds=90)
        host = client.residents()[0].pid
        os.kill(stack.find_pid("node-0"), signal.SIGKILL)
        answer = client.run_task(LLAMA, "generate", {"prompt": "x", "max_tokens": 2})
        assert answer["usage"]["completion_tokens"] == 2
        again = client.wait(client.load(LLAMA).id, timeout_seconds=60)
        assert again.resident == job.resident
        assert client.residents()[0].pid == host


@pytest.mark.slow
def test_up_after_kill_9_of_everything_carries_on_with_what_was_accepted(hub: Hub) -> None:
    with running_stack(hub) as stack:
        with stack.client() as client:
            warm = client.wait(client.load(LLAMA).id, timeout_seconds=90)
            os.kill(stack.find_pid("node-0"), signal.SIGSTOP)
            accepted = client.prefetch(LLAMA, revision="main")
        stack.kill_everything()
        stack.start()
        with stack.client() as client:
            assert client.wait(accepted.id, timeout_seconds=60).state == "succeeded"
            assert client.job(warm.id).state == "succeeded"
            assert client.residents() == ()
            assert client.wait(client.load(LLAMA).id, timeout_seconds=90).state == "succeeded"
