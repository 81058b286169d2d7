"""R7: whether a candidate is the model that was asked for, by its facts alone.

A catalog's row or a Hub's tag only says so; rows that led to another model stood for months in a
published table (an 8B Llama for a 1.5B Qwen, an instruct model for a base one). What passes here
agrees in everything that quantizing and packing leave alone. Two finetunes of one base with the
same shapes and the same kind of name pass: only equal tensors could tell them apart.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from warmrack_store.errors import LineageMismatch, WarmrackError
from warmrack_store.facts import RepositoryFacts, WeightFile
from warmrack_store.resolution import Rejected
from warmrack_store.resolver.declared import Declared
from warmrack_store.resolver.kinds import choose_weights
from warmrack_store.resolver.packing import count_body
from warmrack_store.resolver.relatives import find_kind
from warmrack_store.resolver.shapes import list_sizes, read_positions

_TOLERANCE = 0.01
"""Of the parameters: buffers that one publisher stores and another does not."""


class Difference(StrEnum):
    """Why a candidate is not the model that was asked for."""

    UNKNOWN = "unknown"
    """Config or weights cannot be compared; what cannot be verified is not the same."""
    ARCHITECTURE = "architecture"
    DIMENSIONS = "dimensions"
    VOCABULARY = "vocabulary"
    POSITIONS = "positions"
    """How positions are encoded: same shapes, another model."""
    PARAMETERS = "parameters"
    KIND = "kind"
    """Base, instruct, thinking, ..."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One difference, in words that hold both sides."""

    code: Difference
    reason: str


def check_lineage(asked: RepositoryFacts, candidate: RepositoryFacts) -> Rejected | None:
    """None where the candidate is the same model, else why not, every difference by its code."""
    found = list_differences(asked, candidate)
    if not found:
        return None
    return Rejected(
        repository=candidate.repository,
        code=LineageMismatch.code,
        reason="; ".join(f"{one.code.value}: {one.reason}" for one in found),
    )


def list_differences(asked: RepositoryFacts, candidate: RepositoryFacts) -> tuple[Finding, ...]:
    """Everything in which the two are not the same model; symmetric but for the wording."""
    for facts in (asked, candidate):
        if facts.config is None:
            reason = f"{facts.repository} has no config.json that can be read"
            return (Finding(code=Difference.UNKNOWN, reason=reason),)
    return tuple(_compare(asked, candidate))


def _compare(asked: RepositoryFacts, candidate: RepositoryFacts) -> Iterator[Finding]:
    wanted, offered = Declared(asked.config or {}), Declared(candidate.config or {})
    yield from _differ(Difference.ARCHITECTURE, "", wanted.architecture, offered.architecture)
    if wanted.architecture == offered.architecture:
        name = "model_type "
        yield from _differ(Difference.ARCHITECTURE, name, wanted.model_type, offered.model_type)
    theirs = list_sizes(offered)
    for name, size in list_sizes(wanted).items():
        yield from _differ(Difference.DIMENSIONS, f"{name} ", size, theirs.get(name))
    vocabularies = (_find_vocabulary(wanted), _find_vocabulary(offered))
    yield from _differ(Difference.VOCABULARY, "", *vocabularies)
    positions = (read_positions(wanted), read_positions(offered))
    if None not in positions:
        yield from _differ(Difference.POSITIONS, "", *positions)
    yield from _compare_parameters(asked, candidate)
    yield from _compare_kinds(asked, candidate)


def _differ(code: Difference, name: str, wanted: object, offered: object) -> Iterator[Finding]:
    if wanted != offered:
        shown = ["none" if value is None else value for value in (offered, wanted)]
        yield Finding(code=code, reason=f"{name}{shown[0]} instead of {shown[1]}")


def _find_vocabulary(declared: Declared) -> int | None:
    return declared.text().find_number("vocab_size") or declared.find_number("vocab_size")


def _compare_parameters(asked: RepositoryFacts, candidate: RepositoryFacts) -> Iterator[Finding]:
    counts = []
    for facts in (asked, candidate):
        count = _count(facts)
        if isinstance(count, str):
            yield Finding(code=Difference.UNKNOWN, reason=count)
            return
        counts.append(count)
    wanted, offered = counts
    if abs(wanted - offered) > _TOLERANCE * max(wanted, offered):
        reason = f"{offered:,} instead of {wanted:,}, without the output head"
        yield Finding(code=Difference.PARAMETERS, reason=reason)


def _count(facts: RepositoryFacts) -> int | str:
    """Parameters of the model that the repository holds, or why they cannot be counted."""
    try:
        chosen = {file.path for file in choose_weights(facts).files}
    except WarmrackError as refusal:
        return refusal.message
    headers: list[WeightFile] = [file for file in facts.weights if file.path in chosen]
    count = count_body(facts.config or {}, headers)
    if len(headers) < len(chosen) or not count:
        return f"{facts.repository}'s weights have no headers that can be counted"
    return count


def _compare_kinds(asked: RepositoryFacts, candidate: RepositoryFacts) -> Iterator[Finding]:
    """By the words of the names; where these agree, by whether there is a chat template."""
    wanted, offered = find_kind(asked.repository), find_kind(candidate.repository)
    yield from _differ(Difference.KIND, "", wanted, offered)
    templates = (asked.chat_template, candidate.chat_template)
    if wanted == offered and None not in templates and templates[0] != templates[1]:
        has, has_not = sorted((asked, candidate), key=lambda facts: not facts.chat_template)
        reason = f"{has.repository} has a chat template, {has_not.repository} none"
        yield Finding(code=Difference.KIND, reason=reason)
