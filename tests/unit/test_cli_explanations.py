"""The commands explain and estimate, as text and as JSON."""

import subprocess
import sys
from typing import Any

from tests.unit.command_line import Warmrack
from tests.unit.scripted_service import COMMIT, Reply, Service
from tests.unit.test_cli_loads import RESOLUTION
from tests.unit.test_cli_terminal import open_terminal

EXPLAIN, ESTIMATE = "/api/v1/explain", "/api/v1/estimate"
GIB = 2**30
MEMORY = {
    "weights_bytes": GIB,
    "quantization_state_bytes": 2**20,
    "cache_bytes": 2**21,
    "context_tokens": 4096,
    "batch": 4,
    "workspace_bytes": 2**22,
    "load_bytes": 0,
    "notes": ["guessed from the names"],
}


def fit(node: str, **fields: Any) -> dict[str, Any]:
    usual = {
        "node": node,
        "device": "cpu:0",
        "state": "ready",
        "budget_bytes": 4 * GIB,
        "used_bytes": 0,
        "free_bytes": 4 * GIB,
        "fits": True,
        "fits_now": True,
        "expected_seconds": 12.0,
        "steps": [{"stage": "fetch", "seconds": 12.0, "measured": True}],
        "reason": "its files come from the Hub",
    }
    return usual | fields


ESTIMATED = {
    "asked": "org/name",
    "repository": "org/name",
    "commit": COMMIT,
    "precision": "nf4",
    "parameters": 7,
    "size_bytes": 3 * GIB,
    "download_bytes": GIB,
    "cached_on": ["node-1"],
    "memory": MEMORY,
    "memory_bytes": GIB,
    "expected_seconds": 1.0,
    "devices": [
        fit("node-0", best=True, expected_seconds=1.0),
        fit("node-1", fits_now=False, free_bytes=GIB, reason="others must go first"),
        fit("node-2", fits=False, fits_now=False, expected_seconds=None, reason="too small"),
        fit("node-3", state="draining", expected_seconds=None, reason="the node is draining"),
        fit("node-4", steps=[{"stage": "load", "seconds": 12.0, "measured": False}]),
        fit("node-5", holds=True, expected_seconds=0.0, reason="it is warm here"),
    ],
}


