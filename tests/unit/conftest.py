"""What the tests of the client and of the command line share."""

from collections.abc import Iterator

import pytest

from tests.unit.command_line import Outcome, Warmrack
from tests.unit.scripted_service import Service, serving


@pytest.fixture(scope="session")
def running_service() -> Iterator[Service]:
    with serving() as service:
        yield service


@pytest.fixture
def service(running_service: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    """A service without a script, which the settings of this process name."""
    running_service.forget()
    monkeypatch.setenv("WARMRACK_URL", running_service.url)
    return running_service


@pytest.fixture
def warmrack(service: Service, capsys: pytest.CaptureFixture[str]) -> Warmrack:
    from warmrack_daemon.cli.program import run

    def call(*arguments: str) -> Outcome:
        code = run(arguments)
        out, err = capsys.readouterr()
        return Outcome(code=code, out=out, err=err)

    return call
