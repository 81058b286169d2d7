"""R4: what kind of repository it is and which of its weight files are the model.

The choice is that of transformers 5 (`_get_resolved_checkpoint_files`): `model.safetensors`, else
the shards of `model.safetensors.index.json`, never a variant and never a second copy of the same
weights.
"""

import re
from dataclasses import dataclass

from warmrack_store.errors import BothKinds, NotSupported, Refusal, UnsafeFormat, WarmrackError
from warmrack_store.facts import FileFact, RepositoryFacts
from warmrack_store.resolver.gguf import list_quantizations

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"(?P<family>.+)-\d{1,6}-of-(?P<count>\d{1,6})\.safetensors")
_OWN_FAMILIES = frozenset({"model", SINGLE})
"""How transformers names shards; others (consolidated, model.fp16) are copies beside them."""
_ADAPTER = frozenset({"adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"})
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_PICKLED_STATE = frozenset({"training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt"})
"""What a trainer leaves behind: pickles, but not weights."""
_OTHER_FRAMEWORKS = (".h5", ".msgpack", ".onnx", ".ot")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The chosen files in the order of their names, with the index that names them, if any."""

    files: tuple[FileFact, ...]
    index: FileFact | None
    left_out: tuple[str, ...]
    """Other weights of the root: duplicates, variants, other formats."""


def choose_weights(facts: RepositoryFacts) -> Weights:
    """The safetensors files that are the model.

    Raises BothKinds, UnsafeFormat or NotSupported where the repository holds another kind, and
    NotSupported where shards are missing.
    """
    root = {file.path: file for file in facts.files if "/" not in file.path}
    chosen = _find_model(facts.repository, root)
    adapter = sorted(_ADAPTER & root.keys())
    if chosen and adapter:
        raise BothKinds(
            f"{facts.repository} holds a full model ({chosen[0].path}) and an adapter "
            f"({adapter[0]})",
            hint="Ask its publisher to split it; this version serves full models only.",
        )
    if not chosen:
        raise _refuse_kind(facts, root, adapter)
    kept = {file.path for file in chosen}
    return Weights(
        files=chosen,
        index=root.get(INDEX) if SINGLE not in kept else None,
        left_out=tuple(sorted(path for path in root if _is_weight(path) and path not in kept)),
    )


def list_weights(facts: RepositoryFacts) -> tuple[FileFact, ...]:
    """The same files, and none where the repository is of another kind."""
    try:
        return choose_weights(facts).files
    except Refusal:
        return ()


def _find_model(name: str, root: dict[str, FileFact]) -> tuple[FileFact, ...]:
    if SINGLE in root:
        return (root[SINGLE],)
    if INDEX not in root:
        return ()
    sets: dict[tuple[str, str], list[str]] = {}
    for path in sorted(root):
        if (match := _SHARD.fullmatch(path)) is not None:
            sets.setdefault((match["family"], match["count"]), []).append(path)
    own = {key: paths for key, paths in sets.items() if key[0] in _OWN_FAMILIES}
    if len(own or sets) != 1:
        raise NotSupported(
            f"{name} has {INDEX} and {len(own or sets)} sets of shards it may mean",
            hint="Name a repository with one model, its shards named model-N-of-M.safetensors.",
        )
    ((_family, count), paths) = next(iter((own or sets).items()))
    if len(paths) != int(count):
        raise NotSupported(
            f"{name} holds {len(paths)} of the {int(count)} shards of its model",
            hint="Ask its publisher to upload the missing files, or name another revision.",
        )
    return tuple(root[path] for path in paths)


def _refuse_kind(
    facts: RepositoryFacts, root: dict[str, FileFact], adapter: list[str]
) -> WarmrackError:
    name = facts.repository
    if adapter:
        return NotSupported(
            f"{name} is an adapter ({adapter[0]}), not a full model",
            hint="Name the full model, and the adapter in the field adapter.",
        )
    if any(path.endswith(".gguf") for path in root):
        held = ", ".join(f"gguf:{kind}" for kind in sorted(list_quantizations(facts)))
        return NotSupported(
            f"{name} holds its weights as GGUF only",
            hint=f"Ask for one of them by precision: {held}."
            if held
            else "Name the repository of the original weights; split GGUF files are not served.",
        )
    pickles = [path for path in sorted(root) if _is_pickle(path)]
    if pickles:
        return UnsafeFormat(f"{name} holds its weights only as pickle ({pickles[0]})")
    return NotSupported(
        f"{name} holds no {SINGLE} and no {INDEX} in its root",
        hint="Name a repository that transformers can load; pipelines of parts are not served.",
    )


def _is_pickle(path: str) -> bool:
    return path.endswith(_PICKLES) and path not in _PICKLED_STATE


def _is_weight(path: str) -> bool:
    return path.endswith((".safetensors", ".gguf", *_OTHER_FRAMEWORKS)) or _is_pickle(path)
