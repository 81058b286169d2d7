"""What the Hub origin answers under `/api` and `/{id}/resolve`."""

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode

from tests.hub import listings
from tests.hub.access import Reader, Readers, check_gate, may_see, refuse_unseen
from tests.hub.answers import Answer, Request, file_answer, json_answer
from tests.hub.cdn import Signer, cdn_path
from tests.hub.refusals import Refusal
from tests.hub.repositories import Commit, Repositories, Repository
from tests.hub.xet import XetStorage

_REPOSITORY = r"(?P<repository>[^/]+(?:/[^/]+)??)"
_API = re.compile(
    rf"^/api/models/{_REPOSITORY}"
    r"(?:/(?P<verb>revision|tree|refs|commits|paths-info|auth-check|safetensors-metadata|xet-read-token)"
    r"(?:/(?P<rest>.*))?)?$"
)
_RESOLVE = re.compile(rf"^/{_REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<path>.+)$")


@dataclass(slots=True, kw_only=True)
class HubSettings:
    """What a test may turn on a running Hub."""

    page_entries: int = 1000
    signature_ttl_seconds: float = 3600.0
    xet: XetStorage | None = None
    """Where LFS files lie also as Xet objects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubAnswers:
    """`url` and `cdn_url` are the two origins, without a slash at the end."""

    repositories: Repositories
    readers: Readers
    signer: Signer
    settings: HubSettings
    url: str
    cdn_url: str

    def answer(self, request: Request) -> Answer:
        reader = self.readers.get_reader(request.headers.get("authorization"))
        if request.path == "/api/whoami-v2":
            return _whoami(reader)
        if request.path == "/api/models":
            return self._list_models(request, reader)
        if found := _API.match(request.path):
            return self._about_model(request, reader, found)
        if found := _RESOLVE.match(request.path):
            return self._resolve(request, reader, found)
        raise refuse_unseen(reader)

    def _about_model(self, request: Request, reader: Reader | None, found: re.Match[str]) -> Answer:
        verb, rest = found["verb"] or "revision", found["rest"] or ""
        repository = self._get_visible(request, found["repository"], reader)
        verbs: dict[str, Callable[[Request, Repository, str], Answer]] = {
            "revision": self._describe,
            "tree": self._tree,
            "refs": lambda _request, held, _rest: json_answer(listings.describe_refs(held)),
            "commits": self._commits,
            "paths-info": _paths_info,
            "safetensors-metadata": _safetensors_metadata,
            "xet-read-token": self._xet_token,
        }
        if verb in ("auth-check", "xet-read-token"):
            check_gate(repository, reader)
        if verb == "auth-check":
            return json_answer({}).about(repository.name)
        return verbs[verb](request, repository, rest).about(repository.name)

    def _get_visible(self, request: Request, name: str, reader: Reader | None) -> Repository:
        """The repository; its new name (a 307) or a refusal is raised."""
        new_name = self.repositories.find_new_name(name)
        repository = self.repositories.find(new_name or name)
        if repository is None or not may_see(repository, reader):
            raise refuse_unseen(reader)
        if repository.disabled:
            raise Refusal(403, None, "Access to this resource is disabled.")
        if new_name is not None:
            path = request.path.replace(name, new_name, 1)
            query = f"?{urlencode(request.query, doseq=True)}" if request.query else ""
            raise Refusal(307, None, f"Moved to {new_name}", {"Location": f"{path}{query}"})
        return repository

    def _describe(self, request: Request, repository: Repository, rest: str) -> Answer:
        commit = get_commit(repository, rest or "main")
        described = listings.describe_model(
            repository, commit, with_blobs=request.has_flag("blobs")
        )
        wanted = request.query.get("expand", []) + request.query.get("expand[]", [])
        if wanted:
            described = {key: described.get(key) for key in ("_id", "id", *wanted)}
        return json_answer(described)

    def _tree(self, request: Request, repository: Repository, rest: str) -> Answer:
        revision, _slash, folder = rest.partition("/")
        commit = get_commit(repository, revision or "main")
        folder = unquote(folder).strip("/")
        entries = listings.list_tree(commit, folder, recursive=request.has_flag("recursive"))
        if not entries:
            raise entry_not_found(commit, folder)
        if request.has_flag("expand"):
            added = listings.describe_last_commit(commit)
            entries = [{**entry, **added} for entry in entries]
        return self._paged(request, entries)

    def _xet_token(self, _request: Request, repository: Repository, rest: str) -> Answer:
        get_commit(repository, rest)
        if self.settings.xet is None:
            raise Refusal(404, None, "This repository is not on Xet storage.")
        return json_answer({}, self.settings.xet.connection_headers())

    def _commits(self, request: Request, repository: Repository, rest: str) -> Answer:
        history = repository.list_history(get_commit(repository, rest or "main"))
        return self._paged(request, [listings.describe_commit(commit) for commit in history])

    def _list_models(self, request: Request, reader: Reader | None) -> Answer:
        wanted = request.query.get("filter", [])
        search = (request.find_parameter("search") or "").lower()
        author = request.find_parameter("author")
        described = [
            listings.describe_model(repository, repository.get_commit("main"))
            for repository in self.repositories.list_all()
            if may_see(repository, reader) and not repository.disabled
        ]
        kept = [
            model
            for model in described
            if set(wanted) <= set(model["tags"])
            and search in model["id"].lower()
            and author in (None, model["author"])
        ]
        if not request.has_flag("full"):
            kept = [{k: v for k, v in model.items() if k != "siblings"} for model in kept]
        return self._paged(request, kept)

    def _paged(self, request: Request, entries: Sequence[Any]) -> Answer:
        limit = min(
            int(request.find_parameter("limit") or self.settings.page_entries),
            self.settings.page_entries,
        )
        start = int(request.find_parameter("cursor") or 0)
        headers = {}
        if start + limit < len(entries):
            query = urlencode({**request.query, "cursor": [str(start + limit)]}, doseq=True)
            headers["Link"] = f'<{self.url}{request.path}?{query}>; rel="next"'
        return json_answer(entries[start : start + limit], headers)

    def _resolve(self, request: Request, reader: Reader | None, found: re.Match[str]) -> Answer:
        repository = self._get_visible(request, found["repository"], reader)
        check_gate(repository, reader)
        commit = get_commit(repository, found["revision"])
        path = unquote(found["path"])
        held = commit.files.get(path)
        if held is None:
            raise entry_not_found(commit, path)
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{held.etag}"'}
        if not held.is_lfs:
            answer = file_answer(
                held.location, held.size_bytes, headers, request.headers.get("range")
            )
            return answer.about(repository.name, path)
        location = cdn_path(repository.name, commit.sha, held)
        expires_at = time.time() + self.settings.signature_ttl_seconds
        headers |= {
            "X-Linked-ETag": f'"{held.sha256}"',
            "X-Linked-Size": str(held.size_bytes),
            "Location": f"{self.cdn_url}{location}?{self.signer.sign(location, expires_at=expires_at)}",
        }
        del headers["ETag"]
        if self.settings.xet is not None:
            route = f"{self.url}/api/models/{repository.name}/xet-read-token/{commit.sha}"
            headers |= {
                "X-Xet-Hash": self.settings.xet.get_hash(held),
                "Link": f'<{route}>; rel="xet-auth"',
            }
        return Answer(status=302, headers=headers).about(repository.name, path)


def get_commit(repository: Repository, encoded_revision: str) -> Commit:
    """Raises the Hub's `RevisionNotFound`."""
    revision = unquote(encoded_revision)
    commit = repository.find_commit(revision)
    if commit is None:
        raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {quote(revision)}")
    return commit


