"""The commands about receipts: what is checked offline, against what, and with which exit code."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.command_line import Warmrack
from tests.unit.scripted_service import JOBS, Reply, Service
from warmrack_store.attestation import Proved, make_statement, sign_statement
from warmrack_store.envelopes import SigningKey
from warmrack_store.receipts import Check, Level, Receipt, Served, ServedAdapter, ServedFile

KEY = SigningKey(b"p" * 32)
OTHER = SigningKey(b"o" * 32)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""sha256 of no bytes."""
FILES = ("config.json", "onnx/model.onnx")


@pytest.fixture(autouse=True)
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WARMRACK_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("WARMRACK_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "state"


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """In the local cache, as the receipt says."""
    folder = tmp_path / "cache" / "models--org--name" / "snapshots" / COMMIT
    for path in FILES:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


def make_envelope(
    key: SigningKey = KEY,
    paths: tuple[str, ...] = FILES,
    adapter: ServedAdapter | None = None,
) -> str:
    receipt = Receipt(
        level=Level.FILES,
        asked="org/name",
        served=Served(repository="org/name", commit=COMMIT, precision="bf16", adapter=adapter),
        checks={"E1": Check(passed=True, detail="as asked")},
        files=tuple(ServedFile(path=path, size=0, sha256=EMPTY) for path in paths),
        tensor_root=None,
        identical=True,
    )
    proved = Proved(id="rec_1", proved_at="2026-01-02T03:04:05.678Z", receipt=receipt)
    return sign_statement(make_statement(proved), key).to_json()


@pytest.fixture
def exported(tmp_path: Path) -> str:
    path = tmp_path / "receipt.json"
    path.write_text(make_envelope())
    return str(path)


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    path = tmp_path / "pool.pem"
    path.write_text(KEY.public.pem)
    return str(path)


def offer_key(service: Service, key: SigningKey = KEY) -> None:
    body = {"keyid": key.public.keyid, "algorithm": "ed25519", "pem": key.public.pem}
    service.on("GET", "/api/v1/pool/key", Reply(body=body))


def test_exported_receipt_is_verified_offline_with_a_key_given(
    service: Service, warmrack: Warmrack, exported: str, key_file: str
) -> None:
    done = warmrack("receipt", "--verify", exported, "--key", key_file)
    assert done.code == 0, done.err
    assert f"signed by {KEY.public.keyid}" in done.out
    assert service.seen == []
    found = warmrack("receipt", "--verify", exported, "--key", key_file, "--json").json
    assert (found["verified"], found["keyid"]) == (True, KEY.public.keyid)
    assert found["statement"]["predicate"]["id"] == "rec_1"


def test_signature_of_a_key_that_nobody_remembers_is_not_called_verified(
    warmrack: Warmrack, exported: str
) -> None:
    done = warmrack("receipt", "--verify", exported, "--json")
    assert (done.code, done.json["error"]["code"]) == (5, "integrity")
    assert f"unknown key ({KEY.public.keyid[:16]})" in done.json["error"]["message"]


def test_key_of_the_pool_that_a_receipt_was_exported_from_is_remembered(
    service: Service, warmrack: Warmrack, tmp_path: Path, state_dir: Path
) -> None:
    offer_key(service)
    service.on("GET", f"{JOBS}/j1/receipt", Reply(body=make_envelope()))
    target = str(tmp_path / "out.json")
    assert warmrack("receipt", "j1", "--export", target).code == 0
    assert service.asked("GET", f"{JOBS}/j1/receipt")[0].query == {"format": "dsse"}
    assert warmrack("receipt", "--verify", target).code == 0
    assert [path.stem for path in (state_dir / "pool-keys").iterdir()] == [KEY.public.keyid]
    assert warmrack("receipt", "j1", "--export", "-").out == make_envelope()


def test_pool_key_is_printed_and_remembered_only_when_asked(
    service: Service, warmrack: Warmrack, exported: str
) -> None:
    offer_key(service)
    assert warmrack("pool-key").out == KEY.public.pem
    assert warmrack("receipt", "--verify", exported).code == 5
    assert warmrack("pool-key", "--remember", "--json").json["keyid"] == KEY.public.keyid
    assert warmrack("receipt", "--verify", exported).code == 0


def test_key_given_stands_alone(
    service: Service, warmrack: Warmrack, exported: str, tmp_path: Path
) -> None:
    offer_key(service)
    warmrack("pool-key", "--remember")
    (tmp_path / "other.pem").write_text(OTHER.public.pem)
    key = str(tmp_path / "other.pem")
    assert warmrack("receipt", "--verify", exported, "--key", key).code == 5


def test_files_of_a_folder_and_of_the_local_cache_are_held_against_the_receipt(
    warmrack: Warmrack, exported: str, key_file: str, snapshot: Path
) -> None:
    verify = ("receipt", "--verify", exported, "--key", key_file)
    assert warmrack(*verify, "--snapshot", str(snapshot)).code == 0
    assert warmrack(*verify, "--local", "--json").json["files"]["checked"] == len(FILES)
    (snapshot / FILES[1]).write_text("x")
    for where in (("--snapshot", str(snapshot)), ("--local",)):
        done = warmrack(*verify, *where, "--json")
        assert (done.code, done.json["error"]["code"]) == (5, "integrity")
        assert FILES[1] in done.json["error"]["message"]
    (snapshot / FILES[1]).unlink()
    assert warmrack(*verify, "--local").code == 5


def test_files_of_an_adapter_lie_in_a_snapshot_of_its_own(
    warmrack: Warmrack, tmp_path: Path, key_file: str, snapshot: Path
) -> None:
    adapter = ServedAdapter(repository="org/lora", commit="b" * 40, how="attached")
    path = tmp_path / "adapted.json"
    path.write_text(make_envelope(paths=(*FILES, "adapter_config.json"), adapter=adapter))
    own = tmp_path / "cache" / "models--org--lora" / "snapshots" / adapter.commit
    own.mkdir(parents=True)
    verify = ("receipt", "--verify", str(path), "--key", key_file, "--local")
    assert warmrack(*verify).code == 5
    (own / "adapter_config.json").touch()
    done = warmrack(*verify)
    assert done.code == 0, done.err
    assert f"adapter org/lora@{adapter.commit} attached" in done.out
    (own / "adapter_config.json").write_text("{}")
    assert warmrack(*verify).code == 5


def test_signed_path_out_of_the_folder_is_not_followed(
    warmrack: Warmrack, tmp_path: Path, key_file: str, snapshot: Path
) -> None:
    path = tmp_path / "evil.json"
    path.write_text(make_envelope(paths=("../../../../x",)))
    done = warmrack("receipt", "--verify", str(path), "--key", key_file, "--local")
    assert done.code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("j1", "--verify", "--export", "x.json"),
        ("j1", "--key", "x.pem"),
        ("j1", "--verify", "--local"),
        ("missing.json", "--verify"),
        ("-", "--verify", "--local", "--snapshot", "x"),
    ],
)
def test_what_does_not_go_together_is_wrong_usage(
    service: Service, warmrack: Warmrack, arguments: tuple[str, ...]
) -> None:
    assert warmrack("receipt", *arguments).code == 2
    assert service.seen == []


