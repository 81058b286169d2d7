"""A Hub and a network that do everything wrong, one thing at a time."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import httpx
import pytest

from tests.hub.control import Hub, running_hub
from tests.hub.faults import (
    Close,
    CorruptByte,
    Drip,
    Fault,
    Headers,
    IgnoreRange,
    Latency,
    Origin,
    OtherContent,
    Reset,
    Stall,
    Status,
    too_many_requests,
)
from tests.services.test_fetch_snapshot import (
    LARGE_BYTES,
    MODEL,
    Rig,
    list_lingering_threads,
    read_folder,
    write_repository,
)
from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.errors import (
    Cancelled,
    Gated,
    HubUnavailable,
    Integrity,
    RateLimited,
    Timeout,
    Unauthorized,
    WarmrackError,
)
from warmrack_store.pieces import list_pieces
from warmrack_workers.fetch.fetcher import FetchPlan
from warmrack_workers.fetch.http_lines import Timeouts

LARGE = r"/model\.bin"
MIDDLE = LARGE_BYTES // 2
EARLY = 1_500_000
"""Inside of every piece, so also inside of each answer."""
FIRST_REQUESTS = len(list_pieces(LARGE_BYTES))
"""A file this short is asked for piece by piece."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as running:
        yield running


@pytest.fixture
def rig(hub: Hub, folder: Path, tmp_path: Path) -> Rig:
    hub.add_repository(MODEL, folder)
    hub.clear_faults()
    hub.reset_counts()
    return Rig(hub=hub, cache_dir=tmp_path / "cache")


def small_bytes(plan: FetchPlan) -> int:
    return sum(file.size for file in plan.blobs) - LARGE_BYTES


def assert_nothing_is_visible(plan: FetchPlan) -> None:
    layout = plan.layout
    assert not layout.snapshot(plan.commit).exists()
    assert not layout.ref("main").exists()
    large = next(file for file in plan.files if file.size == LARGE_BYTES)
    assert not layout.blob(large.digest).exists()


@pytest.mark.parametrize("fault", [Reset(after_bytes=EARLY), Close(after_bytes=EARLY)])
def test_a_body_that_breaks_off_is_continued_where_it_broke(
    rig: Rig, folder: Path, fault: Fault
) -> None:
    rig.hub.add_fault(fault, path=LARGE, origin=Origin.CDN, times=2)
    fetched = rig.fetch()
    assert read_folder(fetched.snapshot_dir) == read_folder(folder)
    asked = rig.hub.list_requests(origin="cdn", method="GET")
    assert len(asked) == FIRST_REQUESTS + 2
    assert all(seen.range for seen in asked)
    assert fetched.hub_bytes == sum(file.size for file in rig.plan().blobs)


def test_a_server_that_ignores_the_range_costs_one_connection_and_no_byte_twice(
    rig: Rig, folder: Path
) -> None:
    rig.hub.add_fault(IgnoreRange(), path=LARGE, origin=Origin.CDN)
    fetched = rig.fetch()
    assert read_folder(fetched.snapshot_dir) == read_folder(folder)
    assert fetched.hub_bytes == LARGE_BYTES + small_bytes(rig.plan())


@pytest.mark.parametrize("fault", [CorruptByte(offset_bytes=MIDDLE), OtherContent()])
def test_wrong_bytes_once_are_fetched_again_and_twice_are_refused(rig: Rig, fault: Fault) -> None:
    plan = rig.plan()
    always = rig.hub.add_fault(fault, path=LARGE, origin=Origin.CDN)
    with pytest.raises(Integrity, match=r"model\.bin: its digest is \w+, the tree says \w+"):
        rig.fetch(plan)
    assert_nothing_is_visible(plan)
    assert list(plan.layout.work.glob("*.part")) == []
    rig.hub.clear_faults(always)
    assert list(plan.layout.work.glob("*.pieces")) == []
    rig.hub.add_fault(fault, path=LARGE, origin=Origin.CDN, times=FIRST_REQUESTS)
    rig.hub.reset_counts()
    fetched = rig.fetch(plan)
    assert fetched.hub_bytes >= 2 * LARGE_BYTES
    asked = rig.hub.read_counts().requests(origin="cdn", method="GET")
    assert asked == 2 * FIRST_REQUESTS


def test_another_size_than_the_trees_is_refused_before_the_body(rig: Rig) -> None:
    plan = rig.plan()
    files = tuple(
        file.model_copy(update={"size": file.size - 1}) if file.size == LARGE_BYTES else file
        for file in plan.files
    )
    with pytest.raises(Integrity, match="offered, the tree says"):
        rig.fetch(replace(plan, files=files))


