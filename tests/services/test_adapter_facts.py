"""What a Hub says about an adapter's repository: its config, its card, its header."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub.control import Hub, running_hub
from tests.services.test_hub_facts import safetensors
from warmrack_store.facts import RepositoryFacts
from warmrack_store.hub import HubFacts
from warmrack_store.refs import ModelRef
from warmrack_store.resolver.adapters import is_adapter

CONFIG: dict[str, Any] = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "r": 4}
CARD = "---\nbase_model:\n- vendor/original\n- not a name\n---\n# An adapter\n"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub({}) as running:
        yield running


def ask(hub: Hub, folder: Path, files: dict[str, bytes]) -> RepositoryFacts:
    for path, body in files.items():
        (folder / path).write_bytes(body)
    hub.add_repository("me/lora", folder)
    asker = HubFacts(hub.url)
    try:
        return asker.get_facts(asker.find_ref(ModelRef(repository="me/lora"), None), None)
    finally:
        asker.close()


def test_an_adapters_config_card_and_header_are_facts(hub: Hub, tmp_path: Path) -> None:
    files = {
        "adapter_config.json": json.dumps(CONFIG).encode(),
        "adapter_model.safetensors": safetensors(["a"]),
        "README.md": CARD.encode(),
    }
    facts = ask(hub, tmp_path, files)
    assert facts.adapter_config == CONFIG
    assert facts.card_bases == ("vendor/original",)
    assert facts.config is None
    assert [file.path for file in facts.weights] == ["adapter_model.safetensors"]
    assert is_adapter(facts)


def test_a_config_that_cannot_be_read_is_a_fact_with_its_reason(hub: Hub, tmp_path: Path) -> None:
    facts = ask(hub, tmp_path, {"adapter_config.json": b"[1]"})
    assert facts.adapter_config is None
    assert facts.adapter_config_error == "is a JSON list, not an object"
    assert facts.card_bases == ()


def test_the_card_of_a_full_model_is_not_asked_for(hub: Hub, tmp_path: Path) -> None:
    files = {"model.safetensors": safetensors(["a"]), "README.md": CARD.encode()}
    facts = ask(hub, tmp_path, files)
    assert (facts.adapter_config, facts.card_bases) == (None, ())
    assert not is_adapter(facts)
