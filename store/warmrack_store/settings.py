"""Every setting, read once from flags, the environment and an optional file into one record."""

import os
import re
import socket
import tomllib
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from warmrack_store.durations import check_keep_alive, parse_duration, parse_size
from warmrack_store.errors import BadRequest
from warmrack_store.eviction import DEFAULT_POLICY, POLICIES
from warmrack_store.records import Record, bad_request

_KUBERNETES = re.compile(r"WARMRACK_(PORT|SERVICE_).*")
PUBLIC_HUB = "https://huggingface.co"


class Auth(StrEnum):
    OFF = "off"
    KEYS = "keys"


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


class Settings(Record):
    """The whole configuration. The descriptions are the settings reference."""

    state_dir: Path = Field(
        Path("~/.local/state/warmrack").expanduser(),
        description="Where the embedded stack keeps its state.",
    )
    database_url: str | None = Field(
        None,
        description="SQLAlchemy URL: postgresql+psycopg://... or sqlite:///...; "
        "default: SQLite in the state directory.",
    )
    broker_url: str | None = Field(
        None, description="redis:// or rediss:// URL; default: the embedded Valkey of `up`."
    )
    cache_dir: Path = Field(
        Path("~/.cache/huggingface/hub").expanduser(),
        description="The Hugging Face cache to use; default: $HF_HUB_CACHE, "
        "else $HF_HOME/hub, else ~/.cache/huggingface/hub.",
    )
    hub_endpoint: str = Field(
        PUBLIC_HUB, description="The Hub; default: $HF_ENDPOINT, else the public Hub."
    )
    hub_endpoints_allowed: tuple[str, ...] = Field(
        (),
        description="Further hosts that the Hub may redirect file downloads to (besides its "
        "own host and its content networks).",
    )
    url: str = Field("http://127.0.0.1:8420", description="Where clients find the control plane.")
    api_key: str | None = Field(None, description="The client's API key.")
    hub_token: str | None = Field(
        None, description="The caller's own Hub token; only clients read it, never a worker."
    )
    auth: Auth = Field(Auth.OFF, description="off (loopback only) or keys.")
    devices: str = Field(
        "auto", description="auto, or a list such as cpu:0=4GiB,cpu:1=4GiB or cuda:0."
    )
    node: str = Field(default_factory=socket.gethostname, description="This node's name.")
    ingress: str = Field(
        "127.0.0.1:0",
        description="host:port where the node takes relayed tasks; port 0: any free one.",
    )
    ingress_url: str | None = Field(
        None, description="How other machines reach that; default: made from the address."
    )
    mirror: str = Field(
        "127.0.0.1:0",
        description="host:port where the node serves what it holds, as a read-only Hub and to "
        "other nodes; port 0: any free one.",
    )
    mirror_url: str | None = Field(
        None, description="How other machines reach that; default: made from the address."
    )
    mirror_pull_through: bool = Field(
        False, description="A model that the mirror does not hold is fetched for who asks for it."
    )
    download_connections: int = Field(
        8, ge=1, le=64, description="Connections that one fetch may have to the Hub at most."
    )
    download_rate: int | None = Field(
        None,
        ge=1,
        description="Bytes a second that the node's fetches may take together, e.g. 50MiB; "
        "default: no limit.",
    )
    xet: bool = Field(
        False,
        description="Take files from Xet storage where the Hub keeps them there too; what fails "
        "comes by ranged HTTP as ever.",
    )
    cache_quota: int | None = Field(
        None,
        description="Bytes the cache folder may hold, e.g. 500GiB; over it, what was used least "
        "goes. Default: no limit, and nothing goes by itself.",
    )
    cache_high_watermark: float = Field(
        0.9, gt=0, le=1, description="The share of the quota over which snapshots go."
    )
    cache_low_watermark: float = Field(
        0.8,
        ge=0,
        le=1,
        description="The share they go down to; `cache evict --to-low-watermark` takes it of the "
        "whole disk where there is no quota.",
    )
    eviction: str = Field(
        DEFAULT_POLICY,
        description=f"What goes first, from devices and disks: {' or '.join(sorted(POLICIES))}.",
    )
    lease_seconds: float = Field(
        6.0, ge=1, le=3600, description="How long a claim lives without its holder renewing it."
    )
    on_demand: bool = Field(True, description="A task on a cold model loads it.")
    patience_seconds: float = Field(
        30.0, ge=0, le=3600, description="How long a task waits for a cold model before 503."
    )
    keep_alive: str = Field("10m", description="How long an idle model stays warm: 0, 10m, pinned.")
    threads: int | None = Field(
        None, ge=1, description="Threads of a CPU host; default: cores divided by CPU devices."
    )
    cluster_key_file: Path | None = Field(
        None, description="Key that nodes and control planes share; `up` makes one at random."
    )
    secret_keys_file: Path | None = Field(
        None,
        description="Keys that Hub tokens are stored under, one a line, the newest first; default: "
        "one made from the cluster key.",
    )
    secret_keys: str | None = Field(
        None,
        description="The same keys themselves, by comma; a file is better, since children see the "
        "environment.",
    )
    right_allow_seconds: float = Field(
        600.0,
        gt=0,
        le=86400,
        description="How long the Hub's yes to one token is believed; a revocation takes effect "
        "within this time.",
    )
    right_deny_seconds: float = Field(
        30.0, ge=0, le=3600, description="How long the Hub's no to one token is believed."
    )
    right_public_seconds: float = Field(
        3600.0, gt=0, le=86400, description="How long a repository counts as public."
    )
    right_grace_seconds: float = Field(
        0.0,
        ge=0,
        le=86400,
        description="How much longer a yes to one token holds while the Hub does not answer.",
    )
    right_public_grace_seconds: float = Field(
        7 * 86400.0,
        ge=0,
        le=3650 * 86400,
        description="How much longer a repository counts as public while the Hub does not answer.",
    )
    operator_token: str | None = Field(
        None,
        min_length=16,
        description="Who shows it sees the names of all repositories; set it for the service and "
        "for the operator's clients.",
    )
    max_queued: int = Field(
        10_000, ge=1, description="Jobs that may wait before submits are refused with 429."
    )
    max_queued_per_tenant: int | None = Field(
        None,
        ge=1,
        description="Unfinished jobs that one tenant may have before its submits are refused with "
        "429; default: no limit.",
    )
    intake_tenant: str | None = Field(
        "default", description="The tenant that Celery messages without an API key act as."
    )
    result_backend: str | None = Field(
        None, description="Celery result backend of the intake; default: the broker."
    )
    log: LogFormat = Field(LogFormat.TEXT, description="text or json.")

    @field_validator("hub_endpoint", "url")
    @classmethod
    def _no_trailing_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @field_validator("cache_quota", "download_rate", mode="before")
    @classmethod
    def _size(cls, value: object) -> object:
        return _read(parse_size, value)

    @field_validator(
        "lease_seconds",
        "patience_seconds",
        "right_allow_seconds",
        "right_deny_seconds",
        "right_public_seconds",
        "right_grace_seconds",
        "right_public_grace_seconds",
        mode="before",
    )
    @classmethod
    def _seconds(cls, value: object) -> object:
        return _read(parse_duration, value)

    @field_validator("eviction")
    @classmethod
    def _policy(cls, value: str) -> str:
        if value not in POLICIES:
            raise ValueError(f"{value[:40]!r} is none of {', '.join(sorted(POLICIES))}")
        return value

    @model_validator(mode="after")
    def _watermarks(self) -> Self:
        if self.cache_low_watermark > self.cache_high_watermark:
            raise ValueError("cache_low_watermark is above cache_high_watermark")
        return self

    @field_validator("keep_alive")
    @classmethod
    def _keep_alive(cls, value: str) -> str:
        return check_keep_alive(value)

    @field_validator("hub_endpoints_allowed", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        return (
            tuple(v.strip() for v in value.split(",") if v.strip())
            if isinstance(value, str)
            else value
        )

    @property
    def effective_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.state_dir / 'warmrack.db'}"


