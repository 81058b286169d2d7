"""compat:unsloth: the observed rows, the rules one by one, and the laws that hold for any call."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmrack_store.catalog import load_catalog
from warmrack_store.errors import BadRequest
from warmrack_store.records import parse_record
from warmrack_store.requests import LoadRequest, Mode
from warmrack_store.resolver.compat import (
    CompatAnswer,
    CompatHost,
    CompatRequest,
    answer,
    ask_compat,
)

ROWS = Path(__file__).parents[1] / "data" / "compat_unsloth.jsonl"
"""Observed with Unsloth 2026.10.9: at least one row of each combination of flags and outcomes."""
NAMES = load_catalog().names()
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
FP8_BLOCK = "unsloth/Llama-3.1-8B-Instruct-FP8-Block"
SIXTEEN = {"load_in_4bit": False}
FP8 = {"load_in_4bit": False, "load_in_fp8": True}


def ask(model: str, **fields: Any) -> CompatAnswer:
    return answer(parse_record(CompatRequest, {"model": model, "mode": "compat:unsloth", **fields}))


def flags(found: CompatAnswer) -> tuple[bool, bool, bool]:
    return found.load_in_4bit, found.load_in_8bit, found.load_in_fp8


def test_every_observed_row_is_answered_as_observed() -> None:
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()]
    wrong = []
    for row in rows:
        found = answer(parse_record(CompatRequest, row["request"])).model_dump(mode="json")
        if any(found[key] != value for key, value in row["expect"].items()):
            wrong.append((row, found))
    assert len(rows) > 200
    assert wrong == []


def test_four_bits_are_the_default_and_move_the_name_without_a_word() -> None:
    found = ask(LLAMA)
    assert found.resolved == "unsloth/Llama-3.1-8B-Instruct-unsloth-bnb-4bit"
    assert flags(found) == (True, False, False)
    assert found.silent


def test_sixteen_bits_move_the_name_to_the_publishers_copy() -> None:
    assert ask(LLAMA, **SIXTEEN).resolved == "unsloth/Llama-3.1-8B-Instruct"
    assert ask("unsloth/Llama-3.1-8B-Instruct-bnb-4bit", **SIXTEEN).resolved == (
        "unsloth/Llama-3.1-8B-Instruct"
    )


def test_a_4_bit_name_stays_itself_unless_it_is_overridden() -> None:
    stays = "unsloth/Llama-3.1-8B-Instruct-bnb-4bit"
    assert ask(stays).resolved == stays
    assert ask("unsloth/Qwen3-30B-A3B-bnb-4bit").resolved == "unsloth/Qwen3-30B-A3B"


def test_a_revision_is_dropped_with_a_warning_where_the_name_moves_and_kept_else() -> None:
    moved = ask(LLAMA, revision="v1")
    assert (moved.revision, moved.silent) == (None, False)
    same = ask("me/own", revision="v1")
    assert (same.resolved, same.revision, same.silent) == ("me/own", "v1", False)
    spelled = ask("UNSLOTH/llama-3.1-8b-instruct", revision="v1", **SIXTEEN)
    assert spelled.revision == "v1"


@pytest.mark.parametrize(
    ("fp8", "fbgemm", "ending"),
    [
        (True, False, "-FP8-Block"),
        (True, True, "-FP8-Dynamic"),
        ("block", False, "-FP8-Block"),
        ("block", True, "-FP8-Block"),
    ],
)
def test_fp8_is_by_rows_only_with_fbgemm_and_unless_blocks_are_named(
    fp8: bool | str, fbgemm: bool, ending: str
) -> None:
    found = ask(LLAMA, load_in_4bit=False, load_in_fp8=fp8, host={"fbgemm": fbgemm})
    assert found.resolved == f"unsloth/Llama-3.1-8B-Instruct{ending}"
    assert not found.load_in_fp8


def test_fp8_on_the_fly_needs_an_h100_and_no_full_finetuning() -> None:
    assert ask("me/own", **FP8).error == "ValueError"
    made = ask("me/own", **FP8, host={"h100": True})
    assert (made.error, made.resolved, made.load_in_fp8) == (None, "me/own", True)
    assert ask("me/own", **FP8, host={"h100": True}, full_finetuning=True).error == "ValueError"


@pytest.mark.parametrize("name", ["me/own-FP8", "me/gpt-oss-7b", "me/own-bnb-4bit"])
def test_what_is_quantized_by_its_name_needs_no_h100(name: str) -> None:
    assert ask(name, **FP8).error is None
    assert ask("me/lora", **FP8, adapter_base=name, api="FastModel").error is None


def test_fast_language_model_forgets_fp8_once_the_name_has_moved_and_fast_model_raises() -> None:
    found = ask(LLAMA, load_in_fp8=True)
    assert (found.error, found.resolved, flags(found)) == (None, FP8_BLOCK, (True, False, False))
    assert ask(LLAMA, load_in_fp8=True, api="FastModel").error == "RuntimeError"
    assert ask("me/own", load_in_fp8=True).error == "RuntimeError"


def test_an_unknown_architecture_starts_over_and_loses_the_fp8_repository() -> None:
    assert ask(LLAMA, **FP8).resolved == FP8_BLOCK
    again = ask(LLAMA, **FP8, native_arch=False)
    assert (again.resolved, again.load_in_fp8) == ("unsloth/Llama-3.1-8B-Instruct", False)


def test_full_finetuning_with_a_quantized_flag_clears_every_flag() -> None:
    assert flags(ask("me/own", full_finetuning=True, load_in_16bit=True)) == (False, False, False)
    kept = ask("me/own-fp8", full_finetuning=True, **FP8)
    assert flags(kept) == (False, False, True)


def test_two_precisions_at_once_are_a_runtime_error() -> None:
    for other in ("load_in_8bit", "load_in_16bit"):
        assert ask("me/own", **{other: True}).error == "RuntimeError"
    assert ask("me/own", **{"load_in_8bit": True, **SIXTEEN}).error is None


def test_a_quantization_config_decides_and_carries_the_bits_itself() -> None:
    found = ask(LLAMA, quantization_config_4bit=True, load_in_8bit=True, **SIXTEEN)
    assert found.error is None
    assert found.resolved == "unsloth/Llama-3.1-8B-Instruct-unsloth-bnb-4bit"
    assert flags(found) == (False, False, False)


def test_without_bitsandbytes_bits_and_config_are_dropped() -> None:
    host = {"bitsandbytes": False}
    found = ask(LLAMA, host=host, quantization_config_4bit=True)
    assert (found.resolved, flags(found)) == (
        "unsloth/Llama-3.1-8B-Instruct",
        (False, False, False),
    )


def test_endings_count_in_exact_mode_too() -> None:
    exact = {"use_exact_model_name": True}
    host = {"prequantized": False}
    assert ask("me/a-unsloth-bnb-4bit", **exact, host=host).resolved == "me/a"
    assert ask("me/a-BNB-4bit", **exact, host=host, revision="v1").revision is None
    half = ask("me/a-BF16", **exact)
    assert (half.resolved, flags(half)) == ("me/a-BF16", (False, False, False))
    # The ending settles a conflict where it is read before the check, and not where after.
    assert ask("me/a-bf16", load_in_16bit=True).error is None
    assert ask("me/a-bf16", load_in_16bit=True, api="FastModel").error == "RuntimeError"


def test_a_16_bit_name_that_turns_quantization_off_is_announced() -> None:
    found = ask("unsloth/Kimi-K2-Instruct")
    assert found.resolved == "unsloth/Kimi-K2-Instruct-BF16"
    assert not found.silent
    assert not found.load_in_4bit


def test_an_adapters_base_is_renamed_without_a_pin_and_without_a_word() -> None:
    found = ask("me/lora", adapter_base=LLAMA, revision="v1", **SIXTEEN)
    assert (found.model, found.resolved) == ("me/lora", "unsloth/Llama-3.1-8B-Instruct")
    assert (found.revision, found.silent) == (None, True)
    fp8 = ask("me/lora", adapter_base=LLAMA, **FP8)
    assert (fp8.resolved, fp8.load_in_fp8) == (FP8_BLOCK, True)
    plain = ask("me/lora", adapter_base=LLAMA, **FP8, api="FastModel")
    assert plain.resolved == "unsloth/Llama-3.1-8B-Instruct"
    exact = ask("me/lora", adapter_base=LLAMA, use_exact_model_name=True)
    assert (exact.resolved, exact.silent) == (LLAMA, False)


def test_a_name_that_no_table_knows_would_make_unsloth_ask_the_web() -> None:
    assert ask("me/own").would_probe_network
    assert not ask("me/own", host={"offline": True}).would_probe_network
    assert not ask("me/own", use_exact_model_name=True).would_probe_network
    assert not ask("./own").would_probe_network
    assert not ask(LLAMA).would_probe_network
    assert not ask("me/own-fp8", **FP8, host={"vllm": "0.12.0"}).would_probe_network
    assert ask("me/own-fp8", **FP8, host={"vllm": "0.11.2"}).would_probe_network


@pytest.mark.parametrize(
    ("version", "quantizes"),
    [
        (None, False),
        ("0.11.9", False),
        ("0.12.0rc1", False),
        ("0.12.0.dev3+cpu", False),
        ("0.12", True),
        ("0.12.0", True),
        ("0.12.0+cu128", True),
        ("0.12.0.post1", True),
        ("0.12.1rc1", True),
        ("1.0", True),
    ],
)
def test_vllm_quantizes_from_version_0_12_on(version: str | None, quantizes: bool) -> None:
    assert CompatHost(vllm=version).vllm_quantizes is quantizes


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.COMPAT_UNSLOTH])
def test_in_every_other_mode_no_name_moves_and_nothing_is_quantized(mode: Mode) -> None:
    assert len(NAMES) == 930
    for name in NAMES:
        found = answer(CompatRequest(model=name, mode=mode, revision="v1"))
        assert (found.resolved, found.revision, found.error) == (name, "v1", None)
        assert flags(found) == (False, False, False)
        assert (found.silent, found.would_probe_network) == (False, False)


def test_ten_thousand_names_take_less_than_a_second() -> None:
    answer(CompatRequest(model=LLAMA, mode=Mode.COMPAT_UNSLOTH))
    begun = time.perf_counter()
    for index in range(10_000):
        name = NAMES[index % len(NAMES)]
        answer(CompatRequest(model=name, mode=Mode.COMPAT_UNSLOTH))
    assert time.perf_counter() - begun < 1.0


BOOLEANS = st.booleans()
MODELS = st.one_of(st.sampled_from(NAMES), st.text(min_size=1, max_size=40))
REQUESTS = st.fixed_dictionaries(
    {"model": MODELS},
    optional={
        "api": st.sampled_from(["FastLanguageModel", "FastModel"]),
        "load_in_4bit": BOOLEANS,
        "load_in_8bit": BOOLEANS,
        "load_in_16bit": BOOLEANS,
        "load_in_fp8": st.sampled_from([True, False, "block"]),
        "full_finetuning": BOOLEANS,
        "quantization_config_4bit": BOOLEANS,
        "use_exact_model_name": BOOLEANS,
        "revision": st.none() | st.just("v1"),
        "native_arch": BOOLEANS,
        "adapter_base": st.none() | MODELS,
        "host": st.fixed_dictionaries(
            {},
            optional={
                "bitsandbytes": BOOLEANS,
                "prequantized": BOOLEANS,
                "fbgemm": BOOLEANS,
                "vllm": st.sampled_from([None, "0.11.0", "0.12.0"]),
                "h100": BOOLEANS,
                "offline": BOOLEANS,
            },
        ),
    },
)


@given(REQUESTS)
def test_every_call_has_one_answer_or_one_of_two_errors(fields: dict[str, Any]) -> None:
    found = ask(**fields)
    assert found == ask(**fields)
    assert (found.resolved is None) == (found.error is not None)
    assert found.model == fields["model"]
    if found.error is None:
        assert sum(flags(found)) <= 1
        assert found.revision in (None, fields.get("revision"))


@given(REQUESTS, st.sampled_from(NAMES))
def test_the_case_of_a_name_changes_nothing_but_spelling(fields: dict[str, Any], name: str) -> None:
    # An FP8 request is the exception: there Unsloth takes another spelling for another repository.
    fields = {**fields, "adapter_base": None, "load_in_fp8": False}
    upper, lower = ask(**{**fields, "model": name.upper()}), ask(**{**fields, "model": name})
    assert upper.error == lower.error
    assert (upper.resolved or "").lower() == (lower.resolved or "").lower()
    assert (flags(upper), upper.revision, upper.silent) == (
        flags(lower),
        lower.revision,
        lower.silent,
    )


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("checkpoint", {"load_in_4bit": None}),
        ("nf4", {"load_in_4bit": True}),
        ("bf16", {"load_in_4bit": False}),
        ("int8", {"load_in_4bit": False, "load_in_8bit": True}),
        ("fp8", {"load_in_4bit": False, "load_in_fp8": True}),
    ],
)
def test_a_request_of_ours_becomes_the_call_that_says_the_same(
    precision: str, expected: dict[str, Any]
) -> None:
    request = LoadRequest(model=f"hf://{LLAMA}@v1", precision=precision)
    asked = ask_compat(request, model_type="phi3")
    assert (asked.model, asked.revision, asked.native_arch) == (LLAMA, "v1", False)
    assert asked.mode is Mode.COMPAT_UNSLOTH
    assert {key: getattr(asked, key) for key in expected} == expected


@pytest.mark.parametrize(
    "field",
    [{"load_in_fp8": "rows"}, {"load_in_4bit": 1}, {"colour": "red"}, {"host": {"vllm": "new"}}],
)
def test_a_malformed_call_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        ask("me/own", **field)
