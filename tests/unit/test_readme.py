"""The README: its commands exist, its links lead somewhere, its examples are found and run."""

import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from docs.examples import (
    Example,
    ExampleFailed,
    make_environment,
    read_examples,
    run_examples,
)
from warmrack_daemon.cli.program import make_program

CHECKOUT = Path(__file__).resolve().parents[2]
README = (CHECKOUT / "README.md").read_text()
EXAMPLES = read_examples("README.md", README)
COMMANDS = [command for example in EXAMPLES for command in example.commands]
PAGES = sorted(
    path
    for folder in (".", "docs", "store", "workers")
    for path in (CHECKOUT / folder).glob("*.md" if folder in {".", "docs"} else "**/*.md")
)
_LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


def read_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))


def find_command(name: str) -> Any:
    group: Any = typer.main.get_command(make_program())
    return group.commands[name]


def test_command_for_the_tests_is_make_test() -> None:
    assert COMMANDS[-1] == ("make", "test")


@pytest.mark.parametrize("command", COMMANDS, ids=shlex.join)
def test_example_uses_a_command_that_exists(command: tuple[str, ...]) -> None:
    program, name, *arguments = command
    if program == "make":
        assert name in read_targets()
        return
    assert program == ".venv/bin/warmrack"
    options = {option for one in find_command(name).params for option in one.opts}
    assert {word for word in arguments if word.startswith("--")} <= options


@pytest.mark.parametrize("name", re.findall(r"`warmrack ([a-z]+)", README))
def test_command_in_the_text_exists(name: str) -> None:
    assert find_command(name).help


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_link_of_a_page_leads_to_a_file(page: Path) -> None:
    dead = [link for link in _LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert dead == []


def test_every_page_is_linked_from_the_readme() -> None:
    linked = {(CHECKOUT / link).resolve() for link in _LINK.findall(README)}
    assert {page for page in PAGES if page.name != "README.md"} <= linked


def test_block_is_read_with_its_place_and_without_comments() -> None:
    text = "Hello\n\n```sh\nmake a  # why\n\n# alone\nmake b\n```\n```console\n$ no\n```\n"
    (example,) = read_examples("page.md", text)
    assert (example.page, example.line) == ("page.md", 3)
    assert example.commands == (("make", "a"), ("make", "b"))


def test_only_a_block_that_ends_with_up_keeps_running() -> None:
    running = [example.commands[-1][1] for example in EXAMPLES if example.keeps_running]
    assert running == ["up"]


def test_examples_see_an_empty_pool_and_the_test_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARMRACK_URL", "http://elsewhere")
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    environment = make_environment(tmp_path, "http://hub")
    assert environment["HF_ENDPOINT"] == "http://hub"
    assert environment["XDG_STATE_HOME"].startswith(str(tmp_path))
    assert not {"WARMRACK_URL", "HF_TOKEN"} & environment.keys()


def test_first_failing_command_of_a_block_fails_it_and_nothing_follows(tmp_path: Path) -> None:
    texts = [f"touch {tmp_path}/a", f"false\ntouch {tmp_path}/b", f"touch {tmp_path}/c"]
    examples = tuple(Example(page="p.md", line=n, text=text) for n, text in enumerate(texts))
    with pytest.raises(ExampleFailed, match=r"p\.md:1 ended with 1"):
        run_examples(examples, os.environ)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_block_that_keeps_running_is_interrupted_after_the_last_one(tmp_path: Path) -> None:
    stack = tmp_path / "warmrack"
    code = (
        "import pathlib, signal\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\n"
        "print('ready', flush=True)\n"
        "signal.sigwait([signal.SIGINT])\n"
        f"pathlib.Path({str(tmp_path / 'ended')!r}).touch()\n"
    )
    stack.write_text(f"#!{sys.executable}\n{code}")
    stack.chmod(0o755)
    meanwhile = f"test ! -e {tmp_path}/ended && touch {tmp_path}/ran"
    examples = (
        Example(page="p.md", line=1, text=f"{stack} up\n"),
        Example(page="p.md", line=2, text=meanwhile),
    )
    run_examples(examples, os.environ)
    assert {"ran", "ended"} <= {path.name for path in tmp_path.iterdir()}