def _read(parse: Callable[[str], object], value: object) -> object:
    """A text parsed, its refusal one of the field, so that the setting is named in the error."""
    if not isinstance(value, str):
        return value
    try:
        return parse(value)
    except BadRequest as error:
        raise ValueError(error.message) from error


def load_settings(
    environ: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None
) -> Settings:
    """The settings in force: flags win over the environment, the environment over the file.

    Raises BadRequest for an unknown WARMRACK_* name, an unknown key of the file, or a bad
    value.
    """
    environ = os.environ if environ is None else environ
    values = _defaults(environ)
    if path := environ.get("WARMRACK_CONFIG"):
        values.update(_read_file(Path(path)))
    for name, value in environ.items():
        if not name.startswith("WARMRACK_") or name == "WARMRACK_CONFIG" or _KUBERNETES.match(name):
            continue
        field = name.removeprefix("WARMRACK_").lower()
        if field not in Settings.model_fields:
            raise BadRequest(f"{name} is not a setting", hint="docs/settings.md lists them.")
        values[field] = value
    values.update({key: value for key, value in (flags or {}).items() if value is not None})
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        message = bad_request(error.errors(include_url=False)).message
        name = re.split(r"[.:]", message)[0].upper()
        hint = f"Correct WARMRACK_{name}, or the flag or file that sets it; see docs/settings.md."
        raise BadRequest(message, hint=hint) from error
    return settings


def _defaults(environ: Mapping[str, str]) -> dict[str, Any]:
    """The defaults that Hugging Face's own variables and the XDG folders give."""
    values: dict[str, Any] = {}
    if cache := environ.get("HF_HUB_CACHE"):
        values["cache_dir"] = Path(cache)
    elif home := environ.get("HF_HOME"):
        values["cache_dir"] = Path(home) / "hub"
    if endpoint := environ.get("HF_ENDPOINT"):
        values["hub_endpoint"] = endpoint
    if state := environ.get("XDG_STATE_HOME"):
        values["state_dir"] = Path(state) / "warmrack"
    return values


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise BadRequest(f"cannot read WARMRACK_CONFIG {path}: {error}") from error
