"""The commands about names: catalog, and explain by names alone or beside Unsloth."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.command_line import Warmrack
from tests.unit.scripted_service import JOBS, Reply, Service, accept, job
from tests.unit.test_catalog import make_wheel
from tests.unit.test_cli_loads import RESOLUTION
from warmrack_store.catalog import CATALOG_VERSION, load_catalog

EXPLAIN = "/api/v1/explain"
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
KEYS = ["model", "resolved", "revision", "load_in_4bit", "load_in_8bit", "load_in_fp8", "error"]


def test_catalog_show_prints_what_stands_for_a_model_and_who_says_so(warmrack: Warmrack) -> None:
    assert "unsloth/gemma-2b-bnb-4bit" in warmrack("catalog", "show", "Google/Gemma-2b").out
    found = warmrack("catalog", "show", "google/gemma-2b", "--json").json
    first = found["items"][0]
    assert (first["repository"], first["precision"]) == ("unsloth/gemma-2b-bnb-4bit", "nf4")
    assert (first["version"], first["licence"]) == ("2026.10.9", "Apache-2.0")
    assert warmrack("catalog", "show", "me/own", "--json").json["items"] == []
    assert "stands for itself" in warmrack("catalog", "show", "me/own").out


def test_catalog_show_prints_the_whole_catalog_with_its_digest(warmrack: Warmrack) -> None:
    found = warmrack("catalog", "show", "--json").json
    assert (found["version"], found["rows"]) == (CATALOG_VERSION, 268)
    assert found["digest"] == load_catalog().digest
    assert load_catalog().digest in warmrack("catalog", "show").out


def test_catalog_is_built_from_a_wheel_and_compared_as_a_file(
    warmrack: Warmrack, tmp_path: Path
) -> None:
    wheel, file = make_wheel(tmp_path), tmp_path / "built.json"
    told = warmrack("catalog", "build", "--wheel", str(wheel), "--output", str(file), "--json")
    assert (told.code, told.json["version"], told.json["rows"]) == (0, "unsloth-1.2", 3)
    assert len(told.json["left_out"]) == len(told.err.splitlines()) == 3
    assert warmrack("catalog", "build", "--wheel", str(wheel)).out == file.read_text()
    shown = warmrack("catalog", "show", "org/A", "--catalog", str(file), "--json").json
    assert [one["repository"] for one in shown["items"]] == ["unsloth/a-bnb-4bit", "unsloth/A"]
    same = warmrack("catalog", "diff", str(file), str(file))
    assert same.out == "unsloth-1.2 and unsloth-1.2 say the same\n"
    lines = warmrack("catalog", "diff", str(file), CATALOG_VERSION).out.splitlines()
    assert "- entries: unsloth/a-bnb-4bit" in lines
    assert "+ entries: unsloth/gemma-2b-bnb-4bit" in lines
    found = warmrack("catalog", "diff", str(file), CATALOG_VERSION, "--json").json
    assert found["before"]["version"] == "unsloth-1.2"
    assert "entries: unsloth/a-bnb-4bit" in found["removed"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("catalog", "build", "--wheel", "other-1.0-py3-none-any.whl"),
        ("catalog", "build", "--wheel", "unsloth-1.0-py3-none-any.whl"),
        ("catalog", "diff", CATALOG_VERSION, "unsloth-0"),
        ("catalog", "diff", CATALOG_VERSION, __file__),
        ("explain",),
        ("explain", "--names-only"),
        ("explain", "--batch", __file__),
        ("explain", "me/own", "--names-only", "--batch", __file__),
        ("explain", "--names-only", "--batch", "/absent"),
        ("explain", "me/own", "--vs", "other"),
        ("load", "me/own", "--unsloth-args", "load_in_4bit"),
        ("load", "me/own", "--unsloth-args", "model_name='a/b'"),
        ("load", "me/own", "--mode", "fast", "--unsloth-args", ""),
    ],
)
def test_wrong_usage_is_said_before_any_request(
    service: Service, warmrack: Warmrack, arguments: tuple[str, ...]
) -> None:
    outcome = warmrack(*arguments, "--json")
    assert (outcome.code, outcome.json["error"]["code"]) == (2, "bad-request")
    assert service.seen == []


def test_a_batch_is_answered_line_by_line_without_a_service(
    service: Service, warmrack: Warmrack, tmp_path: Path
) -> None:
    batch = tmp_path / "batch.jsonl"
    compat = {"mode": "compat:unsloth"}
    lines = [
        {"model": LLAMA, **compat, "load_in_4bit": False, "revision": "v1"},
        {"model": LLAMA, "mode": "exact", "revision": "v1"},
        {"model": LLAMA},
        {"model": "me/own\u2028x", **compat, "load_in_8bit": True},
    ]
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n\n"
    batch.write_text(text, "utf-8")
    outcome = warmrack("explain", "--names-only", "--batch", str(batch))
    assert (outcome.code, service.seen) == (0, [])
    found: list[dict[str, Any]] = [json.loads(line) for line in outcome.out.splitlines()]
    assert list(found[0])[: len(KEYS)] == KEYS
    assert "silent" in found[0]
    assert ": " not in outcome.out.splitlines()[0]
    assert [one["resolved"] for one in found] == [
        "unsloth/Llama-3.1-8B-Instruct",
        LLAMA,
        LLAMA,
        None,
    ]
    assert [one["revision"] for one in found] == [None, "v1", None, None]
    assert [one["error"] for one in found] == [None, None, None, "RuntimeError"]


def test_the_mode_option_is_for_lines_that_name_none(
    warmrack: Warmrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({"model": LLAMA})))
    outcome = warmrack("explain", "--names-only", "--batch", "-", "--mode", "compat:unsloth")
    assert outcome.json["load_in_4bit"] is True


@pytest.mark.parametrize("line", ["{oops", "[1]", '{"model": 1}', '{"model": "a/b", "colour": 1}'])
def test_a_malformed_line_is_named_by_its_number_and_nothing_is_printed(
    warmrack: Warmrack, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f'{{"model": "a/b"}}\n\n{line}\n'))
    outcome = warmrack("explain", "--names-only", "--batch", "-")
    assert (outcome.code, outcome.out) == (2, "")
    assert "error[bad-request]: line 3: " in outcome.err


def test_vs_unsloth_adds_one_line_that_says_what_and_whether_silently(
    service: Service, warmrack: Warmrack
) -> None:
    service.on("POST", EXPLAIN, Reply(body=RESOLUTION))
    last = warmrack("explain", LLAMA, "--vs", "unsloth").out.splitlines()[-1]
    assert last == (
        "Unsloth 2026.10.9 would load unsloth/Llama-3.1-8B-Instruct-unsloth-bnb-4bit instead of "
        f"{LLAMA}, in 4 bits as stored, silently"
    )
    pinned = warmrack("explain", f"{LLAMA}@v1", "--vs", "unsloth", "--json").json
    assert pinned["commit"] == RESOLUTION["commit"]
    assert pinned["vs_unsloth"]["silent"] is False
    assert ", without the revision v1, with a message" in pinned["vs_unsloth"]["line"]
    assert "vs_unsloth" not in warmrack("explain", LLAMA, "--json").json


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("use_exact_model_name=True", "the same repository, quantized to 4 bits at the load"),
        ("use_exact_model_name=True,load_in_4bit=False", "the same repository, in 16 bits"),
        ("load_in_4bit=False,full_finetuning=True", "unsloth/Llama-3.1-8B-Instruct instead of"),
    ],
)
def test_vs_unsloth_takes_the_arguments_as_unsloth_would(
    service: Service, warmrack: Warmrack, arguments: str, said: str
) -> None:
    service.on("POST", EXPLAIN, Reply(body=RESOLUTION))
    command = ("explain", LLAMA, "--vs", "unsloth", "--unsloth-args", arguments)
    assert said in warmrack(*command, "--json").json["vs_unsloth"]["line"]


@pytest.mark.parametrize("command", ["load", "prefetch"])
def test_old_spellings_become_fields_of_the_request(
    service: Service, warmrack: Warmrack, command: str
) -> None:
    accept(service, job("succeeded"))
    arguments = "load_in_4bit=False,use_exact_model_name=True,revision='v1'"
    assert warmrack(command, LLAMA, "--unsloth-args", arguments).code == 0
    request = service.asked("POST", JOBS)[0].body["request"]
    assert (request["mode"], request["precision"]) == ("exact", "checkpoint")
    assert request["revision"] == "v1"


def test_old_spellings_that_contradict_an_option_are_refused(
    service: Service, warmrack: Warmrack
) -> None:
    command = ("load", LLAMA, "--precision", "bf16", "--unsloth-args", "load_in_4bit=True")
    outcome = warmrack(*command, "--json")
    assert (outcome.code, outcome.json["error"]["code"]) == (2, "contradiction")
    assert "Drop precision" in outcome.json["error"]["hint"]
    assert service.seen == []
