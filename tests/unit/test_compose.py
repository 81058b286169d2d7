"""compose.yaml starts what the command line has, knows only real settings and holds no secret."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from warmrack_daemon.cli.program import make_program
from warmrack_store.settings import Settings

CHECKOUT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((CHECKOUT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if service["image"] == "warmrack")
_GIVEN_BY_ENV_FILE = re.compile(r"\$\{[A-Z_]+:\?[^}]+\}")
_SECRET_NAME = re.compile(r"PASSWORD|TOKEN|SECRET|API_KEY$")


def list_ending() -> set[str]:
    """The services that others wait for until they have ended."""
    waits = [service.get("depends_on", {}).items() for service in SERVICES.values()]
    done = "service_completed_successfully"
    return {name for wait in waits for name, how in wait if how["condition"] == done}


def list_settings() -> list[tuple[str, str, str]]:
    return [
        (service, name, str(value))
        for service, described in sorted(SERVICES.items())
        for name, value in described["environment"].items()
    ]


def test_every_part_of_a_cluster_is_there() -> None:
    assert {"control", "worker", "broker", "database"} <= set(SERVICES)
    assert "valkey" in SERVICES["broker"]["image"]
    assert "postgres" in SERVICES["database"]["image"]


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - list_ending()))
def test_service_that_keeps_running_has_a_health_check(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert check["interval"]


def test_only_the_migration_ends_by_itself() -> None:
    assert list_ending() == {"migrate"}
    assert SERVICES["migrate"]["restart"] == "no"


@pytest.mark.parametrize("name", OURS)
def test_command_and_its_options_are_those_of_the_command_line(name: str) -> None:
    command, *arguments = SERVICES[name]["command"]
    described: Any = typer.main.get_command(make_program())
    options = {option for one in described.commands[command].params for option in one.opts}
    assert {word for word in arguments if word.startswith("--")} <= options


@pytest.mark.parametrize("name", OURS)
def test_variable_is_a_setting_and_every_part_has_the_shared_ones(name: str) -> None:
    names = set(SERVICES[name]["environment"])
    known = {f"WARMRACK_{field.upper()}" for field in Settings.model_fields}
    assert names <= known
    shared = {"WARMRACK_DATABASE_URL", "WARMRACK_BROKER_URL", "WARMRACK_CLUSTER_KEY_FILE"}
    assert shared <= names


@pytest.mark.parametrize(("service", "name", "value"), list_settings())
def test_secret_comes_from_outside(service: str, name: str, value: str) -> None:
    if _SECRET_NAME.search(name):
        assert _GIVEN_BY_ENV_FILE.fullmatch(value)
    if "@" in value:
        password = value.partition("://")[2].partition("@")[0].partition(":")[2]
        assert _GIVEN_BY_ENV_FILE.fullmatch(password)


def test_password_is_on_no_command_line() -> None:
    for service in SERVICES.values():
        assert "${" not in str(service.get("command"))
        assert "${" not in str(service.get("healthcheck"))


def test_key_of_the_cluster_is_a_secret_file_that_git_ignores() -> None:
    for name in OURS:
        assert SERVICES[name]["secrets"] == ["cluster_key"]
    file = COMPOSE["secrets"]["cluster_key"]["file"]
    ignored = (CHECKOUT / ".gitignore").read_text().splitlines()
    assert file.startswith("./secrets/")
    assert {"secrets/", ".env"} <= set(ignored)


def test_worker_reserves_the_gpus_of_its_machine() -> None:
    devices = SERVICES["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert [(one["driver"], one["capabilities"]) for one in devices] == [("nvidia", ["gpu"])]
    assert "deploy" not in SERVICES["control"]


def test_control_plane_without_keys_is_published_on_loopback_only() -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES["control"]["ports"])


def test_every_part_starts_from_the_one_image() -> None:
    lines = (CHECKOUT / "Dockerfile").read_text().splitlines()
    assert 'ENTRYPOINT ["warmrack"]' in lines
    copied = {word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]}
    assert {"store", "daemon", "workers", "pyproject.toml", "constraints.txt"} <= copied
    assert all((CHECKOUT / word).exists() for word in copied)