def entry_not_found(commit: Commit, path: str) -> Refusal:
    message = f"{quote(path)} does not exist on revision {commit.sha}"
    return Refusal(404, "EntryNotFound", message, {"X-Repo-Commit": commit.sha})


def _whoami(reader: Reader | None) -> Answer:
    if reader is None:
        raise Refusal(401, None, "Invalid username or password.")
    return json_answer(
        {
            "type": "user",
            "id": reader.user,
            "name": reader.user,
            "fullname": reader.user,
            "isPro": False,
            "orgs": [],
            "auth": {
                "type": "access_token",
                "accessToken": {"displayName": "test", "role": "read"},
            },
        }
    )


def _paths_info(request: Request, repository: Repository, rest: str) -> Answer:
    """`paths` come as a form (huggingface_hub) or as JSON (curl); unknown ones are left out."""
    commit = get_commit(repository, rest or "main")
    body = request.body.decode()
    if "json" in request.headers.get("content-type", ""):
        asked: dict[str, Any] = json.loads(body)
    else:
        asked = parse_qs(body)
    described = [listings.describe_path(commit, path.strip("/")) for path in asked["paths"]]
    expanded = asked.get("expand") in (True, ["true"], ["True"])
    added = listings.describe_last_commit(commit) if expanded else {}
    return json_answer([{**entry, **added} for entry in described if entry is not None])


def _safetensors_metadata(request: Request, repository: Repository, rest: str) -> Answer:
    """The headers of every shard that an index on `main` names, in one answer."""
    commit = get_commit(repository, "main")
    path = unquote(rest)
    held = commit.files.get(path)
    if held is None:
        raise entry_not_found(commit, path)
    index = json.loads(held.location.read_bytes())
    shards = sorted(set(index.pop("weight_map").values()))
    headers = {
        shard: listings.read_safetensors_header(commit.files[shard]) or {} for shard in shards
    }
    return json_answer({"index": index, "headers": headers})
