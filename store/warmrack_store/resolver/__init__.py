"""What a request becomes: facts in, a pinned resolution with its trail out.

Pure: it asks nobody, reads no clock and no environment, and gives the same on every worker.
"""

from collections.abc import Mapping

from warmrack_store.catalog import CATALOG_VERSION
from warmrack_store.errors import Defect
from warmrack_store.facts import RefFact, RepositoryFacts, WeightFile
from warmrack_store.requests import LoadRequest
from warmrack_store.resolution import Resolution
from warmrack_store.resolver import rules
from warmrack_store.resolver.declared import Declared, generates
from warmrack_store.resolver.files import is_tokenizer_file, list_oversized
from warmrack_store.resolver.memory import find_longest_context


def resolve(
    request: LoadRequest, facts: RepositoryFacts, ref: RefFact, *, versions: Mapping[str, str]
) -> Resolution:
    """The resolution of the request for a repository whose facts are known at the ref's commit.

    Raises a Refusal that says what about the repository or the request cannot be served.
    `versions` are the libraries' versions by name; they are recorded, and decide nothing.
    """
    if (facts.repository, facts.commit) != (ref.repository, ref.commit):
        raise Defect(
            f"facts of {facts.repository}@{facts.commit} for {ref.repository}@{ref.commit}"
        )
    trail = [rules.validate(request), rules.consult_lock(request)]
    substitution, canonical = rules.name_canonically(request, ref)
    trail += [canonical, rules.pin_commit(request, ref)]
    weights, kind = rules.choose_kind(facts)
    headers, read = rules.read_facts(facts, weights)
    trail += [kind, read, rules.list_candidates(facts), rules.check_lineage(facts)]
    precision, memory, planned = rules.plan_memory(request, facts, headers)
    paths = rules.plan_files(facts, weights)
    files = tuple(file for file in facts.files if file.path in set(paths))
    trail += [rules.check_limits(request, memory, sum(file.size for file in files)), planned]
    declared = Declared(facts.config or {})
    return Resolution(
        request_digest=request.digest(),
        asked=request.model,
        ref_asked=request.ref().revision,
        repository=facts.repository,
        commit=facts.commit,
        private=ref.private,
        gated=ref.gated,
        substitution=substitution,
        files=tuple(sorted(files, key=lambda file: file.path)),
        weights=tuple(file.path for file in weights.files),
        architecture=declared.architecture,
        model_type=declared.model_type,
        parameters=rules.count_parameters(headers),
        stored_dtypes=rules.count_dtypes(headers),
        precision=precision,
        tokenizer_files=tuple(path for path in paths if is_tokenizer_file(path)),
        memory=memory,
        generates=generates(declared.architecture),
        trail=tuple(trail),
        warnings=_list_warnings(request, facts, headers, precision),
        catalog_version=CATALOG_VERSION,
        versions=dict(versions),
    )


def _list_warnings(
    request: LoadRequest, facts: RepositoryFacts, headers: tuple[WeightFile, ...], precision: str
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
    if named is not None and named != precision:
        found.append(
            f"config.json names {named}, the tensors are stored as {precision} "
            f"({', '.join(rules.count_dtypes(headers))}) and are served as stored"
        )
    longest = find_longest_context(declared.text())
    if longest is not None and (request.max_seq_length or 0) > longest:
        found.append(f"max_seq_length {request.max_seq_length} is more than the model's {longest}")
    return tuple(found)
