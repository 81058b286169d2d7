"""The proof of what is served: eight checks, the files and the root over all tensors."""

from enum import StrEnum

from pydantic import Field

from warmrack_store.records import Record
from warmrack_store.requests import Mode
from warmrack_store.resolution import Resolution


class Level(StrEnum):
    """How far the proof reaches; each level includes the ones before it."""

    NAME = "name"
    FILES = "files"
    LOADED = "loaded"


class Check(Record):
    passed: bool
    detail: str


class ServedFile(Record):
    path: str
    size: int
    sha256: str


class ServedAdapter(Record):
    """What goes on the served model; its files and tensors are listed among the receipt's."""

    repository: str
    commit: str
    how: str


class Served(Record):
    repository: str
    commit: str
    precision: str
    adapter: ServedAdapter | None = None


class Receipt(Record):
    """What was asked, what is served, and what was checked to say so.

    E1 repository as asked, commit pinned before any file; E2 every file has the Hub's digest;
    E3 config byte-equal, class as declared; E4 no quantization added; E5 dtypes as stored;
    E6 tensor values equal the file's leaves; E7 tokenizer files byte-equal, no tokens added;
    E8 no config mutation.
    """

    level: Level
    asked: str
    served: Served
    checks: dict[str, Check]
    files: tuple[ServedFile, ...]
    tensor_root: str | None
    """BLAKE3 over (name, leaf) in name order; None below level `loaded`."""
    tensors: int = 0
    identical: bool
    """Every served leaf equals the asked repository's, and nothing is added to them."""
    audit_policy: str = "full"
    audit_seconds: float = 0.0
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the checks that failed, in order."""
        return tuple(name for name, check in sorted(self.checks.items()) if not check.passed)

    @property
    def fingerprint(self) -> str | None:
        """The tensor root's first 16 characters, which name the weights in every answer."""
        return self.tensor_root[:16] if self.tensor_root else None


def name_served(resolution: Resolution) -> Served:
    pin = resolution.adapter
    return Served(
        repository=resolution.repository,
        commit=resolution.commit,
        precision=resolution.precision,
        adapter=ServedAdapter(repository=pin.repository, commit=pin.commit, how=pin.how.value)
        if pin is not None
        else None,
    )


def check_name(resolution: Resolution) -> Check:
    """E1: the repository asked for, or a stand-in that the request's mode allows."""
    served = f"{resolution.repository} at {resolution.commit}"
    if (pin := resolution.adapter) is not None:
        served += f" with {pin.repository} at {pin.commit} {pin.how.value}"
    if not resolution.stands_in:
        return Check(passed=True, detail=served)
    detail = f"{served} stands in as {resolution.substitution.value}"
    return Check(
        passed=resolution.mode is not Mode.EXACT,
        detail=f"{detail}, mode {resolution.mode.value}",
    )


def retitle(proof: Receipt, resolution: Resolution) -> Receipt:
    """The proof of a resident as that of another resolution with the same files and load."""
    return proof.model_copy(
        update={
            "asked": resolution.asked,
            "served": name_served(resolution),
            "checks": {**proof.checks, "E1": check_name(resolution)},
            "identical": proof.level is Level.LOADED and resolution.same_values,
        }
    )


def name_receipt(resolution: Resolution) -> Receipt:
    """What can be said before any file is there: the repository and its pinned commit."""
    return Receipt(
        level=Level.NAME,
        asked=resolution.asked,
        served=name_served(resolution),
        checks={"E1": check_name(resolution)},
        files=(),
        tensor_root=None,
        identical=False,
        versions=dict(resolution.versions),
    )