def squeeze(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_explain_says_at_a_glance_what_is_asked_served_and_needed(
    service: Service, warmrack: Warmrack
) -> None:
    service.on("POST", EXPLAIN, Reply(body=RESOLUTION))
    lines = squeeze(warmrack("explain", "org/name").out)
    assert lines[:3] == [
        "asked org/name@main",
        f"served org/name@{COMMIT[:12]}, as asked",
        "precision bf16, as stored",
    ]
    assert any(line.startswith("memory 2.0 MiB = weights 1.0 MiB + cache") for line in lines)
    assert "warning the branch moved today" in lines
    assert "~ node-0 cpu:0 1.5 s 1.0 MiB 1.0 GiB on its disk" in lines
    assert "✗ node-1 cpu:0 never 1.0 MiB 1.0 MiB needs 2.0 MiB, has 1.0 MiB" in lines
    assert "other/name lineage-mismatch 8B" in lines


def test_the_trail_is_shown_when_asked_for_and_always_in_json(
    service: Service, warmrack: Warmrack
) -> None:
    service.on("POST", EXPLAIN, Reply(body=RESOLUTION))
    assert "the Hub's ref" not in warmrack("explain", "org/name").out
    shown = squeeze(warmrack("explain", "org/name", "--trail").out)
    assert f"R3 main {COMMIT} the Hub's ref" in shown
    assert warmrack("explain", "org/name", "--json").json["trail"] == RESOLUTION["trail"]


def test_a_substitute_is_named_with_its_reason(service: Service, warmrack: Warmrack) -> None:
    why = {"rule": "R6", "input": "mode auto", "decision": "two", "evidence": "the catalog"}
    body = RESOLUTION | {
        "substitution": "quantized",
        "repository": "org/name-bnb-4bit",
        "precision": "nf4",
        "quantization": {"method": "nf4", "source": "stored", "compute_dtype": "bf16"},
        "trail": [why],
    }
    service.on("POST", EXPLAIN, Reply(body=body))
    lines = squeeze(warmrack("explain", "org/name").out)
    short = COMMIT[:12]
    assert f"served org/name-bnb-4bit@{short}, quantized, chosen from the catalog" in lines
    assert "precision nf4, quantized in the checkpoint" in lines


def test_what_is_here_already_is_not_called_a_download(
    service: Service, warmrack: Warmrack
) -> None:
    here = {"download_bytes": 0, "cached_on": ["node-0"]}
    service.on("POST", EXPLAIN, Reply(body=RESOLUTION | here))
    lines = squeeze(warmrack("explain", "org/name").out)
    assert "files 2.0 KiB, all here already (on node-0)" in lines


def test_a_revision_in_the_name_is_shown_once(service: Service, warmrack: Warmrack) -> None:
    service.on(
        "POST", EXPLAIN, Reply(body=RESOLUTION | {"asked": "org/name@v1", "ref_asked": "v1"})
    )
    assert "asked org/name@v1" in squeeze(warmrack("explain", "org/name@v1").out)


LLAMA = "meta-llama/Llama-3.2-1B-Instruct"
MIRROR = "unsloth/Llama-3.2-1B-Instruct-unsloth-bnb-4bit"
LORA = {
    "repository": "org/lora",
    "commit": COMMIT,
    "ref_asked": None,
    "private": False,
    "gated": False,
    "files": [],
    "weights": [],
    "how": "attached",
    "rank": 4,
    "alpha": 8.0,
    "target_modules": ["q_proj"],
    "modules": 2,
    "parameters": 64,
    "memory_bytes": 256,
    "base_named": LLAMA,
}


def test_unsloth_would_rename_the_base_that_an_adapter_names(
    service: Service, warmrack: Warmrack
) -> None:
    service.on("POST", EXPLAIN, Reply(body=RESOLUTION | {"adapter": LORA}))
    found = warmrack("explain", "org/lora", "--vs", "unsloth", "--json").json["vs_unsloth"]
    assert MIRROR in found["line"]
    other = ("--adapter-base", "org/other")
    found = warmrack("explain", "org/lora", *other, "--vs", "unsloth", "--json").json["vs_unsloth"]
    assert MIRROR not in found["line"]


def test_an_estimate_shows_memory_and_each_device(service: Service, warmrack: Warmrack) -> None:
    service.on("POST", ESTIMATE, Reply(body=ESTIMATED))
    lines = squeeze(warmrack("estimate", "org/name", "--batch", "4").out)
    assert lines[:3] == [
        f"model org/name@{COMMIT[:12]}",
        "precision nf4",
        "files 3.0 GiB, 1.0 GiB to download (all on node-1)",
    ]
    assert lines[3].startswith("memory 1.0 GiB = weights 1.0 GiB + quantization state 1.0 MiB")
    assert "(4 x 4,096 tokens)" in lines[3]
    assert lines[4] == "warning guessed from the names"
    assert lines[7:13] == [
        "★ node-0 cpu:0 1.0 s 4.0 GiB 4.0 GiB its files come from the Hub (best)",
        "~ node-1 cpu:0 12.0 s 1.0 GiB 4.0 GiB others must go first",
        "✗ node-2 cpu:0 never 4.0 GiB 4.0 GiB too small",
        "✓ node-3 cpu:0 not now 4.0 GiB 4.0 GiB the node is draining",
        "✓ node-4 cpu:0 ~12.0 s 4.0 GiB 4.0 GiB its files come from the Hub",
        "✓ node-5 cpu:0 now 4.0 GiB 4.0 GiB it is warm here",
    ]
    assert lines[13] == "~ not measured in this pool yet, assumed: load"
    asked = service.asked("POST", ESTIMATE)[0]
    assert (asked.query, asked.body["model"]) == ({"batch": "4"}, "org/name")


def test_an_estimate_as_json_is_the_services_answer(service: Service, warmrack: Warmrack) -> None:
    service.on("POST", ESTIMATE, Reply(body=ESTIMATED))
    assert warmrack("estimate", "org/name", "--json").json == ESTIMATED


def test_a_pool_that_has_no_device_or_none_that_is_large_enough_says_so(
    service: Service, warmrack: Warmrack
) -> None:
    service.on("POST", ESTIMATE, Reply(body=ESTIMATED | {"devices": []}))
    assert "no device: the pool has none" in warmrack("estimate", "org/name").out
    small = fit("node-0", fits=False, fits_now=False, expected_seconds=None)
    service.on("POST", ESTIMATE, Reply(body=ESTIMATED | {"devices": [small]}))
    assert "no device of the pool can hold it" in warmrack("estimate", "org/name").out


def test_a_load_larger_than_its_cache_is_what_the_memory_is_made_of(
    service: Service, warmrack: Warmrack
) -> None:
    heavy = MEMORY | {"load_bytes": 2**30}
    service.on("POST", ESTIMATE, Reply(body=ESTIMATED | {"memory": heavy}))
    lines = squeeze(warmrack("estimate", "org/name").out)
    assert lines[3].endswith("+ load 1.0 GiB, gone before the cache is there")
    assert lines[3].startswith("memory 2.0 GiB =")


def test_colour_is_for_terminals_only(service: Service, warmrack: Warmrack) -> None:
    service.on("POST", ESTIMATE, Reply(body=ESTIMATED))
    terminal = open_terminal(200)
    command = [sys.executable, "-m", "warmrack_daemon", "estimate", "org/name"]
    with subprocess.Popen(command, stdout=terminal.program, env=terminal.environ):
        shown = terminal.read()
    assert "\x1b[32m" in shown  # green: the best one
    assert "\x1b[31m" in shown  # red: what does not fit
    assert "\x1b" not in warmrack("estimate", "org/name").out
