"""From a request to its pinned resolution: the Hub is asked for what SQL does not hold yet."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from warmrack_store.attaching import find_pairing
from warmrack_store.database import Database, Transaction
from warmrack_store.errors import OfflineMiss, Refusal
from warmrack_store.facts import RefFact, RepositoryFacts
from warmrack_store.hub import HubFacts
from warmrack_store.ledgers import copies, names, nodes, resolutions, skeletons
from warmrack_store.locks import LockedLoad
from warmrack_store.refs import ModelRef
from warmrack_store.requests import LoadRequest, Mode, Network
from warmrack_store.resolution import Resolution
from warmrack_store.resolver import resolve
from warmrack_store.resolver.asked import Asked
from warmrack_store.resolver.candidates import (
    Candidate,
    Proposal,
    Provenance,
    list_proposals,
    propose,
    wants_children,
)
from warmrack_store.resolver.declared import Declared
from warmrack_store.resolver.pool import UNKNOWN, Pool
from warmrack_store.rights import Rights
from warmrack_store.states import NodeState

_GONE = (NodeState.LOST, NodeState.STOPPED)
_STORED_AGAIN_SECONDS = 10.0
"""An answer that repeats the known one within this time is not stored again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Gives facts to a resolution: from SQL where they are kept, else from the Hub.

    The caller's own token asks; the facts of a commit are asked once per cluster. `rights`
    remembers what the Hub says of the token; without it each right is asked for anew.
    """

    database: Database
    hub: HubFacts
    network: Network
    token: str | None
    rights: Rights | None = None

    def find_asked(self, asked: ModelRef) -> Asked:
        """What the name means, with the repository's facts. Raises Refusals, HubUnavailable."""
        ref, age_seconds = self._find_ref(asked)
        return Asked(ref=ref, facts=self._get_facts(ref), age_seconds=age_seconds)

    def find_candidate(self, proposal: Proposal, revision: str | None = None) -> Candidate:
        """The proposal with its facts, or with the reason why this caller cannot have them."""
        try:
            found = self.find_asked(ModelRef(repository=proposal.repository, revision=revision))
            return Candidate(proposal=proposal, found=found)
        except Refusal as refusal:
            return Candidate(proposal=proposal, found=refusal)

    def list_children(self, repository: str) -> tuple[str, ...]:
        if self.network is Network.OFFLINE:
            return ()
        return self.hub.list_children(repository, self.token)

    def list_equals(self, asked: Asked) -> Sequence[str]:
        with self.database.read() as tx:
            return resolutions.list_equals(tx, asked.facts)

    def _find_ref(self, asked: ModelRef) -> tuple[RefFact, float]:
        """The ref and the age of the answer in seconds, 0 where the Hub gave it just now."""
        with self.database.read() as tx:
            known = names.find_ref(tx, asked)
        if known is not None and self.network is not Network.ONLINE:
            self._check_right(known.ref)
            return known.ref, known.age_seconds
        if self.network is Network.OFFLINE:
            raise OfflineMiss(
                f"{asked.repository} at {asked.revision or 'its default branch'} was never asked "
                "of the Hub",
                hint="Let this pool ask the Hub once, or bring the snapshot along: "
                "`warmrack cache export` where it is, `warmrack cache import` here.",
            )
        ref = self._ask_ref(asked)
        stale = known is None or known.age_seconds > _STORED_AGAIN_SECONDS or known.ref != ref
        if stale:
            with self.database.write() as tx:
                names.put_ref(tx, asked, ref)
        return ref, 0.0

    def _ask_ref(self, asked: ModelRef) -> RefFact:
        try:
            ref = self.hub.find_ref(asked, self.token)
        except Refusal as refusal:
            if self.rights is not None:
                self.rights.note_refusal(asked.repository, self.token, refusal)
            raise
        if self.rights is not None:
            self.rights.note(ref, self.token)
        return ref

    def _check_right(self, ref: RefFact) -> None:
        """A kept answer of a non-public repository says nothing about this caller's right."""
        if not (ref.private or ref.gated):
            return
        if self.network is Network.OFFLINE:
            raise OfflineMiss(
                f"{ref.repository} is not public, and the right to it cannot be checked offline",
                hint="Ask with network online or cached_first.",
            )
        (self.rights.check if self.rights is not None else self.hub.check_right)(
            ref.repository, self.token
        )

    def _get_facts(self, ref: RefFact) -> RepositoryFacts:
        with self.database.read() as tx:
            known = resolutions.find_facts(tx, ref.repository, ref.commit)
            skeleton = skeletons.find_skeleton(tx, known.config or {}) if known else None
        if known is not None:
            # Visibility belongs to the repository, not to the commit: it is as it is now.
            now = {"private": ref.private, "gated": ref.gated, "skeleton": skeleton}
            return known.model_copy(update=now)
        if self.network is Network.OFFLINE:
            raise OfflineMiss(f"the files of {ref.repository}@{ref.commit} are not known here")
        facts = self.hub.get_facts(ref, self.token)
        with self.database.write() as tx:
            resolutions.put_facts(tx, facts)
        return facts


