"""What config.json declares, read without trusting its types."""

from collections.abc import Mapping
from dataclasses import dataclass

_MAX_NUMBER = 2**40
"""A larger count in a config is nonsense."""


@dataclass(frozen=True, slots=True)
class Declared:
    """A view on a config; every reader gives None where a value is absent or of another type."""

    config: Mapping[str, object]

    def text(self) -> "Declared":
        """The language model's part: `text_config` (or the like) where the model is composed."""
        for key in ("text_config", "llm_config", "language_config"):
            if (part := self.find_part(key)) is not None:
                return part
        return self

    def find_part(self, key: str) -> "Declared | None":
        value = self.config.get(key)
        return Declared(value) if isinstance(value, dict) else None

    def find_number(self, *keys: str) -> int | None:
        """The first of these keys that holds a positive whole number."""
        for key in keys:
            value = self.config.get(key)
            if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MAX_NUMBER:
                return value
        return None

    def find_text(self, *keys: str) -> str | None:
        values = (self.config.get(key) for key in keys)
        return next((value for value in values if isinstance(value, str) and value), None)

    def list_texts(self, key: str) -> tuple[str, ...]:
        value = self.config.get(key)
        if not isinstance(value, list):
            return ()
        return tuple(item for item in value if isinstance(item, str))

    def is_true(self, key: str) -> bool:
        return self.config.get(key) is True

    @property
    def architecture(self) -> str | None:
        return next(iter(self.list_texts("architectures")), None)

    @property
    def model_type(self) -> str | None:
        return self.find_text("model_type")

    @property
    def dtype(self) -> str | None:
        """The dtype the publisher names: bfloat16, float16, ..."""
        named = self.find_text("dtype", "torch_dtype") or self.text().find_text(
            "dtype", "torch_dtype"
        )
        return named.removeprefix("torch.") if named else None


GENERATING = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")
"""Endings of the classes that generate text; LMHeadModel is GPT-2's name for a causal one."""


def generates(architecture: str | None) -> bool:
    return architecture is not None and architecture.endswith(GENERATING)
