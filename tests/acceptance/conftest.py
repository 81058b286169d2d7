"""The test Hub and stacks that acceptance tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.stack import Stack, running_stack
from tests.hub.control import Hub, Served, running_hub
from tests.hub.models import get_model_folder

LLAMA = "acme/tiny-llama"
TWIN = "acme/tiny-llama-twin"
UNFETCHED_TWIN = "acme/tiny-llama-unfetched"
SHARDED = "acme/tiny-sharded"
BERT = "acme/tiny-bert"
PICKLE = "acme/pickle-only"
GATED = "acme/gated"
PRIVATE = "acme/private"
TOKEN = "hf_let_me_in"


@pytest.fixture(scope="session")
def hub() -> Iterator[Hub]:
    """A Hub with public, gated, private and unsafe repositories; its own process."""
    llama = get_model_folder("tiny_llama")
    repos: dict[str, Served | Path] = {
        LLAMA: llama,
        TWIN: llama,
        UNFETCHED_TWIN: llama,
        SHARDED: get_model_folder("tiny_llama_sharded"),
        BERT: get_model_folder("tiny_bert"),
        PICKLE: get_model_folder("pickle_only"),
        GATED: Served(folder=llama, gated=True, tokens=(TOKEN,)),
        PRIVATE: Served(folder=llama, private=True, tokens=(TOKEN,)),
    }
    with running_hub(repos) as running:
        yield running


@pytest.fixture(scope="session")
def pool(hub: Hub) -> Iterator[Stack]:
    """Two nodes for tests that break nothing."""
    with running_stack(hub, nodes=2) as stack:
        yield stack
