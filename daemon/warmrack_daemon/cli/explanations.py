"""An explanation as a person reads it: asked, served, memory, where it fits, and why."""

from collections.abc import Iterator

from warmrack import Explanation, Fit
from warmrack_daemon.cli.output import print_line, print_table
from warmrack_store.durations import format_duration, format_size


def print_explanation(explanation: Explanation) -> None:
    facts = list(_facts(explanation))
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        print_line(f"{name.ljust(width)}  {value}")
    if explanation.devices:
        print_line("")
        rows = [_fit_row(fit) for fit in explanation.devices]
        print_table(("", "node", "device", "budget", "free", "ready in", "because"), rows)
    print_line("")
    print_table(
        ("rule", "saw", "decided", "because"),
        [(line.rule, line.input, line.decision, line.evidence) for line in explanation.trail],
    )
    if explanation.rejected:
        print_line("")
        rejected = [(one.repository, one.code, one.reason) for one in explanation.rejected]
        print_table(("rejected", "code", "reason"), rejected)


def _facts(explanation: Explanation) -> Iterator[tuple[str, str]]:
    memory = explanation.memory
    same = explanation.substitution == "none"
    how = "as asked" if same else f"{explanation.substitution} of what was asked"
    ref = f"@{explanation.ref_asked}" if explanation.ref_asked else ""
    yield "asked", f"{explanation.asked}{ref}"
    yield "served", f"{explanation.repository} ({how})"
    yield "commit", explanation.commit
    yield "precision", explanation.precision
    yield (
        "model",
        f"{explanation.architecture or 'unknown'}, {explanation.parameters:,} parameters",
    )
    yield "files", f"{len(explanation.files)}, {format_size(explanation.size_bytes)}"
    yield (
        "memory",
        f"{format_size(memory.total_bytes)} = weights {format_size(memory.weights_bytes)}"
        f" + cache {format_size(memory.cache_bytes)} ({memory.context_tokens:,} tokens)"
        f" + workspace {format_size(memory.workspace_bytes)}",
    )
    for warning in explanation.warnings:
        yield "warning", warning


def _fit_row(fit: Fit) -> tuple[str, ...]:
    mark = "✗" if not fit.fits else "✓" if fit.fits_now else "~"
    ready = fit.fits and fit.expected_seconds is not None
    return (
        mark,
        fit.node,
        fit.device,
        format_size(fit.budget_bytes),
        format_size(fit.free_bytes),
        format_duration(fit.expected_seconds or 0.0) if ready else "",
        fit.reason if fit.fits_now or not fit.fits else f"{fit.reason}, once others have gone",
    )
