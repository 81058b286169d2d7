"""What a request becomes: facts in, a pinned resolution with its trail out.

Pure: it asks nobody, reads no clock and no environment, and gives the same on every worker.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from warmrack_store.catalog import CATALOG_VERSION
from warmrack_store.errors import Defect
from warmrack_store.facts import RefFact, RepositoryFacts
from warmrack_store.requests import LoadRequest
from warmrack_store.resolution import Rejected, Resolution, Substitution, TrailLine
from warmrack_store.resolver import rules
from warmrack_store.resolver.candidates import Candidate
from warmrack_store.resolver.declared import Declared, generates
from warmrack_store.resolver.files import is_tokenizer_file
from warmrack_store.resolver.pool import UNKNOWN, Pool
from warmrack_store.resolver.variants import Variant, plan_variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the name meant at the Hub `age_seconds` ago, with the facts of that commit."""

    ref: RefFact
    facts: RepositoryFacts
    age_seconds: float = 0.0

    def __post_init__(self) -> None:
        facts, ref = self.facts, self.ref
        if (facts.repository, facts.commit) != (ref.repository, ref.commit):
            raise Defect(
                f"facts of {facts.repository}@{facts.commit} for {ref.repository}@{ref.commit}"
            )


def resolve(
    request: LoadRequest,
    asked: Asked,
    candidates: Sequence[Candidate] = (),
    *,
    rejected: Sequence[Rejected] = (),
    pool: Pool = UNKNOWN,
    versions: Mapping[str, str],
) -> Resolution:
    """The resolution of the request for a repository whose facts are known at the ref's commit.

    `candidates` are the other repositories that may serve it, `rejected` those that were ruled
    out before anybody asked the Hub about them. Raises a Refusal that says what about the
    repository or the request cannot be served. `versions` are the libraries' versions by name;
    they are recorded, and decide nothing.
    """
    facts, ref = asked.facts, asked.ref
    trail = [rules.validate(request), rules.consult_lock(request)]
    substitution, canonical = rules.name_canonically(request, ref)
    trail += [canonical, rules.pin_commit(request, ref, asked.age_seconds)]
    variant = plan_variant(request, facts)
    trail += [*variant.read, rules.list_candidates(facts), rules.check_lineage(facts)]
    trail += [rules.check_limits(request, variant.memory, variant.size_bytes), variant.planned]
    return _record(request, ref, variant, substitution, tuple(trail), versions)


def _record(
    request: LoadRequest,
    ref: RefFact,
    variant: Variant,
    substitution: Substitution,
    trail: tuple[TrailLine, ...],
    versions: Mapping[str, str],
) -> Resolution:
    declared = Declared(variant.facts.config or {})
    paths = (file.path for file in variant.files)
    return Resolution(
        request_digest=request.digest(),
        asked=request.model,
        ref_asked=request.ref().revision,
        repository=variant.facts.repository,
        commit=variant.facts.commit,
        private=ref.private,
        gated=ref.gated,
        substitution=substitution,
        files=variant.files,
        weights=tuple(file.path for file in variant.weights.files),
        architecture=declared.architecture,
        model_type=declared.model_type,
        parameters=rules.count_parameters(variant.headers),
        stored_dtypes=rules.count_dtypes(variant.headers),
        precision=variant.precision,
        tokenizer_files=tuple(path for path in paths if is_tokenizer_file(path)),
        memory=variant.memory,
        generates=generates(declared.architecture),
        trail=trail,
        warnings=variant.warnings,
        catalog_version=CATALOG_VERSION,
        versions=dict(versions),
    )
