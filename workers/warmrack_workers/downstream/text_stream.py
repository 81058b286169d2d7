"""Text that grows token by token: what may be shown already, and where a stop string ends it."""

from typing import Any

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """Joined, the pieces are the decoded text of all tokens, up to the first stop string.

    A character whose bytes span several tokens is held back until it is whole, and so is an end
    that may be the beginning of a stop string. Each step decodes a few tokens, however long the
    text is: the window starts at the last token whose text was complete.
    """

    def __init__(self, tokenizer: Any, stop: tuple[str, ...] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(text for text in stop if text)
        self._tokens: list[int] = []
        self._start = 0
        """First token of the window that is decoded for context."""
        self._shown = 0
        """Tokens whose text has left the decoder."""
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that this token completes; empty while a character or stop string may grow."""
        self._tokens.append(token)
        before = self._decode(self._tokens[self._start : self._shown])
        text = self._decode(self._tokens[self._start :])
        if len(text) <= len(before) or text.endswith(_INCOMPLETE):
            return ""
        self._start, self._shown = self._shown, len(self._tokens)
        return self._release(text[len(before) :], last=False)

    def finish(self) -> str:
        """What was held back, at the end of the text."""
        before = self._decode(self._tokens[self._start : self._shown])
        text = self._decode(self._tokens[self._start :])
        return self._release(text[len(before) :], last=True)

    def _decode(self, tokens: list[int]) -> str:
        decoded: str = self._tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return decoded

    def _release(self, text: str, *, last: bool) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        found = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        kept = 0 if last else self._growing(text)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def _growing(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop string."""
        return max(
            (
                length
                for stop in self._stop
                for length in range(1, min(len(stop), len(text)) + 1)
                if text.endswith(stop[:length])
            ),
            default=0,
        )