def resolve_request(
    database: Database,
    hub: HubFacts,
    request: LoadRequest,
    token: str | None,
    *,
    versions: Mapping[str, str],
    rights: Rights | None = None,
) -> Resolution:
    """The resolution, made with the caller's own token.

    The name, and the caller's right to it, are asked of the Hub each time, except where the
    request's `network` says otherwise.
    """
    asker = Asker(database=database, hub=hub, network=request.network, token=token, rights=rights)
    if request.locked is not None:
        return _resolve_locked(asker, request, request.locked, versions)
    pairing = find_pairing(asker.find_asked, request)
    asked, attachment = pairing.model, pairing.attachment
    if request.mode is Mode.EXACT:
        return resolve(request, asked, attachment=attachment, versions=versions)
    put = request if attachment is None else attachment.base_request
    children = asker.list_children(asked.ref.repository) if wants_children(request) else ()
    proposals = list_proposals(
        put,
        asked.ref.repository,
        children=children,
        equals=asker.list_equals(asked),
        model_type=Declared(asked.facts.config or {}).model_type,
    )
    kept, rejected = propose(put, asked.ref.repository, proposals)
    candidates = tuple(one for one in map(asker.find_candidate, kept) if not _is_hidden_equal(one))
    found = [asked, *(one.found for one in candidates if isinstance(one.found, Asked))]
    return resolve(
        request,
        asked,
        candidates,
        rejected=rejected,
        pool=read_pool(database, request.mode, found),
        attachment=attachment,
        versions=versions,
    )


def _is_hidden_equal(candidate: Candidate) -> bool:
    """Whether this pool alone knows of the equality, and the Hub shows the caller no such name:
    it has been closed or taken down since."""
    equal = candidate.proposal.provenance is Provenance.EQUAL
    return equal and isinstance(candidate.found, Refusal)


def _resolve_locked(
    asker: Asker, request: LoadRequest, locked: LockedLoad, versions: Mapping[str, str]
) -> Resolution:
    """The Hub is asked for the locked commits alone; branches and catalogs may have moved."""
    pairing = find_pairing(asker.find_asked, request, locked)
    asked, attachment = pairing.model, pairing.attachment
    if locked.repository.lower() == asked.ref.repository.lower():
        return resolve(request, asked, attachment=attachment, versions=versions)
    proposal = Proposal(
        repository=locked.repository, provenance=Provenance.LOCK, evidence="the lock"
    )
    candidate = asker.find_candidate(proposal, locked.commit)
    found = [asked, *((candidate.found,) if isinstance(candidate.found, Asked) else ())]
    return resolve(
        request,
        asked,
        [candidate],
        pool=read_pool(asker.database, request.mode, found),
        attachment=attachment,
        versions=versions,
    )


def read_pool(database: Database, mode: Mode, found: Iterable[Asked]) -> Pool:
    """What the mode may weigh of the pool: nothing for an exact request."""
    if mode not in (Mode.AUTO, Mode.EQUIVALENT):
        return UNKNOWN
    with database.read() as tx:
        if mode is Mode.AUTO:
            return Pool(
                budgets={
                    f"{node.name}/{device['name']}": device["budget_bytes"]
                    for node in nodes.list_nodes(tx)
                    if node.state not in _GONE
                    for device in node.devices
                }
            )
        return Pool(cached=_list_cached(tx, found), roots=_list_roots(tx, found))


def _list_cached(tx: Transaction, found: Iterable[Asked]) -> frozenset[tuple[str, str]]:
    names = [(one.ref.repository, one.ref.commit) for one in found]
    return frozenset(
        name for name in names if any(copy.complete for copy in copies.list_copies_of(tx, *name))
    )


def _list_roots(tx: Transaction, found: Iterable[Asked]) -> dict[str, str]:
    """Tensor roots by `repository@commit` of those that were fetched once."""
    names = [(one.ref.repository, one.ref.commit) for one in found]
    roots = {f"{name}@{commit}": resolutions.find_root(tx, name, commit) for name, commit in names}
    return {name: root for name, root in roots.items() if root is not None}
