"""Unsloth's own spellings as fields of a LoadRequest."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmrack.unsloth_args import merge_fields, parse_arguments, request_fields
from warmrack_store.errors import BadRequest, Contradiction, NotSupported, WarmrackError
from warmrack_store.requests import LoadRequest, Mode


class Dtype:
    """As torch prints one."""

    def __str__(self) -> str:
        return "torch.bfloat16"


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        ({}, {"mode": "exact"}),
        ({"load_in_4bit": True}, {"mode": "optimized", "precision": "nf4"}),
        ({"load_in_8bit": True, "load_in_4bit": False}, {"mode": "optimized", "precision": "int8"}),
        ({"load_in_fp8": True}, {"mode": "optimized", "precision": "fp8"}),
        ({"load_in_16bit": True}, {"mode": "exact", "precision": "bf16"}),
        ({"load_in_16bit": True, "dtype": "float16"}, {"mode": "exact", "precision": "fp16"}),
        ({"dtype": Dtype()}, {"mode": "exact", "precision": "bf16"}),
        ({"dtype": None, "load_in_4bit": False}, {"mode": "exact"}),
        ({"full_finetuning": True}, {"mode": "exact", "quantize": "never"}),
        ({"use_exact_model_name": False}, {"mode": "optimized"}),
        (
            {"use_exact_model_name": True, "load_in_4bit": True},
            {"mode": "exact", "precision": "nf4"},
        ),
        (
            {"model_name": "a/b", "revision": "v1", "max_seq_length": 2048, "device_map": "auto"},
            {
                "mode": "exact",
                "model": "a/b",
                "revision": "v1",
                "max_seq_length": 2048,
                "device_map": "auto",
            },
        ),
    ],
)
def test_each_argument_becomes_the_field_of_its_meaning(
    arguments: dict[str, Any], fields: dict[str, Any]
) -> None:
    assert request_fields(arguments) == fields
    assert LoadRequest.model_validate({"model": "a/b", **fields})


@pytest.mark.parametrize(
    ("arguments", "ways_out"),
    [
        ({"load_in_4bit": True, "load_in_8bit": True}, ("load_in_4bit", "load_in_8bit")),
        ({"load_in_4bit": True, "load_in_16bit": True}, ("load_in_4bit", "load_in_16bit")),
        ({"load_in_4bit": True, "dtype": "bfloat16"}, ("load_in_4bit", "dtype=bf16")),
        ({"load_in_16bit": True, "dtype": "float32"}, ("load_in_16bit", "dtype=fp32")),
        ({"full_finetuning": True, "load_in_4bit": True}, ("full_finetuning", "load_in_4bit")),
    ],
)
def test_a_contradiction_names_both_ways_out(
    arguments: dict[str, Any], ways_out: tuple[str, str]
) -> None:
    with pytest.raises(Contradiction) as caught:
        request_fields(arguments)
    assert all(way in caught.value.hint for way in ways_out)


@pytest.mark.parametrize(("mode", "exact"), [(Mode.COMPAT_UNSLOTH, True), (Mode.EXACT, False)])
def test_a_mode_of_ones_own_must_agree_with_the_exact_name(mode: Mode, exact: bool) -> None:
    with pytest.raises(Contradiction, match="exclude each other"):
        request_fields({"use_exact_model_name": exact}, mode=mode)


def test_compat_keeps_unsloths_default_apart_from_an_explicit_no() -> None:
    compat = Mode.COMPAT_UNSLOTH
    assert request_fields({}, mode=compat) == {"mode": "compat:unsloth"}
    assert request_fields({"load_in_4bit": False}, mode=compat)["precision"] == "bf16"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"random_state": 3407}, NotSupported),
        ({"token": "hf_x"}, NotSupported),
        ({"trust_remote_code": True}, NotSupported),
        ({"load_in_fp8": "block"}, NotSupported),
        ({"load_in_4bit": "yes"}, BadRequest),
        ({"dtype": "int4"}, BadRequest),
    ],
)
def test_nothing_is_ignored(arguments: dict[str, Any], error: type[WarmrackError]) -> None:
    with pytest.raises(error):
        request_fields(arguments)


def test_a_token_is_not_repeated_in_the_error() -> None:
    with pytest.raises(NotSupported) as caught:
        request_fields({"token": "hf_secret"})
    assert "hf_secret" not in f"{caught.value.message}{caught.value.hint}"


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("", {}),
        ("load_in_4bit=True, use_exact_model_name=false", {"load_in_4bit": True}),
        ("dtype=torch.bfloat16,load_in_8bit=None", {"dtype": "bfloat16", "load_in_8bit": None}),
        ("max_seq_length=2048,revision='v1'", {"max_seq_length": 2048, "revision": "v1"}),
    ],
)
def test_arguments_are_read_as_in_python_without_running_any(
    text: str, arguments: dict[str, Any]
) -> None:
    assert parse_arguments(text).items() >= arguments.items()


@pytest.mark.parametrize(
    "text", ["True", "a=f()", "**x", "a=1)or(b", "a=1,a=2", "x=[1]", "a=1); f(b=2", "model_name=1"]
)
def test_anything_but_keyword_arguments_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_arguments(text)


def test_merging_keeps_the_request_and_refuses_two_answers() -> None:
    request = {"max_seq_length": 10}
    assert merge_fields(request, {"load_in_4bit": True}) == {
        "mode": "optimized",
        "precision": "nf4",
        "max_seq_length": 10,
    }
    with pytest.raises(Contradiction, match="max_seq_length"):
        merge_fields(request, {"max_seq_length": 20})
    with pytest.raises(Contradiction, match="precision"):
        merge_fields({"precision": "checkpoint"}, {"load_in_4bit": True})
    with pytest.raises(BadRequest, match="mode"):
        merge_fields({"mode": "fast"}, {})


def test_exact_that_was_asked_for_is_never_taken_back() -> None:
    asked = merge_fields({"mode": "exact"}, {"load_in_4bit": True})
    assert asked == {"mode": "exact", "precision": "nf4"}  # which the service refuses


@pytest.mark.parametrize("arguments", [None, {1: 2}, ["load_in_4bit"]])
def test_what_is_no_mapping_of_names_is_refused(arguments: Any) -> None:
    with pytest.raises(BadRequest):
        request_fields(arguments)


def test_a_negative_number_reaches_the_field_that_refuses_it() -> None:
    assert parse_arguments("max_seq_length=-5") == {"max_seq_length": -5}


FLAG = st.none() | st.booleans()


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "load_in_4bit": FLAG,
            "load_in_8bit": FLAG,
            "load_in_16bit": FLAG,
            "load_in_fp8": FLAG,
            "full_finetuning": FLAG,
            "use_exact_model_name": FLAG,
            "dtype": st.sampled_from([None, "auto", "float16", "torch.bfloat16", "float32"]),
        },
    ),
    st.none() | st.sampled_from(list(Mode)),
)
def test_every_combination_is_a_valid_request_or_a_contradiction(
    arguments: dict[str, Any], mode: Mode | None
) -> None:
    try:
        fields = request_fields(arguments, mode=mode)
    except Contradiction as error:
        fields = {"mode": mode and mode.value}
        said = error.hint
    else:
        said = "Drop nothing"
        LoadRequest.model_validate({"model": "a/b", **fields})
    assert said.startswith("Drop ")
    assert mode is None or fields["mode"] == mode.value
