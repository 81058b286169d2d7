"""The catalog: what ships, how it is built from a package, and how two are compared."""

import json
import zipfile
from pathlib import Path

import pytest

from warmrack_store.catalog import (
    CATALOG_VERSION,
    Catalog,
    Origin,
    list_substitutes,
    list_versions,
    load_catalog,
)
from warmrack_store.catalog.building import build_catalog
from warmrack_store.catalog.differences import diff_catalogs
from warmrack_store.catalog.shipped import load_tables, parse_catalog, render_catalog
from warmrack_store.catalog.tables import make_tables
from warmrack_store.errors import BadRequest

APACHE = '# Licensed under the Apache License, Version 2.0 (the "License");\n'
MAPPER = (
    APACHE
    + """
import torch_that_does_not_exist
raise SystemExit("run")
__INT_TO_FLOAT_MAPPER = \\
{
    "unsloth/a-bnb-4bit" : ("unsloth/A", "org/A"),
    "unsloth/b-bnb-4bit" : {
        "8" : ("org/B-FP8", "unsloth/B-FP8-Block", "unsloth/B-FP8-Dynamic"),
        "16" : ("unsloth/B", "org/B", "unsloth/B-bnb-4bit"),
    },
    "unsloth/c-bnb-4bit" : ("org/C",),
    "unsloth/" + NAME : ("org/D",),
    "unsloth/e-bnb-4bit" : tuple(names),
}
__INT_TO_FLOAT_MAPPER["unsloth/f-bnb-4bit"] = ("org/F",)

def build_mappers(table):
    for key, values in table.items():
        _add_with_lower(MAP_TO_UNSLOTH_16bit, values[1], values[0])
    _add_with_lower(MAP_TO_UNSLOTH_16bit, "org/G", "unsloth/G")
"""
)
UTILS = APACHE + 'BAD_MAPPINGS = {"unsloth/C-bnb-4bit".lower(): "org/C"}\n'


def make_wheel(
    folder: Path, mapper: str = MAPPER, utils: str = UTILS, version: str = "1.2"
) -> Path:
    path = folder / f"unsloth-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("unsloth/models/mapper.py", mapper)
        archive.writestr("unsloth/models/loader_utils.py", utils)
    return path


def test_catalog_in_use_is_shipped_and_read_once() -> None:
    assert load_catalog().version == CATALOG_VERSION
    assert CATALOG_VERSION in list_versions()
    assert load_catalog() is load_catalog(CATALOG_VERSION)
    with pytest.raises(BadRequest, match="not shipped"):
        load_catalog("unsloth-1.0")


def test_every_row_says_where_it_comes_from() -> None:
    catalog = load_catalog()
    assert (catalog.provenance.package, catalog.provenance.licence) == ("unsloth", "Apache-2.0")
    origins = [entry.origin for entry in catalog.entries]
    origins += [pair.origin for pair in (*catalog.extra_16bit, *catalog.overrides)]
    assert len(origins) == 268 + 2 + 11
    assert {origin.file for origin in origins} == set(catalog.provenance.files)
    lines = [entry.origin.line for entry in catalog.entries]
    assert lines == sorted(set(lines))


def test_digest_is_over_content_and_not_over_layout() -> None:
    catalog = load_catalog()
    again = parse_catalog(json.dumps(json.loads(render_catalog(catalog)), indent=4), "again")
    assert again == catalog
    assert again.digest == catalog.digest
    other = catalog.model_copy(update={"entries": catalog.entries[1:]})
    assert other.digest != catalog.digest


def test_a_package_is_read_as_data_and_never_run(tmp_path: Path) -> None:
    built = build_catalog(make_wheel(tmp_path)).catalog
    assert built.version == "unsloth-1.2"
    assert built.provenance.licence == "Apache-2.0"
    assert built.content() == {
        "entries": [
            {"four_bit": "unsloth/a-bnb-4bit", "sixteen": ["unsloth/A", "org/A"]},
            {
                "four_bit": "unsloth/b-bnb-4bit",
                "sixteen": ["unsloth/B", "org/B", "unsloth/B-bnb-4bit"],
                "fp8": {
                    "official": "org/B-FP8",
                    "block": "unsloth/B-FP8-Block",
                    "row": "unsloth/B-FP8-Dynamic",
                },
            },
            {"four_bit": "unsloth/c-bnb-4bit", "sixteen": ["org/C"]},
        ],
        "extra_16bit": {"org/G": "unsloth/G"},
        "overrides": {"unsloth/c-bnb-4bit": "org/C"},
    }


def test_what_is_not_data_is_left_out_and_said_with_its_line(tmp_path: Path) -> None:
    said = build_catalog(make_wheel(tmp_path)).left_out
    lines = MAPPER.splitlines()
    assert [int(one.split(":")[1]) for one in said] == [
        lines.index('    "unsloth/" + NAME : ("org/D",),') + 1,
        lines.index('    "unsloth/e-bnb-4bit" : tuple(names),') + 1,
        lines.index('__INT_TO_FLOAT_MAPPER["unsloth/f-bnb-4bit"] = ("org/F",)') + 1,
    ]
    assert "changed by code" in said[-1]


