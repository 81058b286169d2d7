"""Which files of a repository are fetched besides its weights: what transformers reads."""

from collections.abc import Iterable

from warmrack_store.facts import FileFact

MAX_JSON_BYTES = 64 * 2**20
_READ = (".json", ".jinja", ".model", ".tiktoken", ".txt", ".bpe")
_TEMPLATES = "additional_chat_templates/"
_LEFT_OUT_ENDINGS = (".index.json",)
_LEFT_OUT = frozenset(
    {"trainer_state.json", "all_results.json", "train_results.json", "eval_results.json"}
    | {"license.txt", "requirements.txt", "readme.txt", "notice.txt", "model_index.json"}
)
_TOKENIZER = (
    *("tokenizer", "vocab", "merges", "special_tokens", "added_tokens", "chat_template", "tekken"),
    *("preprocessor_config", "processor_config", "generation_config"),
)


def list_companions(files: Iterable[FileFact]) -> tuple[FileFact, ...]:
    """config, generation config, tokenizer, processor and templates, in path order.

    Root files by ending, so that a tokenizer with unusual names is whole; a JSON file over
    64 MiB is none that transformers would read.
    """
    return tuple(
        sorted(
            (file for file in files if _is_read(file.path) and not _is_oversized(file)),
            key=lambda file: file.path,
        )
    )


def list_oversized(files: Iterable[FileFact]) -> tuple[str, ...]:
    return tuple(file.path for file in files if _is_read(file.path) and _is_oversized(file))


def is_tokenizer_file(path: str) -> bool:
    """Whether the file decides how text becomes tokens, or how generation goes by default."""
    return (
        path.startswith((*_TOKENIZER, _TEMPLATES))
        or path.endswith((".model", ".tiktoken", ".jinja", ".bpe"))
    ) and _is_read(path)


def _is_read(path: str) -> bool:
    if path.startswith(_TEMPLATES) and path.count("/") == 1:
        return path.endswith(".jinja")
    name = path.lower()
    return (
        "/" not in path
        and name.endswith(_READ)
        and not name.endswith(_LEFT_OUT_ENDINGS)
        and name not in _LEFT_OUT
    )


def _is_oversized(file: FileFact) -> bool:
    return file.path.endswith(".json") and file.size > MAX_JSON_BYTES
