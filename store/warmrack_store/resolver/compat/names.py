"""The name step: which repository Unsloth reads for a name and two flags."""

from dataclasses import dataclass
from typing import Literal

from warmrack_store.catalog.tables import Tables
from warmrack_store.resolver.compat.calls import CompatHost

FOUR_BIT_ENDING = "-bnb-4bit"
Fp8 = bool | Literal["block"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NameStep:
    """The repository, and whether Unsloth would also fetch its newest table from the web.

    Warmrack never fetches it; Unsloth raises where that table knows the name.
    """

    resolved: str
    would_probe_network: bool


def step_name(name: str, *, four: bool, fp8: Fp8, host: CompatHost, tables: Tables) -> NameStep:
    """The first rule that gives a name wins; case does not matter; an unknown name is itself."""
    key = name.lower()
    found = _find_fp8(name, fp8, host, tables) if fp8 else _find_stand_in(name, four, tables)
    if found is None:
        found = tables.overrides.get(key)
    else:
        found = tables.overrides.get(found.lower(), found)
    return NameStep(
        resolved=name if found is None else found,
        would_probe_network=found is None and _is_probed(name) and not host.offline,
    )


def _find_fp8(name: str, fp8: Fp8, host: CompatHost, tables: Tables) -> str | None:
    """A repository in FP8; the name as it is where vLLM quantizes by itself."""
    key = name.lower()
    if fp8 is True and host.fbgemm and key in tables.fp8_row:
        return tables.fp8_row[key]
    return tables.fp8_block.get(key, name if host.vllm_quantizes else None)


def _find_stand_in(name: str, four: bool, tables: Tables) -> str | None:
    key = name.lower()
    if not four:
        return tables.sixteen_bit.get(key, tables.publishers_16bit.get(key))
    if key in tables.four_bit and key.endswith(FOUR_BIT_ENDING):
        return name
    return tables.four_bit.get(key)


def _is_probed(name: str) -> bool:
    """Only what looks like a repository's id is looked up on the web."""
    return name.count("/") == 1 and name[0].isalnum()