def test_bytes_past_the_size_are_refused_when_nobody_announced_them(rig: Rig) -> None:
    """Without a length the body says nothing about its size beforehand."""
    plan = rig.plan()
    rig.hub.add_fault(Headers(removed=("Content-Length",)), path=LARGE)
    rig.hub.add_fault(IgnoreRange(), path=LARGE)
    files = tuple(
        file.model_copy(update={"size": MIDDLE}) if file.size == LARGE_BYTES else file
        for file in plan.files
    )
    with pytest.raises(Integrity, match="sends more than"):
        rig.fetch(replace(plan, files=files))
    assert_nothing_is_visible(plan)


def test_a_busy_hub_is_asked_again_when_it_said(rig: Rig) -> None:
    rig.hub.add_fault(Status(status=503, headers={"Retry-After": "1"}), path=LARGE, times=1)
    started = time.monotonic()
    rig.fetch()
    assert time.monotonic() - started >= 1.0


def test_a_hub_that_wants_minutes_gives_the_job_back_with_the_wait(rig: Rig) -> None:
    rig.hub.add_fault(too_many_requests(retry_after_seconds=300), path="resolve")
    with pytest.raises(RateLimited) as caught:
        rig.fetch()
    assert caught.value.retry_after_seconds == 300


def test_a_hub_that_stays_broken_is_asked_five_times(rig: Rig) -> None:
    rule = rig.hub.add_fault(Status(status=500), path=LARGE)
    with pytest.raises(HubUnavailable, match="HTTP 500"):
        rig.fetch()
    assert rig.hub.count_fired(rule) == 5


def test_an_expired_address_is_asked_for_anew(rig: Rig, folder: Path) -> None:
    rig.hub.add_fault(Status(status=403), path=LARGE, origin=Origin.CDN, times=2)
    assert read_folder(rig.fetch().snapshot_dir) == read_folder(folder)
    assert rig.hub.read_counts().requests(origin="hub", path=r"resolve/.*/model\.bin") == 3


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Status(status=403, code="GatedRepo"), Gated),
        (Status(status=404, code="EntryNotFound"), HubUnavailable),
        (Headers(replaced={"X-Repo-Commit": "f" * 40}), Integrity),
    ],
)
def test_a_refusal_ends_the_fetch_with_its_own_error(
    rig: Rig, fault: Fault, kind: type[WarmrackError]
) -> None:
    plan = rig.plan()
    rig.hub.add_fault(fault, path=r"resolve/.*/model\.bin")
    with pytest.raises(kind):
        rig.fetch(plan)
    assert_nothing_is_visible(plan)


@pytest.mark.parametrize("after_bytes", [EARLY, None])
def test_a_fetch_that_hangs_is_cancelled_within_a_second(rig: Rig, after_bytes: int | None) -> None:
    plan = rig.plan()
    rig.hub.add_fault(Stall(after_bytes=after_bytes), path=LARGE)
    seconds = time_to_stop(rig, plan, lambda: rig.hub.wait_for(requests=1, path=LARGE))
    assert seconds < 1.0
    assert_nothing_is_visible(plan)


def test_a_fetch_that_waits_to_ask_again_is_cancelled_within_a_second(rig: Rig) -> None:
    rig.hub.add_fault(Status(status=503, headers={"Retry-After": "5"}), path=LARGE)
    seconds = time_to_stop(rig, rig.plan(), lambda: rig.hub.wait_for(requests=1, path=LARGE))
    assert seconds < 1.0


def test_what_arrived_before_a_cancel_is_not_asked_for_again(rig: Rig, folder: Path) -> None:
    plan = rig.plan()
    rig.hub.add_fault(Stall(after_bytes=EARLY), path=LARGE, origin=Origin.CDN)
    time_to_stop(rig, plan, lambda: rig.hub.wait_for(sent_bytes=2 * EARLY, origin="cdn"))
    rig.hub.clear_faults()
    rig.hub.reset_counts()
    fetched = rig.fetch(plan)
    assert read_folder(fetched.snapshot_dir) == read_folder(folder)
    assert fetched.resumed_bytes >= EARLY
    sent_bytes = rig.hub.read_counts().file_bytes(file="model.bin")
    assert sent_bytes == LARGE_BYTES - fetched.resumed_bytes
    assert list(plan.layout.work.iterdir()) == []


def time_to_stop(rig: Rig, plan: FetchPlan, ready: Callable[[], None]) -> float:
    """Seconds from `stop` to Cancelled, for a fetch that is stopped once `ready` returns."""
    stop, ended = Event(), []

    def fetch() -> None:
        with pytest.raises(Cancelled):
            rig.fetch(plan, stop=stop)
        ended.append(time.monotonic())

    thread = Thread(target=fetch)
    thread.start()
    ready()
    started = time.monotonic()
    stop.set()
    thread.join(timeout=10)
    (at,) = ended
    assert list_lingering_threads() == []
    return float(at - started)


def test_a_stalled_body_is_a_failure_after_the_read_timeout(rig: Rig, folder: Path) -> None:
    rig.hub.add_fault(Stall(after_bytes=EARLY), path=LARGE, times=1)
    timeouts = Timeouts(connect_seconds=5.0, read_seconds=0.3)
    assert read_folder(rig.fetch(timeouts=timeouts).snapshot_dir) == read_folder(folder)


