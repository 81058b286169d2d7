"""One repository as it would be loaded for a request: its files, precision and memory."""

from collections.abc import Mapping
from dataclasses import dataclass

from warmrack_store.facts import FileFact, RepositoryFacts, WeightFile
from warmrack_store.requests import LoadRequest
from warmrack_store.resolution import Memory, Quantization, Resolution, TrailLine
from warmrack_store.resolver import rules
from warmrack_store.resolver.declared import Declared
from warmrack_store.resolver.files import list_oversized
from warmrack_store.resolver.gguf import get_header, read_config, unpacked
from warmrack_store.resolver.kinds import Weights
from warmrack_store.resolver.memory import find_longest_context
from warmrack_store.resolver.precision import GGUF, PrecisionPlan, count_dtypes, name_backend


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What R4, R5 and R9 found, with the lines that say so."""

    facts: RepositoryFacts
    weights: Weights
    headers: tuple[WeightFile, ...]
    files: tuple[FileFact, ...]
    """What is fetched, in path order."""
    precision: str
    cast: str | None = None
    quantization: Quantization | None = None
    memory: Memory
    read: tuple[TrailLine, ...]
    """R4 and R5."""
    planned: TrailLine
    """R9."""
    warnings: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def quantized(self) -> bool:
        return self.quantization is not None


def plan_variant(request: LoadRequest, facts: RepositoryFacts) -> Variant:
    """The load of this very repository. Raises the Refusal that says why it cannot be served."""
    if request.precision.startswith(GGUF):
        return _plan_gguf(request, facts)
    weights, kind = rules.choose_kind(facts)
    headers, read = rules.read_facts(facts, weights)
    plan, memory, planned = rules.plan_load(request, facts, headers)
    return Variant(
        facts=facts,
        weights=weights,
        headers=headers,
        files=rules.plan_files(facts, weights),
        precision=plan.precision,
        cast=plan.cast,
        quantization=plan.quantization,
        memory=memory,
        read=(kind, read),
        planned=planned,
        warnings=_list_warnings(request, facts, headers, plan),
    )


def _plan_gguf(request: LoadRequest, facts: RepositoryFacts) -> Variant:
    """The file brings its config and its tokenizer itself; nothing beside it is read."""
    quantization, weights, kind = rules.choose_gguf(request, facts)
    facts, headers, read = rules.read_gguf(facts, weights)
    plan, memory, planned = rules.plan_gguf_load(request, facts, headers, quantization)
    return Variant(
        facts=facts,
        weights=weights,
        headers=headers,
        files=weights.files,
        precision=plan.precision,
        quantization=plan.quantization,
        memory=memory,
        read=(kind, read),
        planned=planned,
        warnings=_list_warnings(request, facts, headers, plan),
    )


def read_headers(
    facts: RepositoryFacts, resolution: Resolution
) -> tuple[Mapping[str, object], tuple[WeightFile, ...]]:
    """The config and the headers of what was resolved; a GGUF file brings both itself."""
    if name_backend(resolution.quantization) != "gguf":
        chosen = (file for file in facts.weights if file.path in resolution.weights)
        return facts.config or {}, tuple(chosen)
    header = get_header(facts)
    return read_config(header), tuple(unpacked(header, path) for path in resolution.weights)


def have_equal_weights(one: Variant, other: Variant, roots: Mapping[str, str]) -> bool:
    """Whether the tensors are known to be the same: file by file, or by equal tensor roots.

    `roots` are tensor roots by `repository@commit` of what was fetched before.
    """
    if (one.cast, one.quantization) != (other.cast, other.quantization):
        return False
    if _digests(one) == _digests(other):
        return True
    known = [roots.get(f"{v.facts.repository}@{v.facts.commit}") for v in (one, other)]
    return known[0] is not None and known[0] == known[1]


def _digests(variant: Variant) -> list[str]:
    return sorted(file.digest for file in variant.weights.files)


def list_differing_companions(one: Variant, other: Variant) -> tuple[str, ...]:
    """Files besides the weights (config, tokenizer, ...) that are not the same in both."""
    weights = {file.path for v in (one, other) for file in v.weights.files}
    held = [{f.path: f.digest for f in v.files if f.path not in weights} for v in (one, other)]
    paths = held[0].keys() | held[1].keys()
    return tuple(sorted(path for path in paths if held[0].get(path) != held[1].get(path)))


def _list_warnings(
    request: LoadRequest,
    facts: RepositoryFacts,
    headers: tuple[WeightFile, ...],
    plan: PrecisionPlan,
) -> tuple[str, ...]:
    """What is served as it is although somebody may expect otherwise."""
    declared = Declared(facts.config or {})
    found = [
        f"{path} is too large to be read and is left out" for path in list_oversized(facts.files)
    ]
    if declared.architecture is None:
        found.append("config.json names no class (architectures)")
    named = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "float64": "fp64"}.get(
        declared.dtype or ""
    )
    as_stored = plan.cast is None and plan.quantization is None
    if as_stored and named is not None and named != plan.precision:
        found.append(
            f"config.json names {named}, the tensors are stored as {plan.precision} "
            f"({', '.join(count_dtypes(headers))}) and are served as stored"
        )
    longest = find_longest_context(declared.text())
    if longest is not None and (request.max_seq_length or 0) > longest:
        found.append(f"max_seq_length {request.max_seq_length} is more than the model's {longest}")
    return tuple(found)
