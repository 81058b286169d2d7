"""The generated reference pages."""

from collections.abc import Callable
from pathlib import Path

import pytest

from docs import reference
from warmrack_store.brokers.celery_doorbell import INTAKE_QUEUE, INTAKE_TASKS
from warmrack_store.errors import leaves
from warmrack_store.settings import Settings


def test_the_pages_in_the_repository_are_what_the_code_says() -> None:
    assert reference.find_differences(reference.FOLDER) == []


def test_a_page_that_was_edited_or_is_missing_is_a_difference(tmp_path: Path) -> None:
    reference.write_pages(tmp_path)
    assert reference.find_differences(tmp_path) == []
    page = tmp_path / "errors.md"
    page.write_text(page.read_text().replace("| 401 |", "| 418 |"))
    (tmp_path / "cli.md").unlink()
    differences = reference.find_differences(tmp_path)
    assert any(line.startswith("-") and "| 418 |" in line for line in differences)
    assert any(line.startswith("+## `warmrack load`") for line in differences)


def test_every_setting_and_every_error_code_has_its_row() -> None:
    settings, errors = reference.render_settings(), reference.render_errors()
    assert [n for n in Settings.model_fields if f"`WARMRACK_{n.upper()}`" not in settings] == []
    assert [kind.code for kind in leaves() if f"| `{kind.code}` |" not in errors] == []


@pytest.mark.parametrize("render", reference.PAGES.values())
def test_every_row_of_a_table_has_as_many_cells_as_its_head(
    render: Callable[[], str],
) -> None:
    width = 0
    for line in render().splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        cells = line.replace("\\|", "").count("|")
        width = width or cells
        assert cells == width


def test_the_pages_do_not_depend_on_whose_home_they_are_made_in() -> None:
    assert str(Path.home()) not in reference.render_settings()


def test_the_page_about_celery_names_the_queue_and_every_task() -> None:
    page = (reference.FOLDER / "celery.md").read_text()
    assert f'queue="{INTAKE_QUEUE}"' in page
    assert [task for task in INTAKE_TASKS if f"`{task}`" not in page] == []


def test_the_names_that_are_no_settings_and_no_errors_are_told() -> None:
    assert "`WARMRACK_PORT*` and `WARMRACK_SERVICE_*`" in reference.render_settings()
