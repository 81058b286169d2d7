"""What a repository's name says about its kind: base, instruct, thinking, or a subject."""

import re

_KINDS = {
    "base": ("base", "pt", "pretrained", "pretrain"),
    "instruct": ("instruct", "instruction", "it", "chat", "assistant", "sft", "dpo", "rlhf"),
    "thinking": ("thinking", "think", "reasoning", "reasoner"),
    "code": ("coder", "code"),
    "math": ("math",),
    "guard": ("guard", "safeguard", "shieldgemma"),
    "reward": ("reward", "rm", "prm"),
    "embedding": ("embedding", "embed"),
}
_WORDS = {word: kind for kind, words in _KINDS.items() for word in words}
_SEPARATORS = re.compile(r"[-_.\s]+")


def find_kind(repository: str) -> str:
    """The kinds its name says, in one order, such as `instruct` or `code, instruct`.

    `unmarked` where it says none: a base model in one family, an instruct one in another, so
    that unmarked and marked are not the same.
    """
    words = _SEPARATORS.split(repository.rpartition("/")[2].lower())
    found = {_WORDS[word] for word in words if word in _WORDS}
    return ", ".join(kind for kind in _KINDS if kind in found) or "unmarked"
