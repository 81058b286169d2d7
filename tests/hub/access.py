"""Which token reads which repository."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace

from tests.hub.refusals import Refusal
from tests.hub.repositories import Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A user by token; private and gated repositories outside the set are refused."""

    token: str
    user: str
    repositories: frozenset[str]


class Readers:
    """The table of tokens."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_token: dict[str, Reader] = {}

    def grant(self, token: str, repositories: Iterable[str] = (), user: str | None = None) -> None:
        """Add repositories to a token, which becomes known even when there are none."""
        with self._lock:
            old = self._by_token.get(token)
            held = old.repositories if old else frozenset()
            name = user or (old.user if old else f"user-{len(self._by_token) + 1}")
            self._by_token[token] = Reader(
                token=token, user=name, repositories=held.union(repositories)
            )

    def revoke(self, token: str, repositories: Iterable[str] | None = None) -> None:
        """Take repositories from a token, or the token itself when none are named."""
        with self._lock:
            if repositories is None:
                del self._by_token[token]
            else:
                old = self._by_token[token]
                left = old.repositories.difference(repositories)
                self._by_token[token] = replace(old, repositories=left)

    def rename(self, name: str, new_name: str) -> None:
        """Carry rights over to a repository's new name."""
        with self._lock:
            for token, reader in self._by_token.items():
                if name in reader.repositories:
                    held = reader.repositories - {name} | {new_name}
                    self._by_token[token] = replace(reader, repositories=held)

    def get_reader(self, authorization: str | None) -> Reader | None:
        """Who asks; None is anonymous, an unknown token is a refusal as at the Hub."""
        if authorization is None:
            return None
        reader = self._by_token.get(authorization.removeprefix("Bearer "))
        if reader is None:
            raise Refusal(401, None, "Invalid credentials in Authorization header")
        return reader


def may_see(repository: Repository, reader: Reader | None) -> bool:
    return not repository.private or (reader is not None and repository.name in reader.repositories)


def refuse_unseen(reader: Reader | None) -> Refusal:
    """The same words for a missing and a private repository, so that names do not leak."""
    return Refusal(401 if reader is None else 404, "RepoNotFound", "Repository not found")


def check_gate(repository: Repository, reader: Reader | None) -> None:
    """Raise `Refusal` unless the reader was let through the gate, if there is one."""
    if not repository.gated or (reader and repository.name in reader.repositories):
        return
    words = f"Access to model {repository.name} is restricted"
    if reader is None:
        raise Refusal(401, "GatedRepo", f"{words}. You must be authenticated to access it.")
    raise Refusal(403, "GatedRepo", f"{words} and you are not in the authorized list.")
