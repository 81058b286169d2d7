"""The house: what is imported where, what is declared, and what is pinned."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
ROOTS = {"store": "base", "daemon": "base", "workers": "worker"}
OURS = {"warmrack", "warmrack_store", "warmrack_daemon", "warmrack_workers"}
LIGHT = [
    "warmrack",
    "warmrack_daemon.cli.program",
    "warmrack_daemon.serve",
    "warmrack_daemon.supervisor",
    "warmrack_workers.agent",
    "warmrack_workers.pipeline",
    "warmrack_workers.residency",
    "warmrack_workers.effects",
    "warmrack_workers.snapshots",
    "warmrack_workers.heart",
    "warmrack_workers.fetch.fetcher",
    "warmrack_workers.host_process",
]
"""What a machine's control plane and agent are made of."""
HEAVY = ("torch", "transformers")
_PIN = re.compile(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!]+)")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names_of(requirements: list[str]) -> set[str]:
    """The canonical names of requirements, without extras, versions and markers."""
    return {canonical(re.split(r"[\s\[<>=!~;]", one)[0]) for one in requirements}


def declared(extra: str) -> set[str]:
    base = names_of(PROJECT["dependencies"])
    return base if extra == "base" else base | names_of(PROJECT["optional-dependencies"][extra])


def read_pins() -> dict[str, str]:
    lines = (CHECKOUT / "constraints.txt").read_text().splitlines()
    pins = [_PIN.fullmatch(line) for line in lines if line and not line.startswith("#")]
    assert all(pins), "constraints.txt holds names and exact versions only"
    return {canonical(pin[1]): pin[2] for pin in pins if pin}


def list_imports(root: str) -> Iterator[tuple[Path, str]]:
    """Every top-level name that the files of a root import, wherever in the file."""
    for path in sorted((CHECKOUT / root).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name.partition(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield path, node.module.partition(".")[0]


def test_light_side_starts_without_torch() -> None:
    code = (
        "import importlib, sys\n"
        f"for module in {LIGHT!r}:\n"
        "    importlib.import_module(module)\n"
        f"    found = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "    if found: sys.exit(f'{module} imports {found}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("root", "extra"), ROOTS.items())
def test_what_is_imported_is_declared(root: str, extra: str) -> None:
    distributions = packages_distributions()
    missing = {
        f"{path.relative_to(CHECKOUT)} imports {name}"
        for path, name in list_imports(root)
        if name not in OURS | sys.stdlib_module_names
        and not declared(extra) & {canonical(one) for one in distributions.get(name, [name])}
    }
    assert missing == set()


def test_light_side_does_not_depend_on_torch() -> None:
    assert not set(HEAVY) & declared("base")


def test_every_declared_package_is_pinned() -> None:
    wanted = set().union(declared("base"), *map(declared, PROJECT["optional-dependencies"]))
    assert wanted - read_pins().keys() == set()


def test_models_that_setup_installs_are_pinned() -> None:
    found = re.search(r"^MODELS := (.+)$", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    assert names_of(found[1].split()) <= read_pins().keys()


def test_pin_names_no_build_of_one_machine() -> None:
    assert not {name: version for name, version in read_pins().items() if "+" in version}


def list_files() -> list[Path]:
    """The files of the project, those included that are not committed yet."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = (CHECKOUT / name for name in listed.stdout.splitlines())
    return [path for path in paths if path.is_file()]


def test_no_file_names_the_folder_of_its_checkout() -> None:
    here = f"{CHECKOUT}/".encode()
    assert [path for path in list_files() if here in path.read_bytes()] == []


def test_types_of_every_python_folder_are_checked() -> None:
    folders = {path.relative_to(CHECKOUT).parts[0] for path in list_files() if path.suffix == ".py"}
    tools = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]
    assert folders <= set(tools["mypy"]["files"])


def test_import_rules_cover_every_package() -> None:
    rules = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert set(rules["root_packages"]) == OURS
    kinds = {(rule["type"], rule["name"].split()[0]) for rule in rules["contracts"]}
    assert {("layers", "daemon"), ("forbidden", "what"), ("forbidden", "the")} <= kinds
