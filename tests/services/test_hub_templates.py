"""Whether a repository's tokenizer has a chat template, as the facts say."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.control import Hub, Served, running_hub
from warmrack_store.hub import HubFacts
from warmrack_store.refs import parse_model

HELD = {
    "org/none": {"tokenizer_config.json": json.dumps({"model_max_length": 10})},
    "org/inside": {"tokenizer_config.json": json.dumps({"chat_template": "{{ messages }}"})},
    "org/beside": {"tokenizer_config.json": "{}", "chat_template.jinja": "{{ messages }}"},
    "org/broken": {"tokenizer_config.json": "{"},
    "org/bare": {},
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    served = {}
    for name, files in HELD.items():
        folder: Path = tmp_path_factory.mktemp("model")
        for path, text in {"config.json": "{}", **files}.items():
            (folder / path).write_text(text)
        served[name] = Served(folder=folder)
    with running_hub(served) as hub:
        yield hub


@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("org/none", False),
        ("org/inside", True),
        ("org/beside", True),
        ("org/broken", None),
        ("org/bare", None),
    ],
)
def test_a_chat_template_is_found_inside_or_beside_the_tokenizers_config(
    hub: Hub, name: str, has: bool | None
) -> None:
    asking = HubFacts(hub.url, timeout_seconds=5)
    found = asking.get_facts(asking.find_ref(parse_model(name), None), None)
    asking.close()
    assert found.chat_template is has
