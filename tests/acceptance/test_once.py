"""Once per cluster: however many ask, the Hub sends each byte once and one model is loaded."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.acceptance.stack import Stack, running_stack
from tests.hub.control import Hub
from tests.hub.models import get_model_folder


@pytest.mark.slow
def test_twenty_submits_on_two_nodes_cost_one_download_and_one_resident(hub: Hub) -> None:
    name = "acme/asked-often"
    hub.add_repository(name, get_model_folder("tiny_llama_sharded"))
    with running_stack(hub, nodes=2) as stack:
        hub.reset_counts()
        jobs = _load_at_once(stack, name, 20)
        with stack.client() as client:
            residents = {client.wait(job_id, timeout_seconds=120).resident for job_id in jobs}
            warm = [r for r in client.residents() if r.model == name]
        assert len(jobs) == 20
        assert len(residents) == 1
        assert len(warm) == 1
    assert _whole_file_bytes(hub, name) == _repository_bytes(hub, name)


def test_callers_with_different_rights_meet_at_one_download(hub: Hub) -> None:
    name = "acme/asked-by-two"
    hub.add_repository(name, get_model_folder("tiny_llama"))
    hub.grant("hf_anna", name)
    hub.grant("hf_ben", name)
    with running_stack(hub, nodes=2) as stack:
        hub.reset_counts()
        with (
            stack.client(hub_token="hf_anna") as anna,
            stack.client(hub_token="hf_ben") as ben,
            stack.client() as nobody,
        ):
            jobs = [(c, c.load(name).id) for c in (anna, ben, nobody)]
            residents = {c.wait(job_id, timeout_seconds=120).resident for c, job_id in jobs}
    assert len(residents) == 1
    assert _whole_file_bytes(hub, name) == _repository_bytes(hub, name)


def _whole_file_bytes(hub: Hub, name: str) -> int:
    """Body bytes of files, less the ranged reads of headers that facts are made of."""
    seen = hub.list_requests(repository=name, traffic="file")
    return sum(
        request.sent_bytes
        for request in seen
        if request.range is None and not request.path.endswith("/config.json")
    )


def _repository_bytes(hub: Hub, name: str) -> int:
    """Every file once, less config.json: it is one of the facts, asked by each resolver."""
    sizes = hub.get_commit(name).sizes_bytes
    return sum(sizes.values()) - sizes["config.json"]


def _load_at_once(stack: Stack, name: str, count: int) -> list[str]:
    def submit(_: int) -> str:
        with stack.client() as client:
            return client.load(name).id

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(submit, range(count)))
