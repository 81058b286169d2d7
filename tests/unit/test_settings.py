"""Settings: where a value comes from, and what is no setting."""

from pathlib import Path
from typing import Any

import pytest

from warmrack_store.errors import BadRequest
from warmrack_store.settings import PUBLIC_HUB, Auth, LogFormat, Settings, load_settings


def load(*flags: dict[str, Any], **environ: str) -> Settings:
    return load_settings(environ, flags[0] if flags else None)


def test_nothing_said_gives_the_documented_defaults() -> None:
    settings = load()
    assert settings.hub_endpoint == PUBLIC_HUB
    assert (settings.auth, settings.log, settings.lease_seconds) == (Auth.OFF, LogFormat.TEXT, 6.0)
    assert settings.effective_database_url == f"sqlite:///{settings.state_dir / 'warmrack.db'}"


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "warmrack.toml"
    file.write_text('node = "file"\ndevices = "cpu:0=1GiB"\nkeep_alive = "1m"\n')
    settings = load(
        {"node": "flag", "devices": None},
        WARMRACK_CONFIG=str(file),
        WARMRACK_NODE="environment",
        WARMRACK_DEVICES="cpu:1=1GiB",
    )
    assert (settings.node, settings.devices, settings.keep_alive) == ("flag", "cpu:1=1GiB", "1m")


def test_units_are_read_as_people_write_them() -> None:
    settings = load(
        WARMRACK_LEASE_SECONDS="1m",
        WARMRACK_PATIENCE_SECONDS="2.5",
        WARMRACK_HUB_ENDPOINTS_ALLOWED="a.example, b.example,",
        WARMRACK_URL="http://host:1/",
    )
    assert (settings.lease_seconds, settings.patience_seconds) == (60.0, 2.5)
    assert settings.hub_endpoints_allowed == ("a.example", "b.example")
    assert settings.url == "http://host:1"


def test_the_cache_has_a_quota_and_watermarks_in_order() -> None:
    settings = load(WARMRACK_CACHE_QUOTA="500GiB", WARMRACK_EVICTION="lru")
    assert (settings.cache_quota, settings.eviction) == (500 * 2**30, "lru")
    with pytest.raises(BadRequest, match="above cache_high_watermark"):
        load(WARMRACK_CACHE_LOW_WATERMARK="0.95")
    with pytest.raises(BadRequest, match="none of gdsf, lru"):
        load(WARMRACK_EVICTION="random")


def test_hugging_face_names_its_cache_and_hub_as_everywhere() -> None:
    assert load(HF_HOME="/hf").cache_dir == Path("/hf/hub")
    assert load(HF_HOME="/hf", HF_HUB_CACHE="/cache").cache_dir == Path("/cache")
    assert load(HF_HUB_CACHE="/cache", WARMRACK_CACHE_DIR="/own").cache_dir == Path("/own")
    assert load(HF_ENDPOINT="http://hub/").hub_endpoint == "http://hub"
    assert load(XDG_STATE_HOME="/state").state_dir == Path("/state/warmrack")


@pytest.mark.parametrize(
    "environ",
    [
        {"WARMRACK_NODES": "3"},
        {"WARMRACK_AUTH": "maybe"},
        {"WARMRACK_LEASE_SECONDS": "0"},
        {"WARMRACK_LEASE_SECONDS": "soon"},
        {"WARMRACK_CACHE_QUOTA": "-1"},
        {"WARMRACK_CACHE_QUOTA": "9" * 400},
        {"WARMRACK_KEEP_ALIVE": "forever"},
        {"WARMRACK_KEEP_ALIVE": "-5m"},
        {"WARMRACK_MAX_QUEUED": "0"},
        {"WARMRACK_THREADS": "1.5"},
        {"WARMRACK_CONFIG": "/nowhere/warmrack.toml"},
    ],
    ids=lambda environ: "=".join(next(iter(environ.items())))[:40],
)
def test_what_is_no_setting_or_no_value_is_refused(environ: dict[str, str]) -> None:
    with pytest.raises(BadRequest):
        load(**environ)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("auth", "maybe"),
        ("lease_seconds", "0"),
        ("lease_seconds", "soon"),
        ("cache_quota", "-1"),
        ("keep_alive", "forever"),
        ("keep_alive", "31d"),
        ("max_queued", "0"),
        ("threads", "1.5"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_field_and_itself(field: str, value: str) -> None:
    variable = f"WARMRACK_{field.upper()}"
    with pytest.raises(BadRequest, match=rf"^{field}: .*{value}") as refused:
        load(**{variable: value})
    assert variable in refused.value.hint
    assert "docs/settings.md" in refused.value.hint


def test_what_kubernetes_injects_is_let_pass() -> None:
    injected = {
        "WARMRACK_PORT": "tcp://1",
        "WARMRACK_PORT_80_TCP": "x",
        "WARMRACK_SERVICE_HOST": "h",
    }
    assert load(**injected) == load()


@pytest.mark.parametrize("text", ["surprise = 1\n", "node = \n", "node = 7\n"])
def test_a_bad_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "warmrack.toml"
    file.write_text(text)
    with pytest.raises(BadRequest):
        load(WARMRACK_CONFIG=str(file))
