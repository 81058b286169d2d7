"""Files from Xet storage: taken where the Hub offers them, and by ranged HTTP where that fails."""

import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import pytest

from tests.hub.control import Hub, Served, running_hub
from tests.hub.faults import Fault, Headers, Origin, Status
from tests.hub.models import get_model_folder
from tests.services.test_fetch_snapshot import MODEL, list_facts
from warmrack_workers.fetch.fetcher import FetchedSnapshot, FetchPlan, fetch_snapshot
from warmrack_workers.fetch.hub_source import HubSource
from warmrack_workers.fetch.patience import Patience
from warmrack_workers.fetch.xet_source import XetHub, XetSource, is_xet_hash

WEIGHTS = "model.safetensors"
TOKEN = "hf_of_a_reader"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    hub: Hub
    store: Path
    cache_dir: Path

    def fetch(self, token: str | None = None, stall_seconds: float = 5.0) -> FetchedSnapshot:
        commit = self.hub.get_commit(MODEL).sha
        plan = FetchPlan(
            cache_dir=self.cache_dir,
            repository=MODEL,
            commit=commit,
            files=list_facts(self.hub, commit, token),
            public=token is None,
        )
        asked = {"endpoint": self.hub.url, "repository": MODEL, "commit": commit, "token": token}
        with (
            HubSource(**asked) as plain,  # type: ignore[arg-type]
            XetSource(XetHub(**asked), plain, stall_seconds=stall_seconds) as source,  # type: ignore[arg-type]
        ):
            return fetch_snapshot(
                plan,
                source,
                on_progress=lambda _progress: None,
                stop=Event(),
                patience=Patience(first_seconds=0.02),
            )

    def requests(self, **selection: str) -> int:
        return self.hub.read_counts().requests(**selection)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    served = Served(folder=get_model_folder("tiny_llama"), tokens=(TOKEN,))
    with running_hub({MODEL: served}) as hub:
        hub.serve_xet(tmp_path / "store")
        yield Rig(hub=hub, store=tmp_path / "store", cache_dir=tmp_path / "cache")


def is_whole(fetched: FetchedSnapshot) -> bool:
    expected = (get_model_folder("tiny_llama") / WEIGHTS).read_bytes()
    return (fetched.snapshot_dir / WEIGHTS).read_bytes() == expected


def test_weights_come_by_xet_and_small_files_by_http(rig: Rig) -> None:
    fetched = rig.fetch()
    assert is_whole(fetched)
    assert fetched.hub_bytes == sum(file.size_bytes for file in fetched.files)
    assert rig.requests(origin=Origin.CDN) == 0
    assert rig.requests(path="xet-read-token") == 1
    assert rig.requests(method="HEAD") == 1


def test_hub_without_xet_is_asked_by_http(rig: Rig) -> None:
    rig.hub.serve_xet(None)
    assert is_whole(rig.fetch())
    assert rig.requests(origin=Origin.CDN) > 0


def test_what_the_storage_has_lost_comes_by_http(rig: Rig) -> None:
    rig.fetch()
    shutil.rmtree(rig.cache_dir)
    shutil.rmtree(rig.store)
    assert is_whole(rig.fetch())
    assert rig.requests(origin=Origin.CDN) > 0


@pytest.mark.parametrize(
    "fault",
    [
        Status(status=401),
        Headers(removed=("x-xet-access-token",)),
        Headers(replaced={"X-Xet-Token-Expiration": "soon"}),
        Headers(replaced={"X-Xet-Cas-Url": "https://elsewhere.example"}),
    ],
    ids=["refused", "no-token", "no-date", "other-host"],
)
def test_token_that_is_not_to_be_had_or_used_leaves_the_file_to_http(
    rig: Rig, fault: Fault
) -> None:
    rig.hub.add_fault(fault, path="xet-read-token")
    assert is_whole(rig.fetch())
    assert rig.requests(origin=Origin.CDN) > 0


def test_callers_token_goes_to_no_other_origin(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0.2)
        port = elsewhere.getsockname()[1]
        link = f'<http://127.0.0.1:{port}/token>; rel="xet-auth"'
        rig.hub.add_fault(Headers(replaced={"Link": link}), path=WEIGHTS)
        assert is_whole(rig.fetch(token=TOKEN))
        with pytest.raises(TimeoutError):
            elsewhere.accept()


def test_storage_that_never_answers_is_given_up(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        rig.hub.add_fault(Headers(replaced={"X-Xet-Cas-Url": address}), path="xet-read-token")
        assert is_whole(rig.fetch(stall_seconds=0.5))
    assert rig.requests(origin=Origin.CDN) > 0


@pytest.mark.parametrize("text", ["", "0" * 63, "g" * 64, "../" + "0" * 61, "0" * 64 + "\n"])
def test_what_is_no_hash_is_not_asked_for(text: str) -> None:
    assert not is_xet_hash(text)
