"""Facts of a repository, asked of a Hub: the only file that asks a Hub for facts.

The protocol's headers are huggingface_hub's; the connection is our own, because the library's shared one obeys HF_HUB_OFFLINE, has no timeout on some calls and sleeps
through a 429, and because HF_ENDPOINT is read when it is imported.
"""

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from warmrack_store.cache.gguf_header import MAX_HEADER_BYTES, parse_gguf
from warmrack_store.cache.safetensors_header import header_size, parse_header
from warmrack_store.errors import HubUnavailable, RateLimited, UnsafeFormat
from warmrack_store.facts import FileFact, GgufHeader, RefFact, RepositoryFacts, WeightFile
from warmrack_store.hub_answers import (
    has_digest,
    parse_card_bases,
    parse_config,
    parse_names,
    parse_ref,
    parse_tree_page,
)
from warmrack_store.hub_budget import HubBudget, NoBudget
from warmrack_store.hub_errors import HubQuestion, error_of_status, nonsense
from warmrack_store.hub_hosts import check_address, is_same_origin
from warmrack_store.refs import ModelRef

if TYPE_CHECKING:
    from httpx2 import Request, Response

MAX_JSON_BYTES = 64 * 2**20
MAX_TREE_FILES = 100_000
MAX_CHILDREN = 1_000
"""Quantized children listed of one model; the most published ones have some hundreds."""
ADAPTER_CONFIG = "adapter_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
CHAT_TEMPLATES = frozenset({"chat_template.jinja", "chat_template.json"})
"""Where transformers keeps a template that is not in the tokenizer's config."""
_GGUF_READ_BYTES = (2**21, 2**24, MAX_HEADER_BYTES)
_FIRST_READ_BYTES = 100_000
"""97 % of safetensors headers are shorter (huggingface_hub, over its 1,000 top models)."""
_READERS = 8
_UNTOLD_WAIT_SECONDS = 1.0
"""After a 429 that says nothing about when to ask again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    body: bytes
    next_page: str | None


class HubFacts:
    """One Hub, by its endpoint; safe to share between threads.

    Every call raises Refusals about the name or the token, RateLimited, or HubUnavailable, the
    last also for an answer that makes no sense. No answer may take longer than
    `timeout_seconds`. A token is the caller's own; None asks without one, whatever the
    environment holds. A redirect may lead to the Hub's own host, to its content networks and to
    `allowed_hosts`.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        timeout_seconds: float = 30.0,
        allowed_hosts: Iterable[str] = (),
        budget: HubBudget | None = None,
    ) -> None:
        import httpx2

        self.endpoint = endpoint.rstrip("/")
        self._allowed_hosts = frozenset(allowed_hosts)
        self._timeout_seconds = timeout_seconds
        self._budget: HubBudget = budget or NoBudget()
        self._client = httpx2.Client(
            timeout=timeout_seconds,
            follow_redirects=True,
            event_hooks={"request": [self._check_address]},
        )

    def close(self) -> None:
        self._client.close()

    def find_ref(self, ref: ModelRef, token: str | None) -> RefFact:
        """What the name means now, after the token has passed the Hub's check where one is due."""
        path = f"/api/models/{ref.repository}"
        if ref.revision is not None:
            path += f"/revision/{quote(ref.revision, safe='')}"
        fields = ("sha", "private", "gated")
        asked = self._about(ref.repository, ref.revision, token)
        answer = self._get(path + "?" + "&".join(f"expand={field}" for field in fields), asked)
        found = parse_ref(answer.body, ref, asked)
        if found.private or found.gated:
            self.check_right(found.repository, token)
        return found

    def check_right(self, repository: str, token: str | None) -> None:
        """Raise unless the token (or anybody, where it is None) may read the files.

        Asks auth-check: a gated repository's description and tree are public.
        """
        self._get(f"/api/models/{repository}/auth-check", self._about(repository, None, token))

    def list_children(self, repository: str, token: str | None) -> tuple[str, ...]:
        """Repositories whose cards call themselves a quantization of this one, by name."""
        tag = quote(f"base_model:quantized:{repository}", safe="")
        asked = self._about(repository, None, token)
        page: str | None = f"/api/models?filter={tag}&limit=100"
        found: set[str] = set()
        pages: set[str] = set()
        while page is not None and page not in pages and len(found) < MAX_CHILDREN:
            pages.add(page)
            answer = self._get(page, asked)
            found |= set(parse_names(answer.body, asked))
            page = self._own_page(answer.next_page, asked)
        return tuple(sorted(found - {repository}, key=lambda name: (name.lower(), name)))

    def get_facts(self, ref: RefFact, token: str | None) -> RepositoryFacts:
        """Everything that the tree, config.json and the safetensors headers say at the commit.

        A config.json that cannot be read is a fact, not an error. Raises UnsafeFormat for a
        safetensors file of the root that is none.
        """
        asked = self._about(ref.repository, ref.commit, token)
        files = self._list_files(asked)
        tree = {file.path: file for file in files}
        config, config_error = self._read_config(tree.get("config.json"), asked)
        adapter_config, adapter_config_error = self._read_config(tree.get(ADAPTER_CONFIG), asked)
        headed = [f for f in files if "/" not in f.path and f.path.endswith(".safetensors")]
        with ThreadPoolExecutor(max_workers=_READERS, thread_name_prefix="headers") as pool:
            template = pool.submit(self._find_template, files, asked)
            packed = pool.submit(self._find_gguf, files, asked)
            weights = tuple(pool.map(lambda file: self._read_header(file, asked), headed))
        gguf, gguf_error = packed.result()
        return RepositoryFacts(
            repository=ref.repository,
            commit=ref.commit,
            private=ref.private,
            gated=ref.gated,
            files=files,
            config=config,
            config_error=config_error,
            adapter_config=adapter_config,
            adapter_config_error=adapter_config_error,
            card_bases=self._list_card_bases(asked) if ADAPTER_CONFIG in tree else (),
            weights=weights,
            gguf=gguf,
            gguf_error=gguf_error,
            chat_template=template.result(),
        )

    def _check_address(self, request: "Request") -> None:
        """Each request's address, so also where a redirect leads."""
        check_address(str(request.url), self.endpoint, self._allowed_hosts)

    def _about(self, repository: str, revision: str | None, token: str | None) -> HubQuestion:
        return HubQuestion(
            endpoint=self.endpoint, repository=repository, revision=revision, token=token or None
        )

    def _list_files(self, asked: HubQuestion) -> tuple[FileFact, ...]:
        page: str | None = f"/api/models/{asked.repository}/tree/{asked.revision}?recursive=true"
        found: dict[str, FileFact] = {}
        pages: set[str] = set()
        while page is not None:
            if page in pages or len(found) > MAX_TREE_FILES:
                raise nonsense("a file tree without an end", asked)
            pages.add(page)
            answer = self._get(page, asked)
            found |= {file.path: file for file in parse_tree_page(answer.body, asked)}
            page = self._own_page(answer.next_page, asked)
        return tuple(found[path] for path in sorted(found))

    def _own_page(self, url: str | None, asked: HubQuestion) -> str | None:
        """The next page's path; a token never follows a link to another host."""
        if url is None:
            return None
        if not url.startswith(f"{self.endpoint}/"):
            raise nonsense(f"the next page of a tree at {urlsplit(url).netloc!r}", asked)
        return url.removeprefix(self.endpoint)

    def _read_config(
        self, file: FileFact | None, asked: HubQuestion
    ) -> tuple[dict[str, object] | None, str | None]:
        if file is None:
            return None, None
        if file.size > MAX_JSON_BYTES:
            return None, f"is {file.size} bytes long, the limit is {MAX_JSON_BYTES}"
        body = self._get(asked.file_path(file.path), asked).body
        if not has_digest(body, file):
            raise nonsense(f"other bytes of {file.path} than its tree names", asked)
        return parse_config(body)

    def _list_card_bases(self, asked: HubQuestion) -> tuple[str, ...]:
        path = f"/api/models/{asked.repository}/revision/{asked.revision}?expand=cardData"
        return parse_card_bases(self._get(path, asked).body, asked)

    def _find_template(self, files: tuple[FileFact, ...], asked: HubQuestion) -> bool | None:
        """Whether a chat template lies beside the tokenizer or in its config."""
        tree = {file.path: file for file in files}
        if not tree.keys().isdisjoint(CHAT_TEMPLATES):
            return True
        if (file := tree.get(TOKENIZER_CONFIG)) is None or file.size > MAX_JSON_BYTES:
            return None
        body = self._get(asked.file_path(file.path), asked).body
        if not has_digest(body, file):
            raise nonsense(f"other bytes of {file.path} than its tree names", asked)
        found, _ = parse_config(body)
        return None if found is None else bool(found.get("chat_template"))

    def _read_header(self, file: FileFact, asked: HubQuestion) -> WeightFile:
        data = self._read_start(file, min(file.size, _FIRST_READ_BYTES), asked)
        try:
            header_bytes = header_size(data, file.size)
            if len(data) < header_bytes:
                data = self._read_start(file, header_bytes, asked)
            return WeightFile(path=file.path, tensors=parse_header(data, file.size))
        except UnsafeFormat as error:
            place = f"{asked.repository}: {file.path} is {error.message}"
            raise UnsafeFormat(place, hint=error.hint) from error

    def _find_gguf(
        self, files: tuple[FileFact, ...], asked: HubQuestion
    ) -> tuple[GgufHeader | None, str | None]:
        """The header of the root's smallest GGUF file, read in growing steps, or why there is none."""
        held = [file for file in files if "/" not in file.path and file.path.endswith(".gguf")]
        if not held:
            return None, None
        file = min(held, key=lambda file: (file.size, file.path))
        size_bytes = 0
        try:
            for size_bytes in _GGUF_READ_BYTES:
                data = self._read_start(file, min(file.size, size_bytes), asked)
                if (header := parse_gguf(file.path, data)) is not None:
                    return header, None
                if file.size <= size_bytes:
                    break
        except UnsafeFormat as error:
            return None, f"{file.path} is {error.message}"
        return None, f"{file.path} has a header that does not end within {size_bytes} bytes"

    def _read_start(self, file: FileFact, size_bytes: int, asked: HubQuestion) -> bytes:
        """The first bytes, exactly so many; also of a server that ignores ranges."""
        if size_bytes == 0:
            return b""
        answer = self._get(asked.file_path(file.path), asked, first_bytes=size_bytes)
        if len(answer.body) < size_bytes:
            raise nonsense(f"{len(answer.body)} bytes of {file.path}, not {size_bytes}", asked)
        return answer.body

    def _get(self, path: str, asked: HubQuestion, *, first_bytes: int | None = None) -> _Answer:
        import httpx2
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # lazy export

        self._check_budget()
        headers = build_hf_headers(token=asked.token or False, library_name="warmrack")
        # A compressed body's size says nothing about the memory it takes.
        headers["accept-encoding"] = "identity"
        if first_bytes is not None:
            headers["range"] = f"bytes=0-{first_bytes - 1}"
        try:
            with self._client.stream("GET", self.endpoint + path, headers=headers) as response:
                self._check_status(response, asked)
                return self._read(response, asked, first_bytes)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise HubUnavailable(f"{self.endpoint} does not answer: {reason}") from error

    def _check_status(self, response: "Response", asked: HubQuestion) -> None:
        """Raise the error that the status stands for; the body, of any size and shape, is left
        unread."""
        if response.is_success:
            return
        error = error_of_status(
            response.status_code,
            response.headers,
            asked,
            from_hub=is_same_origin(str(response.request.url), self.endpoint),
            now=datetime.now(UTC),
        )
        if isinstance(error, RateLimited):
            self._budget.put_wait(error.retry_after_seconds or _UNTOLD_WAIT_SECONDS)
        raise error

    def _check_budget(self) -> None:
        """Ask nothing while the Hub wants a pause, whichever node it told so."""
        if wait_seconds := self._budget.find_wait_seconds():
            raise RateLimited(
                f"{self.endpoint} has asked for a pause of {wait_seconds:.0f} s more",
                retry_after_seconds=wait_seconds,
            )

    def _read(self, response: "Response", asked: HubQuestion, first_bytes: int | None) -> _Answer:
        deadline = time.monotonic() + self._timeout_seconds
        limit = MAX_JSON_BYTES if first_bytes is None else first_bytes
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) >= limit and first_bytes is not None:
                break
            if len(body) > limit:
                raise nonsense(f"more than {limit} bytes where JSON was asked for", asked)
            if time.monotonic() > deadline:
                raise HubUnavailable(
                    f"{self.endpoint} took longer than {self._timeout_seconds:g} s to answer"
                )
        next_page = response.links.get("next", {}).get("url")
        return _Answer(body=bytes(body[:limit]), next_page=next_page)
