"""What a Hub says about a repository at one commit; a commit never changes, nor do its facts."""

from pydantic import Field

from warmrack_store.records import Record
from warmrack_store.skeleton import Skeleton


class FileFact(Record):
    """One file of the tree. LFS files carry a sha256, small ones only git's blob sha1."""

    path: str
    size: int = Field(ge=0)
    git_sha1: str = Field(pattern=r"^[0-9a-f]{40}$")
    """sha1 over "blob <size>\\0" and the bytes; for an LFS file: of its pointer, not the bytes."""
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")

    @property
    def digest(self) -> str:
        """What the bytes must hash to; also the blob's name (the Hub's ETag)."""
        return self.sha256 or self.git_sha1


class TensorFact(Record):
    """One tensor as a safetensors header declares it."""

    name: str
    dtype: str
    """safetensors' spelling: F32, BF16, F16, I8, U8, ..."""
    shape: tuple[int, ...]
    size_bytes: int


class WeightFile(Record):
    """The header of one safetensors file."""

    path: str
    tensors: tuple[TensorFact, ...]


class GgufHeader(Record):
    """The header of one GGUF file; the others of a repository differ in how they pack tensors."""

    path: str
    metadata: dict[str, bool | int | float | str]
    """Scalars, the beginnings of texts, and of arrays their lengths."""
    tensors: tuple[TensorFact, ...]
    """As they unpack: fp32, outermost dimension first."""


class RepositoryFacts(Record):
    """Everything known about a repository at a commit without reading its weights."""

    repository: str
    """The Hub's own spelling."""
    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    private: bool = False
    gated: bool = False
    files: tuple[FileFact, ...]
    """The whole tree at the commit, in path order."""
    config: dict[str, object] | None = None
    """config.json, parsed; None where the repository has none."""
    config_error: str | None = None
    weights: tuple[WeightFile, ...] = ()
    """Headers of the root's safetensors files, in path order."""
    skeleton: Skeleton | None = None
    """The layers of the config's class where a worker has counted them; kept by config, apart."""
    gguf: GgufHeader | None = None
    """Of the root's smallest GGUF file; None where there is none, or it cannot be read."""
    gguf_error: str | None = None
    adapter_config: dict[str, object] | None = None
    """adapter_config.json, parsed; None where the repository has none."""
    adapter_config_error: str | None = None
    card_bases: tuple[str, ...] = ()
    """The base models that an adapter's card names; not read for other repositories."""
    chat_template: bool | None = None
    """Whether the tokenizer has one; None where that was not read or cannot be."""

    @property
    def public(self) -> bool:
        return not (self.private or self.gated)

    def find_file(self, path: str) -> FileFact | None:
        return next((file for file in self.files if file.path == path), None)


class RefFact(Record):
    """What a name and revision meant at the Hub at one moment."""

    repository: str
    commit: str
    private: bool
    gated: bool
