"""How many tokens a model has positions for."""

from warmrack_store.resolver.declared import Declared

_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "n_ctx")
_POSITIONS_AFTER_PADDING = frozenset({"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert"})
"""Their first position is the padding id plus one, so the table holds that many tokens fewer."""


def find_longest_context(text: Declared) -> int | None:
    """Tokens that the model has positions for; None where the config sets no bound."""
    longest = text.find_number(*_KEYS)
    if longest is None or text.model_type not in _POSITIONS_AFTER_PADDING:
        return longest
    return max(1, longest - (text.find_number("pad_token_id") or 0) - 1)