def test_key_that_is_none_is_wrong_usage(warmrack: Warmrack, exported: str) -> None:
    assert warmrack("receipt", "--verify", exported, "--key", exported).code == 2


def recheck(**fields: Any) -> dict[str, Any]:
    disk = {
        "node": "node-0",
        "files": [{"path": "config.json", "state": "good", "size": 0, "sha256": EMPTY}],
        "read_bytes": 0,
        "seconds": 0.1,
    }
    found = {"receipt": "rec_1", "job": "j1", "passed": True, "disk": disk, "memory": None}
    return found | fields


def test_job_whose_files_and_memory_hold_passes(service: Service, warmrack: Warmrack) -> None:
    service.on("POST", f"{JOBS}/j1/receipt/verify", Reply(body=recheck()))
    done = warmrack("receipt", "j1", "--verify")
    assert done.code == 0
    assert "as the receipt says" in done.out
    assert "not warm" in done.out


def test_job_that_no_longer_holds_is_reported_whole_and_ends_with_integritys_code(
    service: Service, warmrack: Warmrack
) -> None:
    error = {"code": "integrity", "message": "m", "hint": "h", "retryable": False}
    wrong = recheck(
        passed=False,
        differences=["config.json is corrupt on node-0"],
        consequences=["config.json is in quarantine"],
        error=error,
    )
    service.on("POST", f"{JOBS}/j1/receipt/verify", Reply(body=wrong))
    done = warmrack("receipt", "j1", "--verify")
    assert done.code == 5
    assert "✗ config.json is corrupt on node-0" in done.out
    assert "config.json is in quarantine" in done.out
    done = warmrack("receipt", "j1", "--verify", "--json")
    assert (done.code, done.json["error"]["code"]) == (5, "integrity")


def test_receipt_is_found_by_its_own_id_too(service: Service, warmrack: Warmrack) -> None:
    service.on("POST", "/api/v1/receipts/rec_1/verify", Reply(body=recheck(job=None)))
    assert warmrack("receipt", "rec_1", "--verify").code == 0
