"""What the Hub says when it does not give what was asked."""

from collections.abc import Mapping
from types import MappingProxyType


class Refusal(Exception):
    """An error (or a redirect) as the answer: `code` goes out as X-Error-Code, `message` as X-Error-Message."""

    def __init__(
        self,
        status: int,
        code: str | None,
        message: str,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers
