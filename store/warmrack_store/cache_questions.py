"""What the control plane asks a node about its cache, and what the node answers."""

from enum import StrEnum

from pydantic import Field

from warmrack_store.cache.checking import HARMLESS, Finding
from warmrack_store.cache.quarantine import Quarantined
from warmrack_store.records import Record


class ContentsQuestion(Record):
    """To check what lies in the node's cache: all of it, one repository, or one snapshot."""

    repository: str | None = None
    commit: str | None = Field(None, pattern=r"^[0-9a-f]{40}$")
    quick: bool = False
    """Only sizes and times."""


class ContentsCheck(Record):
    node: str
    store: str
    quick: bool
    repositories: int
    files: int
    read_bytes: int
    seconds: float
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        return all(finding.kind in HARMLESS for finding in self.findings)


class QuarantineAct(StrEnum):
    LIST = "ls"
    RESTORE = "restore"
    REMOVE = "rm"


class QuarantineQuestion(Record):
    act: QuarantineAct
    id: str | None = None
    """None: of everything, which only `ls` and `rm` take."""


class QuarantineAnswer(Record):
    node: str
    items: tuple[Quarantined, ...]
    """What is there, or what was restored or removed."""
    freed_bytes: int = 0


class AdoptableQuestion(Record):
    """Which snapshots a folder of the node's machine holds; None: the node's own cache."""

    folder: str | None = None
    repository: str | None = None


class Adoptable(Record):
    """One snapshot that somebody else's tool has put there."""

    repository: str
    commit: str
    refs: tuple[str, ...] = ()
    """Branches and tags that meant this commit when they were last asked."""


class AdoptableAnswer(Record):
    node: str
    items: tuple[Adoptable, ...]
    skipped: tuple[str, ...] = ()
    """Folders that are no model's, or of a model whose name nobody can ask for."""


class AdoptQuestion(Record):
    """To take one snapshot in; the caller's right to it has been checked, or nobody could."""

    folder: str | None = None
    repository: str
    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    public: bool | None = None
    """None where the Hub could not be asked."""


class Proof(StrEnum):
    """What the files of an adopted snapshot were held against."""

    HUB = "hub"
    """The Hub's tree at the commit."""
    LISTING = "listing"
    """The tree that huggingface_hub has kept beside the files."""
    NAMES = "names"
    """Nothing but the names of the blobs: that they belong to the commit is not verified."""


class AdoptedFile(Record):
    path: str
    state: str
    """corrupt, missing or foreign."""


class Adoption(Record):
    """What became of one snapshot."""

    repository: str
    commit: str
    node: str
    proof: Proof
    complete: bool
    """All files that an exact load needs; else what is there is gone on with."""
    recorded: bool
    """Whether it can be loaded without asking for its files again."""
    files: int
    size_bytes: int
    read_bytes: int
    """Hashed just now; the rest was unchanged since it was."""
    linked_bytes: int = 0
    copied_bytes: int = 0
    wrong: tuple[AdoptedFile, ...] = ()


class ExportQuestion(Record):
    """To send one snapshot as a file."""

    repository: str
    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    public: bool


class ImportQuestion(Record):
    """To take in the archive that follows, which must be of this snapshot."""

    repository: str
    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    public: bool | None = None
    """None where the Hub could not be asked: the archive's own word counts."""


class Imported(Record):
    """One snapshot that came as a file."""

    node: str
    repository: str
    commit: str
    files: int
    size_bytes: int
    written_bytes: int
    proof: Proof
    public: bool
