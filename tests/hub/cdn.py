"""What the CDN origin answers: files by signed URLs that expire."""

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from tests.hub.answers import Answer, Request, file_answer
from tests.hub.files import StoredFile
from tests.hub.refusals import Refusal
from tests.hub.repositories import Repositories

# The file's name stands in the path (a real CDN has only the digest there), so that a rule for
# `model.safetensors` meets both origins.
_PATH = re.compile(
    r"^/(?P<repository>[^/]+(?:/[^/]+)?)/(?P<sha>[0-9a-f]{40})/(?P<digest>[0-9a-f]{64})/(?P<path>.+)$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Signs paths until a time; another Hub's signature is worth nothing here."""

    key: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    def sign(self, path: str, *, expires_at: float) -> str:
        """The query of a signed URL."""
        return f"Expires={expires_at:.3f}&Signature={self._signature(path, f'{expires_at:.3f}')}"

    def check(self, request: Request) -> None:
        """Raise `Refusal` (403, as a CDN does) where the signature is wrong or too old."""
        expires = request.find_parameter("Expires") or ""
        signature = request.find_parameter("Signature") or ""
        if not hmac.compare_digest(signature, self._signature(request.path, expires)):
            raise Refusal(403, None, "Invalid signature")
        if time.time() > float(expires):
            raise Refusal(403, None, "Request has expired")

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self.key, f"{path}?{expires}".encode(), hashlib.sha256).hexdigest()


def cdn_path(repository: str, sha: str, held: StoredFile) -> str:
    return f"/{repository}/{sha}/{held.sha256}/{quote(held.path)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CdnAnswers:
    repositories: Repositories
    signer: Signer

    def answer(self, request: Request) -> Answer:
        if "authorization" in request.headers:
            raise Refusal(400, None, "Only one auth mechanism allowed")
        if request.method not in ("GET", "HEAD"):
            raise Refusal(405, None, "Method not allowed")
        self.signer.check(request)
        found = _PATH.match(request.path)
        if found is None:
            raise Refusal(404, None, "No such object")
        name, path = found["repository"], unquote(found["path"])
        name = self.repositories.find_new_name(name) or name
        repository = self.repositories.find(name)
        commit = repository.find_commit(found["sha"]) if repository else None
        if commit is None:
            raise Refusal(404, None, "No such object")
        held = commit.files[path]
        headers = {"ETag": f'"{held.sha256}"', "Cache-Control": "public, max-age=31536000"}
        wanted_range = request.headers.get("range")
        answer = file_answer(held.location, held.size_bytes, headers, wanted_range)
        return answer.about(name, path)
