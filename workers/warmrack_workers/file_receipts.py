"""What the files on disk prove of a resolution, before anything is loaded."""

from collections.abc import Sequence

from warmrack_store.cache.verified import VerifiedFile
from warmrack_store.facts import FileFact
from warmrack_store.receipts import Check, Level, Receipt, ServedFile, check_name, name_served
from warmrack_store.resolution import Resolution


def receipt_of(resolution: Resolution, files: Sequence[VerifiedFile]) -> Receipt:
    """The proof at level `files`: the name and every file's digest."""
    wanted: dict[str, FileFact] = {
        file.path: file for part in resolution.parts for file in part.files
    }
    have = {file.path: file.digest for file in files}
    wrong = [path for path, file in wanted.items() if have.get(path) != file.digest]
    return Receipt(
        level=Level.FILES,
        asked=resolution.asked,
        served=name_served(resolution),
        checks={
            "E1": check_name(resolution),
            "E2": Check(
                passed=not wrong,
                detail=f"{len(wanted)} files have the Hub's digests"
                if not wrong
                else f"{wrong[0]} has not the Hub's digest",
            ),
        },
        files=tuple(
            ServedFile(path=file.path, size=file.size_bytes, sha256=file.sha256) for file in files
        ),
        tensor_root=None,
        identical=resolution.same_values and not wrong,
    )
