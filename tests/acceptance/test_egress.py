"""The egress ledger: where each job's bytes came from, equal to what the Hub counted."""

from collections.abc import Iterator, Sequence

import pytest

import warmrack
from tests.acceptance.own_weights import own_weights
from tests.acceptance.stack import Stack, running_stack, wait_until
from tests.hub.control import Hub, running_hub
from tests.hub.faults import Close, CorruptByte, Fault, Origin, Stall, Status
from tests.hub.models import get_model_folder

pytestmark = pytest.mark.slow

FAULTY, SHARED, JOINED = "org/faulty", "org/shared", "org/joined"
_BODY_BYTES = 300_000


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    folder = get_model_folder("tiny_llama")
    names = (FAULTY, SHARED, JOINED)
    with running_hub(dict.fromkeys(names, folder)) as running:
        for name in names:
            running.add_commit(name, files={"model.safetensors": own_weights(name)})
        yield running


@pytest.fixture(scope="module")
def pool(hub: Hub) -> Iterator[Stack]:
    with running_stack(hub, nodes=2) as stack:
        for name in (FAULTY, SHARED, JOINED):
            stack.run("explain", name)  # facts are asked once, and are not counted
        hub.reset_counts()
        yield stack


@pytest.fixture
def client(pool: Stack) -> Iterator[warmrack.Client]:
    with pool.client() as opened:
        yield opened
        pool.hub.clear_faults()


def sent_bytes(hub: Hub, model: str) -> int:
    """Bodies of the model's files; a redirect's or an error's body is no file."""
    seen = hub.list_requests(repository=model, traffic="file")
    return sum(request.sent_bytes for request in seen if request.status in (200, 206))


def size_bytes(hub: Hub, model: str) -> int:
    return sum(hub.get_commit(model).sizes_bytes.values())


def rows_of(client: warmrack.Client, *jobs: str) -> Sequence[warmrack.Egress]:
    by_job = {row.job: row for row in client.egress("job")}
    return [by_job[job] for job in jobs]


def test_faults_and_retries_count_every_byte_that_the_hub_sent(
    client: warmrack.Client, hub: Hub
) -> None:
    wrong, broken = CorruptByte(offset_bytes=_BODY_BYTES), Close(after_bytes=_BODY_BYTES // 2)
    faults: tuple[Fault, ...] = (wrong, Status(status=503), broken)
    for skip, fault in enumerate(faults):
        hub.add_fault(fault, path=f"/{FAULTY}/", origin=Origin.CDN, skip=skip, times=1)
    job = client.wait(client.prefetch(FAULTY).id, timeout_seconds=60)
    (row,) = rows_of(client, job.id)
    assert row.hub_bytes == sent_bytes(hub, FAULTY) > size_bytes(hub, FAULTY)
    assert (row.peer_bytes, row.local_bytes, row.deduplicated_bytes) == (0, 0, 0)


def test_two_nodes_and_those_who_come_later_add_up(client: warmrack.Client, hub: Hub) -> None:
    jobs = [
        client.wait(client.prefetch(SHARED, nodes=[node]).id, timeout_seconds=60).id
        for node in ("node-0", "node-1", "node-0")
    ]
    first, second, third = rows_of(client, *jobs)
    size = size_bytes(hub, SHARED)
    assert first.hub_bytes + first.local_bytes == size
    assert first.hub_bytes > 0, "only files of other repositories were here"
    assert second.hub_bytes + second.peer_bytes + second.local_bytes == size
    assert (third.hub_bytes, third.local_bytes, third.deduplicated_bytes) == (0, size, 0)
    assert sent_bytes(hub, SHARED) == first.hub_bytes + second.hub_bytes


def test_who_joined_and_who_waited_had_their_bytes_from_another(
    client: warmrack.Client, hub: Hub
) -> None:
    gate = hub.add_fault(Stall(after_bytes=_BODY_BYTES), path=f"/{JOINED}/", origin=Origin.CDN)
    first = client.prefetch(JOINED, nodes=["node-0"])
    wait_until("bytes to arrive", lambda: client.job(first.id).progress.bytes_done)
    joined = client.prefetch(JOINED, nodes=["node-0"])
    waiting = client.prefetch(JOINED, revision="main", nodes=["node-0"])
    wait_until("the other to wait", lambda: client.job(waiting.id).progress.waiting_for)
    hub.clear_faults(gate)
    for job in (first, joined, waiting):
        client.wait(job.id, timeout_seconds=60)
    size = size_bytes(hub, JOINED)
    assert joined.joined_to == first.id
    rows = rows_of(client, first.id, joined.id, waiting.id)
    assert [row.hub_bytes for row in rows] == [sent_bytes(hub, JOINED), 0, 0]
    assert [row.deduplicated_bytes for row in rows] == [0, size, size]
    assert [row.hub_bytes + row.local_bytes for row in rows] == [size, 0, 0]


def test_every_grouping_has_the_same_sums_by_the_command_line_too(
    pool: Stack, client: warmrack.Client
) -> None:
    def totals(by: str) -> list[int]:
        code, listing = pool.run_json("cache", "egress", "--by", by)
        assert code == 0
        names = ("hub_bytes", "peer_bytes", "local_bytes", "deduplicated_bytes")
        return [sum(row[name] for row in listing["items"]) for name in names]

    by_tenant = totals("tenant")
    assert by_tenant == totals("job") == totals("repository")
    sent = sum(sent_bytes(pool.hub, name) for name in (FAULTY, SHARED, JOINED))
    assert by_tenant[0] == sent
    shown = pool.run("cache", "egress")
    assert shown.returncode == 0
    assert FAULTY in shown.stdout
    assert pool.run_json("cache", "egress", "--by", "colour")[0] == 2
