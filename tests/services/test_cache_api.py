"""The room on the disks over HTTP, answered by a node's own socket behind its ingress."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.services.hosts import runtime_folder
from warmrack_daemon.api.app import create_app
from warmrack_daemon.services import Services
from warmrack_store.cache_evictions import EvictionQuestion
from warmrack_store.ledgers import nodes
from warmrack_store.records import parse_record
from warmrack_store.settings import Settings
from warmrack_workers.ingress import Ingress
from warmrack_workers.node_server import NodeServer
from warmrack_workers.store_budget import StoreBudget
from warmrack_workers.store_tidying import StoreTidying


@pytest.fixture
def client(services: Services, tmp_path: Path) -> Iterator[TestClient]:
    budget = StoreBudget(
        settings=Settings(cache_dir=tmp_path / "cache", cache_quota=10**6),
        database=services.database,
        node="n0",
        store="s0",
    )
    with runtime_folder() as folder:
        server = NodeServer(
            folder / "node.sock",
            {
                "/disk/evict": lambda body: budget.evict(parse_record(EvictionQuestion, body)),
                "/disk/tidy": lambda _: StoreTidying(budget).tidy(),
            },
        )
        server.start()
        ingress = Ingress(
            "127.0.0.1:0",
            node_token=services.vault.node_token,
            find_socket=lambda _: str(server.socket_path),
        )
        register(services, "n0", ingress.start())
        with TestClient(create_app(services)) as opened:
            yield opened
        server.stop()


def register(services: Services, name: str, url: str) -> None:
    with services.database.write() as tx:
        nodes.register(
            tx,
            name,
            url=url,
            mirror_url=None,
            machine="m",
            store="s0",
            devices=[],
            labels={},
            tasks={},
            versions={},
            pid=1,
        )


def test_df_asks_one_node_of_each_store(client: TestClient, services: Services) -> None:
    with services.database.read() as tx:
        (node,) = nodes.list_nodes(tx)
    register(services, "n1", str(node.url))
    (report,) = client.post("/api/v1/cache/df", json={}).json()["items"]
    assert (report["store"], report["used_bytes"], report["quota_bytes"]) == ("s0", 0, 10**6)


def test_evict_tells_whether_it_reached_its_goal(client: TestClient) -> None:
    asked = {"bytes_wanted": 7, "dry_run": True}
    (eviction,) = client.post("/api/v1/cache/evict", json=asked).json()["items"]
    assert (eviction["needed_bytes"], eviction["reached"], eviction["dry_run"]) == (7, False, True)


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("evict", {}, "bad-request"),
        ("evict", {"bytes_wanted": 1, "to_low_watermark": True}, "bad-request"),
        ("evict", {"bytes_wanted": 1, "node": "n9"}, "node-not-found"),
        ("df", {"node": "n9"}, "node-not-found"),
        ("rm", {"model": "../x"}, "bad-request"),
        ("rm", {"model": "org/none"}, "not-found"),
    ],
)
def test_what_cannot_be_done_is_said(
    client: TestClient, path: str, body: dict[str, object], code: str
) -> None:
    answer = client.post(f"/api/v1/cache/{path}", json=body)
    assert answer.json()["code"] == code
