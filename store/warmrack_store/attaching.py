"""From a request that names an adapter to the adapter and its base, each at a commit of its own."""

from collections.abc import Callable
from dataclasses import dataclass

from warmrack_store.errors import (
    AdapterBaseUnresolved,
    Contradiction,
    RepoNotFound,
    RevisionNotFound,
)
from warmrack_store.locks import LockedLoad
from warmrack_store.refs import ModelRef, merge_revision
from warmrack_store.requests import AS_TRAINED, VENDOR, LoadRequest
from warmrack_store.resolver.adapters import choose_base, is_adapter, read_adapter
from warmrack_store.resolver.asked import Asked
from warmrack_store.resolver.attachments import Attachment, check_mode

Find = Callable[[ModelRef], Asked]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """What a request's names were answered with."""

    model: Asked
    """The full model: the repository that is asked for, or the base of an adapter."""
    attachment: Attachment | None = None


def find_pairing(find: Find, request: LoadRequest, locked: LockedLoad | None = None) -> Pairing:
    """The repository that the request names and, where an adapter is asked for, that with its base.

    `find` asks for a name's commit and facts. A lock pins both commits, whatever the revisions are
    now. Raises Refusals, among them AdapterBaseUnresolved where no base can be told or asked for.
    """
    if request.adapter is not None:
        check_mode(request)
        return _pair_named(find, request, locked)
    ref = request.ref()
    pinned = _find_pinned(locked)
    asked = find(ModelRef(repository=ref.repository, revision=pinned or ref.revision))
    if not is_adapter(asked.facts):
        if request.adapter_base is not None:
            raise Contradiction(
                f"adapter_base is given, but {asked.ref.repository} is no adapter",
                hint="Name the adapter in the field adapter, or leave adapter_base out.",
            )
        return Pairing(model=asked)
    check_mode(request)
    read_adapter(asked.facts)
    base_ref = choose_base(asked.facts, request.adapter_base)
    base = _find_base(find, asked, _pin(base_ref, locked))
    return Pairing(
        model=base,
        attachment=Attachment(
            adapter=asked,
            base=base,
            base_request=_put_to_base(request, base_ref),
            adapter_revision=ref.revision,
        ),
    )


def _pair_named(find: Find, request: LoadRequest, locked: LockedLoad | None) -> Pairing:
    """The base is the model that the request names, and has to be the one that is meant."""
    named, own = request.adapter_ref(), request.ref()
    revision = _find_pinned(locked) if locked is not None else named.revision
    adapter = find(ModelRef(repository=named.repository, revision=revision))
    read_adapter(adapter.facts)
    meant = choose_base(adapter.facts, request.adapter_base)
    explicit = request.adapter_base not in (None, AS_TRAINED, VENDOR)
    warnings: tuple[str, ...] = ()
    if explicit:
        base_ref = merge_revision(own, meant.revision)
    else:
        base_ref = ModelRef(repository=own.repository, revision=own.revision or meant.revision)
        if own.revision and meant.revision and own.revision != meant.revision:
            warnings = (f"the adapter was trained on revision {meant.revision} of its base",)
    base = find(_pin(base_ref, locked))
    if is_adapter(base.facts):
        raise Contradiction(
            f"model and adapter both name adapters: {base.ref.repository}, {adapter.ref.repository}",
            hint="Name the base in the field model.",
        )
    _check_meant(find, request, adapter, base, meant)
    return Pairing(
        model=base,
        attachment=Attachment(
            adapter=adapter,
            base=base,
            base_request=_put_to_base(request, base_ref),
            adapter_revision=named.revision,
            warnings=warnings,
        ),
    )


def _check_meant(
    find: Find, request: LoadRequest, adapter: Asked, base: Asked, meant: ModelRef
) -> None:
    """The names are the same, or two spellings of one repository."""
    names = {request.ref().repository.lower(), base.ref.repository.lower()}
    if meant.repository.lower() in names:
        return
    if request.adapter_base not in (None, AS_TRAINED, VENDOR):
        raise Contradiction(
            f"model names {base.ref.repository}, adapter_base {meant.repository}",
            hint="Name one base, in the field model.",
        )
    try:
        canonical = find(ModelRef(repository=meant.repository)).ref.repository
    except (RepoNotFound, RevisionNotFound):
        canonical = meant.repository
    if canonical.lower() not in names:
        raise AdapterBaseUnresolved(
            f"{adapter.ref.repository} is for {canonical}, not for {base.ref.repository}",
            hint=f"Ask for {canonical}, or attach it all the same with "
            f"adapter_base {base.ref.repository}.",
        )


def _find_base(find: Find, adapter: Asked, ref: ModelRef) -> Asked:
    try:
        base = find(ref)
    except (RepoNotFound, RevisionNotFound) as error:
        raise AdapterBaseUnresolved(
            f"{adapter.ref.repository} is for {ref.repository}"
            f"{f' at {ref.revision}' if ref.revision else ''}: {error.message}"
        ) from error
    if is_adapter(base.facts):
        raise AdapterBaseUnresolved(
            f"{adapter.ref.repository} is for {base.ref.repository}, which is an adapter itself"
        )
    return base


def _find_pinned(locked: LockedLoad | None) -> str | None:
    """The locked commit of the repository that is the adapter, where there is one."""
    if locked is None:
        return None
    return locked.adapter.commit if locked.adapter is not None else locked.asked_commit


def _pin(ref: ModelRef, locked: LockedLoad | None) -> ModelRef:
    if locked is None:
        return ref
    return ModelRef(repository=ref.repository, revision=locked.asked_commit)


def _put_to_base(request: LoadRequest, base: ModelRef) -> LoadRequest:
    named = {"model": base.repository, "revision": base.revision}
    return request.model_copy(update={**named, "adapter": None, "adapter_base": None})
