"""Where `up` and `serve` agree to listen."""

import socket
from pathlib import Path

import pytest

from tests.unit.command_line import Warmrack
from warmrack_daemon.listening import Listening, check_access
from warmrack_daemon.supervisor import child_environment
from warmrack_store.errors import BadRequest, Contradiction, NotSupported
from warmrack_store.settings import Auth, Settings


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def at(host: str, *, behind_proxy: bool = False) -> Listening:
    return Listening(host=host, port=8420, behind_proxy=behind_proxy)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_loopback_needs_no_keys(host: str) -> None:
    check_access(Auth.OFF, at(host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1"])
def test_an_address_that_others_reach_needs_the_word_that_a_proxy_guards_it(host: str) -> None:
    with pytest.raises(Contradiction, match="loopback") as refused:
        check_access(Auth.OFF, at(host))
    assert "--behind-proxy" in refused.value.hint
    check_access(Auth.OFF, at(host, behind_proxy=True))


def test_a_host_that_is_no_address_is_refused() -> None:
    with pytest.raises(BadRequest, match="--no-such"):
        check_access(Auth.OFF, at("--no-such"))


def test_keys_are_refused_wherever_it_listens() -> None:
    with pytest.raises(NotSupported, match="keys"):
        check_access(Auth.KEYS, at("127.0.0.1", behind_proxy=True))


def test_the_children_are_told_what_auth_is_asked_for() -> None:
    environment = child_environment(Settings(auth=Auth.KEYS))
    assert environment["WARMRACK_AUTH"] == "keys"


@pytest.mark.parametrize("command", ["up", "serve"])
def test_up_and_serve_refuse_before_anything_is_made(
    command: str, warmrack: Warmrack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = ("--state-dir", str(tmp_path / "state"))
    open_to_all = warmrack(command, "--host", "0.0.0.0", *state, "--json")
    assert (open_to_all.code, open_to_all.json["error"]["code"]) == (2, "contradiction")
    monkeypatch.setenv("WARMRACK_AUTH", "keys")
    keys = warmrack(command, *state, "--json")
    assert (keys.code, keys.json["error"]["code"]) == (3, "not-supported")
    assert list(tmp_path.iterdir()) == []


def test_up_tells_what_is_wrong_with_its_settings_before_it_starts_anything(
    warmrack: Warmrack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    state = ("--state-dir", str(tmp_path / "state"))
    monkeypatch.setenv("WARMRACK_CACHE_DIR", str(tmp_path / "file"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = ("--port", str(taken.getsockname()[1]))
        for arguments, said in (
            ((*state, "--devices", "nonsense"), "nonsense"),
            ((*state, *port), "cache_dir"),
            (("--state-dir", str(tmp_path / "file")), "cache_dir"),
        ):
            outcome = warmrack("up", *arguments, "--json")
            assert (outcome.code, said in outcome.json["error"]["message"]) == (2, True)
        monkeypatch.setenv("WARMRACK_CACHE_DIR", str(tmp_path / "cache"))
        for folder in ("/proc/x", str(tmp_path / "file"), str(tmp_path / "file" / "x")):
            outcome = warmrack("up", "--state-dir", folder, "--json")
            assert (outcome.code, "state_dir" in outcome.json["error"]["message"]) == (2, True)
        outcome = warmrack("up", *state, *port, "--json")
        assert (outcome.code, port[1] in outcome.json["error"]["message"]) == (2, True)
    assert not (tmp_path / "state" / "logs").exists()


@pytest.mark.parametrize("command", ["up", "migrate"])
def test_a_database_file_that_is_none_is_named_with_what_to_do(
    command: str, warmrack: Warmrack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARMRACK_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "warmrack.db").write_bytes(b"no database, " * 1000)
    port = ("--port", str(free_port())) if command == "up" else ()
    outcome = warmrack(command, "--state-dir", str(tmp_path), *port, "--json")
    assert (outcome.code, "Traceback" in outcome.err) == (4, False)
    assert "broken" in outcome.json["error"]["message"]
    assert "move it away" in outcome.json["error"]["hint"]


def test_a_database_whose_folder_cannot_be_made_is_bad_usage(warmrack: Warmrack) -> None:
    outcome = warmrack("migrate", "--state-dir", "/proc/x", "--json")
    assert (outcome.code, outcome.json["error"]["code"]) == (2, "bad-request")


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:8420"), ("::1", "http://[::1]:8420"), ("a", "http://a:8420")],
)
def test_its_url_is_one_that_this_machine_reaches(host: str, url: str) -> None:
    assert at(host).url == url
