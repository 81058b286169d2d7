"""What `doctor` finds, and how it says what to do."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from tests.unit.scripted_service import Reply, Service, page, problem
from warmrack_daemon.cli.doctor import machine, stores
from warmrack_daemon.cli.doctor import service as service_checks
from warmrack_daemon.cli.doctor.findings import Check, Verdict
from warmrack_daemon.cli.program import run
from warmrack_store import errors
from warmrack_store.database import migrate
from warmrack_store.settings import Settings


def verdicts(check: Check, settings: Settings) -> dict[str, tuple[Verdict, str]]:
    """check name -> the worst finding's verdict and message."""
    found = sorted(check(settings), key=lambda one: list(Verdict).index(one.verdict))
    assert all(one.remedy for one in found if one.verdict is not Verdict.OK)
    return {one.check: (one.verdict, one.message) for one in found}


def verdict(check: Check, settings: Settings, name: str) -> Verdict:
    return verdicts(check, settings)[name][0]


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ("auto", Verdict.OK),
        ("cpu:0=4GiB,cpu:1=512MiB", Verdict.OK),
        ("cpu:0=lots", Verdict.WRONG),
        ("tpu:0", Verdict.WRONG),
        ("", Verdict.WRONG),
    ],
)
def test_a_devices_setting_that_cannot_be_read_is_wrong(devices: str, expected: Verdict) -> None:
    assert verdict(machine.check_devices, Settings(devices=devices), "devices") is expected


def test_the_installed_versions_are_told() -> None:
    found = verdicts(machine.check_versions, Settings())
    assert "warmrack" in found["python"][1]
    assert found["libraries"][0] in {Verdict.OK, Verdict.WARNING}


def test_a_cache_folder_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    settings = Settings(cache_dir=tmp_path / "not" / "there")
    assert verdict(machine.check_cache, settings, "file system") is Verdict.OK
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_is_a_file_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = Settings(cache_dir=tmp_path / "file")
    assert verdict(machine.check_cache, settings, "cache") is Verdict.WRONG


def test_a_cache_on_a_file_system_without_links_is_wrong() -> None:
    settings = Settings(cache_dir=Path("/proc"))
    found = verdicts(machine.check_cache, settings)
    assert Verdict.WRONG in {one for one, _ in found.values()}


def test_a_state_folder_that_takes_no_byte_is_wrong_and_one_that_does_is_left_as_it_was(
    tmp_path: Path,
) -> None:
    assert verdict(machine.check_state, Settings(state_dir=tmp_path), "state") is Verdict.OK
    assert list(tmp_path.iterdir()) == []
    found = verdicts(machine.check_state, Settings(state_dir=Path("/proc")))["state"]
    assert (found[0], "/proc" in found[1]) == (Verdict.WRONG, True)