@pytest.mark.parametrize(
    ("mapper", "said"),
    [("x = (", "not Python"), ("x = 1", "no table"), ("__INT_TO_FLOAT_MAPPER = f()", "no table")],
)
def test_a_package_without_the_table_is_refused(tmp_path: Path, mapper: str, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        build_catalog(make_wheel(tmp_path, mapper))


def test_a_wheel_whose_files_are_encrypted_is_refused_by_its_name(tmp_path: Path) -> None:
    path = make_wheel(tmp_path)
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = -1
        while (place := data.find(mark, place + 1)) >= 0:
            data[place + offset] |= 1
    path.write_bytes(data)
    with pytest.raises(BadRequest, match="cannot be read"):
        build_catalog(path)


def test_what_is_no_wheel_of_the_package_is_refused(tmp_path: Path) -> None:
    for name in ("other-1.0-py3-none-any.whl", "unsloth-1.0.tar.gz", "unsloth.whl"):
        with pytest.raises(BadRequest, match="not a wheel"):
            build_catalog(tmp_path / name)
    broken = tmp_path / "unsloth-1.0-py3-none-any.whl"
    broken.write_bytes(b"PK")
    with pytest.raises(BadRequest, match="cannot be read"):
        build_catalog(broken)
    with pytest.raises(BadRequest, match="not installed"):
        build_catalog()


def test_later_rows_and_16_bit_names_win_in_the_tables(tmp_path: Path) -> None:
    tables = make_tables(build_catalog(make_wheel(tmp_path)).catalog)
    assert tables.four_bit["org/b-fp8"] == "unsloth/b-bnb-4bit"
    assert tables.sixteen_bit == {
        "unsloth/a-bnb-4bit": "unsloth/A",
        "unsloth/b-bnb-4bit": "unsloth/B",
        "unsloth/c-bnb-4bit": "org/C",
    }
    assert tables.publishers_16bit == {
        "org/a": "unsloth/A",
        "org/b": "unsloth/B",
        "unsloth/b-bnb-4bit": "unsloth/B",
        "org/b-fp8": "unsloth/B-FP8-Block",
        "unsloth/b-fp8-block": "unsloth/B",
        "unsloth/b-fp8-dynamic": "unsloth/B",
        "org/g": "unsloth/G",
    }
    assert tables.fp8_row["org/b-fp8-dynamic"] == "unsloth/B-FP8-Dynamic"
    assert tables.fp8_block.keys() == tables.fp8_row.keys()


def test_shipped_tables_hold_what_the_package_itself_derives() -> None:
    # Counted in the dicts that mapper.py of 2026.10.9 makes, their lower-case keys alone.
    tables = load_tables()
    sizes = [len(tables.sixteen_bit), len(tables.four_bit), len(tables.publishers_16bit)]
    assert [*sizes, len(tables.fp8_block), len(tables.fp8_row)] == [268, 691, 424, 178, 178]


def test_substitutes_are_the_rest_of_the_row_by_precision() -> None:
    asked = "META-LLAMA/Llama-3.1-8B-Instruct"
    found = {one.repository: one.precision for one in list_substitutes(asked)}
    assert found == {
        "unsloth/Llama-3.1-8B-Instruct-unsloth-bnb-4bit": "nf4",
        "unsloth/Llama-3.1-8B-Instruct-bnb-4bit": "nf4",
        "RedHatAI/Llama-3.1-8B-Instruct-FP8": "fp8",
        "unsloth/Llama-3.1-8B-Instruct-FP8-Block": "fp8",
        "unsloth/Llama-3.1-8B-Instruct-FP8-Dynamic": "fp8",
        "unsloth/Llama-3.1-8B-Instruct": "bf16",
    }
    assert [one.repository for one in list_substitutes(asked, "bf16")] == [
        "unsloth/Llama-3.1-8B-Instruct"
    ]
    assert list_substitutes("me/own") == ()
    first = list_substitutes(asked)[0]
    assert first.provenance.version == "2026.10.9"
    assert first.origin.symbol == "__INT_TO_FLOAT_MAPPER"


def test_a_substitute_that_is_overridden_is_not_offered() -> None:
    offered = {one.repository.lower() for one in list_substitutes("Qwen/Qwen3-30B-A3B")}
    replaced = {pair.name for pair in load_catalog().overrides}
    assert "unsloth/qwen3-30b-a3b" in offered
    assert not offered & replaced


def changed(catalog: Catalog, **fields: object) -> Catalog:
    return catalog.model_copy(update=fields)


def test_a_diff_names_what_came_went_and_changed(tmp_path: Path) -> None:
    old = build_catalog(make_wheel(tmp_path)).catalog
    entries = [*old.entries[1:]]
    entries[0] = changed(entries[0], sixteen=("unsloth/B",))  # type: ignore[arg-type, call-overload]
    new = changed(old, version="unsloth-1.3", entries=tuple(entries), overrides=())
    found = diff_catalogs(old, new)
    assert found.removed == ("entries: unsloth/a-bnb-4bit", "overrides: unsloth/c-bnb-4bit")
    assert found.added == ()
    assert [(one.table, one.name) for one in found.changed] == [("entries", "unsloth/b-bnb-4bit")]
    assert found.changed[0].after["sixteen"] == ["unsloth/B"]
    back = diff_catalogs(new, old)
    assert back.added == found.removed


def test_where_rows_stand_is_no_difference() -> None:
    old = load_catalog()
    moved = [
        entry.model_copy(update={"origin": Origin(file="x.py", symbol="T", line=1)})
        for entry in reversed(old.entries)
    ]
    assert diff_catalogs(old, old.model_copy(update={"entries": tuple(moved)})).empty
