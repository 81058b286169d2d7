"""What a node is asked about the room on its disk, and what it answers."""

from warmrack_store.records import Record


class EvictionQuestion(Record):
    """Free so many bytes, or go down to the low watermark, or remove what is named."""

    bytes_wanted: int | None = None
    to_low_watermark: bool = False
    repository: str | None = None
    commit: str | None = None
    """A commit or its beginning; None: every snapshot of the repository."""
    dry_run: bool = False


class Gone(Record):
    """One snapshot that went, or would go."""

    repository: str
    commit: str
    freed_bytes: int
    """Bytes that others use are not among them."""
    idle_seconds: float
    reason: str


class Kept(Record):
    """One snapshot that stays, and who needs it."""

    repository: str
    commit: str
    size_bytes: int
    reason: str


class Eviction(Record):
    """A plan, carried out unless it is a dry run."""

    node: str
    store: str
    dry_run: bool
    needed_bytes: int
    freed_bytes: int
    gone: tuple[Gone, ...] = ()
    kept: tuple[Kept, ...] = ()

    @property
    def reached(self) -> bool:
        return self.freed_bytes >= self.needed_bytes


class DiskReport(Record):
    """A store's disk held against SQL, after what was ours and wrong has been mended."""

    node: str
    store: str
    used_bytes: int
    """Of every file in the cache folder, once however many names it has."""
    promised_bytes: int
    """Reserved by fetches under way and not written yet."""
    ours_bytes: int
    """What would be free if all that warmrack fetched or adopted went."""
    quota_bytes: int | None
    free_bytes: int
    """Of the file system."""
    total_bytes: int
    unlinked_bytes: int
    """In blobs that no snapshot uses."""
    mended: tuple[str, ...] = ()
