"""What a request becomes: facts in, a pinned resolution with its trail out.

Pure: it asks nobody, reads no clock and no environment, and gives the same on every worker.
"""

from collections.abc import Mapping, Sequence

from warmrack_store.catalog import CATALOG_VERSION
from warmrack_store.errors import LockMismatch
from warmrack_store.locks import LockedLoad, list_differences
from warmrack_store.requests import LoadRequest
from warmrack_store.resolution import Rejected, Resolution, TrailLine
from warmrack_store.resolver import rules
from warmrack_store.resolver.asked import Asked
from warmrack_store.resolver.attachments import Attachment, fit
from warmrack_store.resolver.candidates import Candidate
from warmrack_store.resolver.choice import Choice, choose
from warmrack_store.resolver.declared import Declared, generates
from warmrack_store.resolver.files import is_tokenizer_file
from warmrack_store.resolver.pool import UNKNOWN, Pool
from warmrack_store.resolver.precision import count_dtypes


def resolve(
    request: LoadRequest,
    asked: Asked,
    candidates: Sequence[Candidate] = (),
    *,
    rejected: Sequence[Rejected] = (),
    pool: Pool = UNKNOWN,
    attachment: Attachment | None = None,
    versions: Mapping[str, str],
) -> Resolution:
    """The resolution of the request for a repository whose facts are known at the ref's commit.

    `candidates` are the other repositories that may serve it, `rejected` those that were ruled
    out before anybody asked the Hub about them. With an `attachment` all of that is about the
    adapter's base, and so is `asked`. Raises a Refusal that says what about the
    repository or the request cannot be served. `versions` are the libraries' versions by name;
    they are recorded, and decide nothing.
    """
    put = request if attachment is None else attachment.base_request
    start = (
        rules.validate(request),
        rules.consult_lock(request),
        rules.name_canonically(put, asked.ref),
        rules.pin_commit(put, asked),
    )
    choice = choose(
        put, asked, candidates, rejected, attachment.narrow(pool) if attachment else pool
    )
    variant = choice.offer.variant
    trail = (*start, *variant.read, *choice.lines, variant.planned)
    resolution = _record(request, asked, choice, trail, versions)
    if attachment is not None:
        resolution = _attach(request, resolution, attachment, choice)
    if request.locked is not None:
        _check_lock(request, resolution, request.locked)
    return resolution


def _attach(
    request: LoadRequest, resolution: Resolution, attachment: Attachment, choice: Choice
) -> Resolution:
    fitted = fit(request, attachment, choice.offer)
    changes = {
        "ref_asked": attachment.base_request.ref().revision,
        "adapter": fitted.pin,
        "memory": fitted.memory,
        "trail": fitted.annotate(resolution.trail),
        "warnings": (*resolution.warnings, *fitted.warnings),
    }
    return resolution.model_copy(update=changes)


def _check_lock(request: LoadRequest, resolution: Resolution, locked: LockedLoad) -> None:
    differences = list_differences(locked, resolution.lock())
    if differences:
        raise LockMismatch(f"{request.model} is not as locked: {'; '.join(differences[:5])}")


def _record(
    request: LoadRequest,
    asked: Asked,
    choice: Choice,
    trail: tuple[TrailLine, ...],
    versions: Mapping[str, str],
) -> Resolution:
    offer, variant = choice.offer, choice.offer.variant
    declared = Declared(variant.facts.config or {})
    paths = (file.path for file in variant.files)
    return Resolution(
        request_digest=request.digest(),
        asked=request.model,
        ref_asked=request.ref().revision,
        asked_commit=asked.ref.commit,
        mode=request.mode,
        repository=offer.ref.repository,
        commit=offer.ref.commit,
        private=offer.ref.private,
        gated=offer.ref.gated,
        substitution=offer.substitution,
        files=variant.files,
        weights=tuple(file.path for file in variant.weights.files),
        architecture=declared.architecture,
        model_type=declared.model_type,
        parameters=rules.count_parameters(declared.config, variant.headers),
        stored_dtypes=count_dtypes(variant.headers),
        precision=variant.precision,
        cast=variant.cast,
        quantization=variant.quantization,
        tokenizer_files=tuple(path for path in paths if is_tokenizer_file(path)),
        memory=variant.memory,
        generates=generates(declared.architecture),
        trail=trail,
        rejected=choice.rejected,
        warnings=(*choice.warnings, *variant.warnings, *variant.memory.notes),
        catalog_version=CATALOG_VERSION,
        versions=dict(versions),
    )
