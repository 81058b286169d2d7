"""An explanation as a person reads it: what is asked, what is served, what that needs, and where."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from warmrack import Estimate, Explanation, Fit
from warmrack_daemon.cli.output import print_styled, print_table
from warmrack_store.durations import format_duration, format_size
from warmrack_store.resolution import Memory

_SHORT_COMMIT = 12
_GOOD, _FAIR, _BAD, _QUIET = "green", "yellow", "red", "dim"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One line: what it is about, what is said, and the colour that says how good that is."""

    name: str
    text: str
    style: str | None = None


def print_explanation(explanation: Explanation, *, trail: bool = False) -> None:
    """Who asked what and gets what, size, memory, devices, candidates, warnings; then the trail."""
    _print_facts([*_list_served(explanation), *_list_needs(explanation, explanation.memory)])
    _print_devices(explanation.devices)
    if explanation.rejected:
        rows = [(one.repository, one.code, one.reason) for one in explanation.rejected]
        _print_part("not served instead", ("repository", "code", "reason"), rows)
    if trail:
        lines = [
            (line.rule, line.input, line.decision, line.evidence) for line in explanation.trail
        ]
        _print_part("why", ("rule", "saw", "decided", "because"), lines)
    else:
        print_styled("")
        print_styled("--trail shows what each rule saw and decided", _QUIET)


def print_estimate(estimate: Estimate) -> None:
    """The needs and the devices alone."""
    served = Fact(name="model", text=f"{estimate.repository}@{estimate.commit[:_SHORT_COMMIT]}")
    precision = Fact(name="precision", text=estimate.precision)
    _print_facts([served, precision, *_list_needs(estimate, estimate.memory)])
    _print_devices(estimate.devices)


def _list_served(explanation: Explanation) -> Iterator[Fact]:
    named = explanation.ref_asked and "@" not in explanation.asked
    ref = f"@{explanation.ref_asked}" if named else ""
    as_asked = explanation.substitution == "none"
    how = "as asked" if as_asked else f"{explanation.substitution}, {_find_reason(explanation)}"
    yield Fact(name="asked", text=f"{explanation.asked}{ref}")
    yield Fact(
        name="served",
        text=f"{explanation.repository}@{explanation.commit[:_SHORT_COMMIT]}, {how}",
        style=_GOOD if as_asked else _FAIR,
    )
    if (pin := explanation.adapter) is not None:
        name = f"{pin.repository}@{pin.commit[:_SHORT_COMMIT]}"
        text = f"{name}, {pin.how.value}, rank {pin.rank} on {', '.join(pin.target_modules)}"
        yield Fact(name="adapter", text=text)
    yield Fact(name="precision", text=f"{explanation.precision}, {_describe_load(explanation)}")
    architecture = explanation.architecture or "unknown class"
    yield Fact(name="model", text=f"{architecture}, {explanation.parameters:,} parameters")


def _find_reason(explanation: Explanation) -> str:
    """Why another name: what the Hub says of an alias (R2), or what was chosen from (R6)."""
    alias = explanation.substitution == "alias"
    lines = (line for line in explanation.trail if line.rule == ("R2" if alias else "R6"))
    evidence = next((line.evidence for line in lines), "")
    if not evidence:
        return "see the trail"
    return f"since {evidence}" if alias else f"chosen from {evidence}"


def _describe_load(explanation: Explanation) -> str:
    quantization = explanation.quantization
    if quantization is not None:
        where = "at the load" if quantization.source == "on_the_fly" else "in the checkpoint"
        return f"quantized {where}"
    return "cast at the load" if explanation.cast else "as stored"


def _list_needs(answer: Explanation | Estimate, memory: Memory) -> Iterator[Fact]:
    yield Fact(name="files", text=_describe_files(answer))
    yield Fact(name="memory", text=_describe_memory(memory))
    for note in dict.fromkeys((*answer.warnings, *memory.notes)):
        yield Fact(name="warning", text=note, style=_FAIR)


def _describe_files(answer: Explanation | Estimate) -> str:
    size = format_size(answer.size_bytes)
    here = f"on {', '.join(answer.cached_on)}" if answer.cached_on else ""
    if answer.download_bytes is None:
        return size
    if answer.download_bytes == 0:
        return f"{size}, all here already" + (f" ({here})" if here else "")
    elsewhere = f" (all {here})" if here else ""
    return f"{size}, {format_size(answer.download_bytes)} to download{elsewhere}"


def _describe_memory(memory: Memory) -> str:
    sequences = f"{memory.batch} x " if memory.batch != 1 else ""
    state, load = memory.quantization_state_bytes, memory.load_bytes
    parts = [f"weights {format_size(memory.weights_bytes)}"]
    parts += [f"quantization state {format_size(state)}"] if state else []
    if load > memory.cache_bytes + memory.workspace_bytes:
        parts.append(f"load {format_size(load)}, gone before the cache is there")
    else:
        tokens = f"{sequences}{memory.context_tokens:,} tokens"
        parts.append(f"cache {format_size(memory.cache_bytes)} ({tokens})")
        parts.append(f"workspace {format_size(memory.workspace_bytes)}")
    return f"{format_size(memory.total_bytes)} = {' + '.join(parts)}"


def _print_facts(facts: Iterable[Fact]) -> None:
    listed = list(facts)
    width = max(len(fact.name) for fact in listed)
    for fact in listed:
        print_styled(f"{fact.name.ljust(width)}  {fact.text}", fact.style)


def _print_devices(fits: Iterable[Fit]) -> None:
    listed = list(fits)
    if not listed:
        print_styled("")
        print_styled("no device: the pool has none, or no node is there", _BAD)
        return
    columns = ("", "node", "device", "ready in", "free", "of", "because")
    styles = [_style(fit) for fit in listed]
    _print_part("", columns, [_row(fit) for fit in listed], styles)
    if assumed := sorted({stage for fit in listed for stage in _list_assumed(fit)}):
        stages = ", ".join(assumed)
        print_styled(f"~ not measured in this pool yet, assumed: {stages}", _QUIET)
    if not any(fit.fits for fit in listed):
        print_styled("no device of the pool can hold it", _BAD)


def _print_part(
    title: str,
    columns: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
    styles: Sequence[str | None] | None = None,
) -> None:
    print_styled("")
    if title:
        print_styled(title, "bold")
    print_table(columns, rows, styles=styles)


def _row(fit: Fit) -> tuple[str, ...]:
    mark = "✗" if not fit.fits else "✓" if fit.fits_now else "~"
    return (
        "★" if fit.best else mark,
        fit.node,
        fit.device,
        _describe_seconds(fit),
        format_size(fit.free_bytes),
        format_size(fit.budget_bytes),
        f"{fit.reason} (best)" if fit.best else fit.reason,
    )


def _describe_seconds(fit: Fit) -> str:
    if fit.expected_seconds is None:
        return "never" if not fit.fits else "not now"
    if fit.holds:
        return "now"
    return ("~" if _list_assumed(fit) else "") + format_duration(fit.expected_seconds)


def _list_assumed(fit: Fit) -> list[str]:
    return [step.stage for step in fit.steps if not step.measured]


def _style(fit: Fit) -> str | None:
    if fit.best:
        return _GOOD
    if not fit.fits or fit.expected_seconds is None:
        return _BAD
    return None if fit.fits_now else _FAIR