def test_a_body_that_only_drips_is_a_failure_too(rig: Rig, folder: Path) -> None:
    drip = Drip(chunk_bytes=100, pause_seconds=0.05)
    rule = rig.hub.add_fault(drip, path=LARGE, origin=Origin.CDN, times=2)
    timeouts = Timeouts(read_seconds=5.0, drip_seconds=0.3)
    assert read_folder(rig.fetch(timeouts=timeouts).snapshot_dir) == read_folder(folder)
    assert rig.hub.count_fired(rule) == 2


def test_further_ranges_of_a_file_cost_no_further_answer_of_the_hub(rig: Rig) -> None:
    rig.fetch()
    counts = rig.hub.read_counts()
    assert counts.requests(origin="hub", path=r"resolve/.*/model\.bin") <= 2
    assert counts.requests(origin="cdn", path=LARGE) == FIRST_REQUESTS


def test_a_fetch_has_a_deadline(rig: Rig) -> None:
    plan = rig.plan()
    rig.hub.add_fault(Latency(seconds=20.0), path=LARGE)
    with pytest.raises(Timeout):
        rig.fetch(plan, timeout_seconds=0.3)
    assert_nothing_is_visible(plan)


@contextmanager
def redirected_elsewhere(rig: Rig) -> Iterator[None]:
    """The Hub sends the download to its content network under another host's name."""
    commit = rig.hub.get_commit(MODEL).sha
    answer = httpx.get(f"{rig.hub.url}/{MODEL}/resolve/{commit}/model.bin")
    elsewhere = answer.headers["location"].replace("127.0.0.1", "localhost")
    rig.hub.reset_counts()
    rule = rig.hub.add_fault(Headers(replaced={"Location": elsewhere}), path=f"resolve/.*{LARGE}")
    yield
    rig.hub.clear_faults(rule)


def test_a_redirect_to_another_host_is_not_followed_unless_it_is_allowed(
    rig: Rig, folder: Path
) -> None:
    rig.hub.grant("hf_reader", MODEL)
    plan = rig.plan()
    with redirected_elsewhere(rig):
        with pytest.raises(HubUnavailable, match="leads to http://localhost, which is not"):
            rig.fetch(plan, token="hf_reader")
        assert rig.hub.list_requests(origin="cdn") == []
        fetched = rig.fetch(plan, token="hf_reader", allowed_hosts=["localhost"])
    assert read_folder(fetched.snapshot_dir) == read_folder(folder)
    assert {seen.has_token for seen in rig.hub.list_requests(origin="cdn")} == {False}


@pytest.mark.parametrize(
    "location", ["http://user:pw@127.0.0.1:9/x", "file:///etc/passwd", "http://[bad/", "//evil/x"]
)
def test_a_redirect_to_nonsense_is_refused(rig: Rig, location: str) -> None:
    rig.hub.add_fault(Headers(replaced={"Location": location}), path=f"resolve/.*{LARGE}")
    with pytest.raises(HubUnavailable, match=r"leads to|redirects to no address"):
        rig.fetch()


def test_redirects_in_a_circle_come_to_an_end(rig: Rig) -> None:
    circle = f"/{MODEL}/resolve/{rig.hub.get_commit(MODEL).sha}/model.bin"
    rig.hub.add_fault(Headers(replaced={"Location": circle}), path=f"resolve/.*{LARGE}")
    with pytest.raises(HubUnavailable, match="redirects"):
        rig.fetch()


@pytest.mark.parametrize("token", ["hf_secret\n", "hf_secret x", "hf_sécret"])
def test_a_token_that_cannot_be_sent_is_refused_without_showing_it(rig: Rig, token: str) -> None:
    with pytest.raises(Unauthorized) as caught:
        rig.source(rig.plan(), token=token)
    assert "secret" not in str(caught.value)


def test_a_hostile_etag_is_written_nowhere(rig: Rig, folder: Path) -> None:
    hostile = {"ETag": '"../../../evil"', "X-Linked-Etag": '"../../../evil"'}
    rig.hub.add_fault(Headers(replaced=hostile), path="resolve")
    assert read_folder(rig.fetch().snapshot_dir) == read_folder(folder)
    assert list(rig.cache_dir.parent.rglob("*evil*")) == []


def test_a_repository_that_was_renamed_is_found_under_its_old_name(rig: Rig, folder: Path) -> None:
    plan = rig.plan()
    rig.hub.move_repository(MODEL, "acme/new-name")
    fetched = rig.fetch(plan)
    layout = RepositoryLayout(cache_dir=rig.cache_dir, repository=MODEL)
    assert fetched.snapshot_dir == layout.snapshot(plan.commit)
    assert read_folder(fetched.snapshot_dir) == read_folder(folder)
