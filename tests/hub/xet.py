"""Xet storage behind the Hub: a content-addressed store in a folder, by the released client."""

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import hf_xet

from tests.hub.files import StoredFile

TOKEN_SECONDS = 3600


@dataclass(slots=True)
class XetStorage:
    """Holds what was asked for once; the client reads a `local://` store without a server."""

    folder: Path
    _hashes: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def endpoint(self) -> str:
        return f"local://{self.folder}"

    def get_hash(self, held: StoredFile) -> str:
        """The Xet hash of an LFS file, which is then in the store."""
        with self._lock:
            known = self._hashes.get(held.etag)
            if known is None:
                known = self._hashes[held.etag] = self._upload(held.location)
            return known

    def _upload(self, location: Path) -> str:
        session = hf_xet.XetSession()
        with session.new_upload_commit(endpoint=self.endpoint) as commit:
            upload = commit.start_upload_file(str(location))
        return str(upload.result().xet_info.hash)

    def connection_headers(self) -> dict[str, str]:
        """What a client needs to read, as the Hub's token endpoint gives it."""
        return {
            "X-Xet-Cas-Url": self.endpoint,
            "X-Xet-Access-Token": "xet-of-the-test-hub",
            "X-Xet-Token-Expiration": str(int(time.time()) + TOKEN_SECONDS),
        }
