"""A node's files read again: what is found, what is moved aside, and how a node is asked for it."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.services.hosts import (
    COMMIT,
    flip_last_byte,
    make_snapshot,
    make_spec,
    replace_bytes,
    runtime_folder,
)
from tests.services.stores import Store
from tests.services.test_leases import holder_of
from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.cache.snapshots import FileState
from warmrack_store.errors import NotFound
from warmrack_store.ledgers import copies, leases, resolutions
from warmrack_store.rechecks import DiskCheck, DiskQuestion
from warmrack_store.records import parse_record
from warmrack_workers.disk_checks import DiskChecks
from warmrack_workers.ingress import Ingress
from warmrack_workers.node_server import SEAT, NodeServer

REPOSITORY = "tests/tiny"
WEIGHTS = "model.safetensors"


class Node:
    """A store with one complete copy."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.layout = RepositoryLayout(cache_dir=folder / "cache", repository=REPOSITORY)
        self.snapshot = make_snapshot("tiny_llama", self.layout.folder)
        self.resolution = make_spec(self.snapshot, folder).resolution
        self.database = store.database
        self.checks = DiskChecks(
            database=store.database, cache_dir=folder / "cache", node="n0", store="s0"
        )
        with self.database.write() as tx:
            self.resolution_id = resolutions.put_resolution(tx, self.resolution)
            copies.put_copy(
                tx,
                store="s0",
                repository=REPOSITORY,
                commit=COMMIT,
                selection=self.resolution.selection,
                complete=True,
            )

    def check(self) -> DiskCheck:
        return self.checks.check(self.resolution_id)

    @property
    def subject(self) -> str:
        return copies.subject("s0", REPOSITORY, COMMIT)

    @property
    def complete(self) -> bool:
        with self.database.read() as tx:
            (copy,) = copies.list_copies_of(tx, REPOSITORY, COMMIT)
        return copy.complete


@pytest.fixture
def node(sqlite: Store) -> Iterator[Node]:
    with runtime_folder() as folder:
        yield Node(sqlite, folder)


def test_good_files_are_all_read_and_nothing_is_moved(node: Node) -> None:
    check = node.check()
    assert {file.state for file in check.files} == {FileState.GOOD}
    assert [file.path for file in check.files] == [file.path for file in node.resolution.files]
    assert check.read_bytes == node.resolution.size_bytes
    assert check.quarantined == ()
    assert node.complete


def test_byte_that_changed_without_a_trace_is_found_and_its_blob_moved_aside(node: Node) -> None:
    replace_bytes(node.snapshot / WEIGHTS, flip_last_byte, quietly=True)
    check = node.check()
    assert {f.path: f.state for f in check.files if f.state is not FileState.GOOD} == {
        WEIGHTS: FileState.CORRUPT
    }
    assert check.quarantined == (WEIGHTS,)
    assert len(list(node.layout.work.glob("*.bad"))) == 1
    assert not (node.snapshot / WEIGHTS).exists()
    assert not node.complete
    assert holder_of(node.database, node.subject) is None


def test_missing_file_is_found_and_makes_the_copy_incomplete(node: Node) -> None:
    (node.snapshot / WEIGHTS).resolve().unlink()
    check = node.check()
    assert FileState.MISSING in {file.state for file in check.files}
    assert check.quarantined == ()
    assert not node.complete


def test_link_out_of_the_cache_is_moved_itself_and_never_read(node: Node, tmp_path: Path) -> None:
    outside = tmp_path / WEIGHTS
    shutil.copyfile(node.snapshot / WEIGHTS, outside)
    (node.snapshot / WEIGHTS).unlink()
    (node.snapshot / WEIGHTS).symlink_to(outside)
    assert node.check().quarantined == (WEIGHTS,)
    assert outside.exists()


def test_file_is_left_to_the_fetch_that_has_the_snapshot(node: Node) -> None:
    with node.database.write() as tx:
        assert leases.acquire(
            tx, subject=node.subject, kind="snapshot", holder="n0:job", ttl_seconds=60
        )
    replace_bytes(node.snapshot / WEIGHTS, flip_last_byte, quietly=True)
    assert node.check().quarantined == ()
    assert (node.snapshot / WEIGHTS).exists()


def test_two_checks_at_once_move_a_file_once(node: Node) -> None:
    replace_bytes(node.snapshot / WEIGHTS, flip_last_byte, quietly=True)
    found: list[DiskCheck] = []
    threads = [threading.Thread(target=lambda: found.append(node.check())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert len(list(node.layout.work.glob("*.bad"))) == 1


def test_unknown_resolution_is_refused(node: Node) -> None:
    with pytest.raises(NotFound):
        node.checks.check("res_unknown")


@pytest.fixture
def node_url(node: Node) -> Iterator[str]:
    """The node's server behind its real ingress."""
    with runtime_folder() as folder:
        server = NodeServer(
            folder / "node.sock",
            {
                "/snapshots/verify": lambda question: node.checks.check(
                    parse_record(DiskQuestion, question).resolution_id
                ),
                "/defect": lambda _: 1 / 0,  # type: ignore[dict-item, return-value]
            },
        )
        server.start()
        sockets = {SEAT: str(server.socket_path)}
        ingress = Ingress("127.0.0.1:0", node_token="t", find_socket=sockets.get)
        yield f"{ingress.start()}/hosts/{SEAT}"
        server.stop()


def ask(url: str, body: object, *, token: str = "t") -> httpx.Response:
    headers = {"X-Warmrack-Node-Token": token}
    return httpx.post(url, json=body, headers=headers, trust_env=False, timeout=30)


def test_node_is_asked_through_its_ingress(node: Node, node_url: str) -> None:
    answer = ask(f"{node_url}/snapshots/verify", {"resolution_id": node.resolution_id})
    assert answer.status_code == 200, answer.text
    check = DiskCheck.model_validate_json(answer.content)
    assert (check.node, len(check.files)) == ("n0", len(node.resolution.files))


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/snapshots/verify", {"resolution_id": "res_unknown"}, 404, "not-found"),
        ("/snapshots/verify", {"folder": "/etc"}, 400, "bad-request"),
        ("/snapshots", {}, 404, "not-found"),
        ("/defect", {}, 500, "defect"),
    ],
)
def test_node_answers_what_it_cannot_do_with_a_problem(
    node_url: str, path: str, body: object, status: int, code: str
) -> None:
    answer = ask(f"{node_url}{path}", body)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_node_answers_nobody_without_the_clusters_token(node_url: str) -> None:
    assert ask(f"{node_url}/snapshots/verify", {}, token="x").status_code == 403