def test_a_database_that_can_be_read_and_not_written_is_wrong(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    migrate(settings.effective_database_url)
    with closing(sqlite3.connect(tmp_path / "warmrack.db")) as other:
        other.execute("CREATE TRIGGER full BEFORE INSERT ON leases BEGIN SELECT missing(); END")
    found = verdicts(stores.check_database, settings)["database"]
    assert (found[0], "takes no write" in found[1]) == (Verdict.WRONG, True)


def test_a_database_file_that_is_none_is_wrong_with_what_to_do(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    (tmp_path / "warmrack.db").write_bytes(b"no database, " * 1000)
    (found,) = stores.check_database(settings)
    assert (found.verdict, "broken" in found.message) == (Verdict.WRONG, True)
    assert "move it away" in found.remedy


def test_the_database_is_missing_then_ok_and_never_made_by_looking(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    assert verdict(stores.check_database, settings, "database") is Verdict.WARNING
    assert list(tmp_path.iterdir()) == []
    migrate(settings.effective_database_url)
    assert verdict(stores.check_database, settings, "database") is Verdict.OK


def test_a_database_behind_the_newest_schema_asks_for_migrate(tmp_path: Path) -> None:
    (tmp_path / "warmrack.db").touch()
    settings = Settings(state_dir=tmp_path)
    assert "not " in verdicts(stores.check_database, settings)["database"][1]
    assert verdict(stores.check_database, settings, "database") is Verdict.WRONG


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////proc/1/no/such.db?mode=ro&uri=true"])
def test_a_database_that_cannot_be_opened_is_not_ok_and_passwords_are_hidden(url: str) -> None:
    settings = Settings(database_url=url)
    assert verdict(stores.check_database, settings, "database") is not Verdict.OK


def test_a_broker_that_does_not_answer_is_wrong_and_its_password_is_not_shown() -> None:
    for url in ("redis://:secret@127.0.0.1:9/0", "http://127.0.0.1:9"):
        found = verdicts(stores.check_broker, Settings(broker_url=url))["broker"]
        assert found[0] is Verdict.WRONG
        assert "secret" not in found[1]
    assert verdict(stores.check_broker, Settings(), "broker") is Verdict.OK


def test_the_hub_is_reachable_with_or_without_a_token_and_a_bad_token_is_told(
    service: Service,
) -> None:
    service.on("GET", "/api/models", Reply(body=[]))
    service.on("GET", "/api/whoami-v2", Reply(status=401, body={}), Reply(body={"name": "me"}))
    open_hub = Settings(hub_endpoint=service.url)
    assert verdict(stores.check_hub, open_hub, "hub") is Verdict.OK
    assert "authorization" not in service.seen[0].headers
    with_token = Settings(hub_endpoint=service.url, hub_token="hf_x")
    found = verdicts(stores.check_hub, with_token)["hub"]
    assert found[0] is Verdict.WRONG
    assert "hf_x" not in found[1]
    assert verdict(stores.check_hub, with_token, "hub") is Verdict.OK
    nowhere = Settings(hub_endpoint="http://127.0.0.1:9")
    assert verdict(stores.check_hub, nowhere, "hub") is Verdict.WRONG


def test_nodes_that_are_lost_and_hosts_left_on_them_are_told(service: Service) -> None:
    service.on("GET", "/healthz", Reply(body={"status": "ok", "version": "1"}))
    nodes = ({"name": "a", "state": "ready"}, {"name": "b", "state": "lost"})
    service.on("GET", "/api/v1/nodes", page(*nodes))
    left = {"id": "r9", "model": "org/name", "state": "warm", "node": "b", "pid": 7}
    service.on("GET", "/api/v1/residents", page(left))
    found = verdicts(service_checks.check_service, Settings(url=service.url))
    assert found["service"] == (Verdict.OK, f"{service.url} answers, version 1")
    assert found["nodes"] == (Verdict.WARNING, "b is lost")
    assert "r9" in found["hosts"][1]


def test_a_pool_without_a_ready_node_is_wrong(service: Service) -> None:
    service.on("GET", "/healthz", Reply(body={"status": "ok"}))
    service.on("GET", "/api/v1/nodes", page())
    service.on("GET", "/api/v1/residents", page())
    settings = Settings(url=service.url)
    assert verdict(service_checks.check_service, settings, "nodes") is Verdict.WRONG


def test_a_service_that_is_away_or_cannot_read_its_database_is_wrong(service: Service) -> None:
    away = Settings(url="http://127.0.0.1:9")
    assert verdict(service_checks.check_service, away, "service") is Verdict.WRONG
    service.on("GET", "/healthz", Reply(body={"status": "ok"}))
    service.on("GET", "/api/v1/nodes", problem(errors.StoreUnavailable("no database")))
    here = Settings(url=service.url)
    assert verdicts(service_checks.check_service, here)["service"][1].endswith("no database")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"status": "ok", "intake": "stopped"}, {"intake": Verdict.WRONG}),
        ({"status": "ok", "intake": "running"}, {"intake": Verdict.OK}),
        ({"status": "ok"}, {}),
        ([], {}),
    ],
)
def test_an_intake_that_takes_no_messages_is_wrong(
    service: Service, body: object, expected: dict[str, Verdict]
) -> None:
    service.on("GET", "/readyz", Reply(body=body))
    found = verdicts(service_checks.check_intake, Settings(url=service.url))
    assert {name: one for name, (one, _) in found.items()} == expected


@pytest.mark.parametrize(
    ("hours", "expected"), [(0, Verdict.OK), (-1, Verdict.WRONG), (1, Verdict.WRONG)]
)
def test_a_clock_that_is_off_is_wrong(service: Service, hours: int, expected: Verdict) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(hours=hours), usegmt=True)
    service.on("GET", "/healthz", Reply(body={}, headers={"date": date}))
    assert verdict(service_checks.check_clock, Settings(url=service.url), "clock") is expected


def test_doctor_prints_a_line_a_check_and_exits_1_where_something_is_wrong(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    service.on("GET", "/healthz", Reply(body={"status": "ok", "version": "1"}))
    service.on("GET", "/api/v1/nodes", page({"name": "a", "state": "ready"}))
    service.on("GET", "/api/v1/residents", page())
    service.on("GET", "/api/models", Reply(body=[]))
    for name in ("URL", "HUB_ENDPOINT"):
        monkeypatch.setenv(f"WARMRACK_{name}", service.url)
    for name in ("STATE_DIR", "CACHE_DIR"):
        monkeypatch.setenv(f"WARMRACK_{name}", str(tmp_path))
    assert run(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line[0] for line in lines} <= {"✓", "!", " "}
    monkeypatch.setenv("WARMRACK_DEVICES", "tpu:0")
    assert run(["doctor", "--json"]) == 1
    items = json.loads(capsys.readouterr().out)["items"]
    wrong = [one["check"] for one in items if one["verdict"] == "wrong"]
    assert wrong == ["devices"]
    assert set(items[0]) == {"check", "verdict", "message", "remedy"}
