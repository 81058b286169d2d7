"""The load request: what may be said, what contradicts itself, what is not served yet."""

from typing import Any

import pytest
from pydantic import ValidationError

from warmrack_store.errors import BadRequest, Contradiction, NotSupported
from warmrack_store.records import parse_record
from warmrack_store.requests import SERVED_VALUES, LoadRequest, Mode, check_supported


def request(**fields: Any) -> LoadRequest:
    return parse_record(LoadRequest, {"model": "org/name", **fields})


def test_the_least_request_asks_for_the_exact_checkpoint() -> None:
    asked = request()
    assert (asked.mode, asked.precision) == (Mode.EXACT, "checkpoint")
    check_supported(asked)


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "no-slash"},
        {"model": 7},
        {"revision": "../x"},
        {"precision": "int3"},
        {"precision": "gguf:"},
        {"mode": "Exact"},
        {"max_seq_length": 0},
        {"max_download_bytes": -1},
        {"trust_remote_code": "main"},
        {"trust_remote_code": True},
        {"endpoint": "https://hub.example"},
    ],
)
def test_a_bad_field_is_named(fields: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        request(**fields)


def test_exact_and_a_quantization_contradict_each_other() -> None:
    with pytest.raises(Contradiction, match="exact excludes quantize any"):
        request(quantize="any")


def test_two_revisions_contradict_each_other() -> None:
    with pytest.raises(Contradiction):
        request(model="org/name@main", revision="v1")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("files_include", ["*.bin"]),
        ("files_exclude", ["*.json"]),
        ("trust_remote_code", "0" * 40),
        ("attn", "sdpa"),
        ("device_map", "auto"),
    ],
)
def test_what_is_known_but_not_served_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(NotSupported, match=field):
        check_supported(request(**{field: value}))


def test_every_served_value_names_a_field_of_the_request() -> None:
    assert set(SERVED_VALUES) <= set(LoadRequest.model_fields)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"model": "org/name@main"}, {"model": "org/name", "revision": "main"}),
        ({"model": "hf://org/name"}, {"model": "https://huggingface.co/org/name"}),
        ({"mode": "exact"}, {}),
        ({"precision": "gguf:q4_0"}, {"precision": "gguf:Q4_0"}),
        ({"publishers": ("a", "b")}, {"publishers": ("B", "a", "a")}),
        ({"quantize": "never"}, {}),
        ({"mode": "optimized", "quantize": "any"}, {"mode": "optimized"}),
    ],
)
def test_two_spellings_of_a_request_have_one_digest(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    assert request(**one).digest() == request(**other).digest()


def test_a_lock_knows_a_model_by_its_name_in_any_letters_and_with_any_network() -> None:
    spelled = request(model="Org/NAME@v1", network="offline", hub_secret="mine")
    assert spelled.lock_key() == request(revision="v1").lock_key()
    assert spelled.lock_key() != request(revision="V1").lock_key()


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "org/other"},
        {"revision": "v1"},
        {"max_seq_length": 7},
        {"publishers": ("a",)},
        {"mode": "auto", "quantize": "never"},
    ],
)
def test_another_request_has_another_digest(fields: dict[str, Any]) -> None:
    assert request(**fields).digest() != request().digest()


def test_a_request_never_changes() -> None:
    with pytest.raises(ValidationError):
        request().model = "org/other"  # type: ignore[misc]
