"""A model's URL names a Hub, and only the one that is asked will do."""

import pytest

from warmrack_store.errors import BadRequest
from warmrack_store.named_hubs import check_hub
from warmrack_store.requests import LoadRequest

_ENDPOINT = "http://me:secret@hub.corp:8080/base"


@pytest.mark.parametrize(
    "model",
    [
        "org/name",
        "hf://org/name@main",
        "https://huggingface.co/org/name/tree/main",
        "https://HF.co/org/name",
        "http://hub.corp:8080/org/name",
        " https://hub.corp:8080/org/name ",
    ],
)
def test_a_name_and_a_page_of_the_asked_or_the_public_hub_pass(model: str) -> None:
    check_hub(LoadRequest(model=model), _ENDPOINT)


@pytest.mark.parametrize(
    "model",
    [
        "https://evil.example/org/name",
        "https://huggingface.co@evil.example/org/name",
        "https://huggingface.co.evil.example/org/name",
        "https://hub.corp/org/name",
        "https:///org/name",
    ],
)
def test_a_page_of_any_other_hub_is_refused_by_its_host(model: str) -> None:
    with pytest.raises(BadRequest, match=r"this service asks hub\.corp:8080") as raised:
        check_hub(LoadRequest(model=model), _ENDPOINT)
    assert "secret" not in raised.value.message
    with pytest.raises(BadRequest, match="this service asks"):
        check_hub(LoadRequest(model="org/name", adapter_base=model), _ENDPOINT)
