"""What a request became: an exact commit, its files, the load it implies and the trail of reasons."""

from enum import StrEnum
from typing import Any

from pydantic import Field

from warmrack_store.facts import FileFact
from warmrack_store.locks import LockedAdapter, LockedLoad
from warmrack_store.records import Record, digest_json
from warmrack_store.requests import Mode


class Substitution(StrEnum):
    """How what is served relates to what was asked."""

    NONE = "none"
    ALIAS = "alias"
    EQUIVALENT = "equivalent"
    MIRROR = "mirror"
    QUANTIZED = "quantized"


class TrailLine(Record):
    """One rule's decision, with what it saw and what else there was."""

    rule: str
    input: str
    decision: str
    alternatives: tuple[str, ...] = ()
    evidence: str = ""


class Rejected(Record):
    """A candidate that was not chosen."""

    repository: str
    code: str
    reason: str
    hint: str | None = None
    """The refusal's own way out, where it has another than its kind's."""


class QuantizationSource(StrEnum):
    """Where the quantized weights come from."""

    STORED = "stored"
    ON_THE_FLY = "on_the_fly"


class Quantization(Record):
    """How the weights in memory are quantized; a plain load has none."""

    method: str
    """nf4, int8, fp8 or gguf:<Q>."""
    source: QuantizationSource
    compute_dtype: str
    """bf16, fp16 or fp32: of the layers that stay unquantized, and of the products."""
    skipped: tuple[str, ...] = ()
    """Modules that stay unquantized, as declared or by the library's rule; names or suffixes."""


def describe_quantization(quantization: Quantization | None) -> str | None:
    """Method and source in words, as `nf4 on_the_fly`."""
    return f"{quantization.method} {quantization.source.value}" if quantization else None


class Memory(Record):
    """Bytes the loaded model is charged with on its device."""

    weights_bytes: int
    """Parameters as they lie in memory, packed where they are quantized."""
    quantization_state_bytes: int = 0
    """Scales and code tables beside the packed weights."""
    cache_bytes: int
    """KV cache of `batch` sequences of `context_tokens` each."""
    context_tokens: int
    batch: int = 1
    workspace_bytes: int
    """Activations and scratch space of a forward pass."""
    load_bytes: int = 0
    """Beside the weights while they are loaded; gone before the first forward pass."""
    notes: tuple[str, ...] = ()
    """What the estimate cannot be sure of."""

    @property
    def total_bytes(self) -> int:
        """The peak: the load comes before the cache and the workspace."""
        held = self.weights_bytes + self.quantization_state_bytes
        return held + max(self.cache_bytes + self.workspace_bytes, self.load_bytes)


class AdapterUse(StrEnum):
    """How an adapter changes the base in memory."""

    ATTACHED = "attached"
    """Beside the base's own tensors, which stay as they are."""
    MERGED = "merged"
    """Added into them; no load of this version does it."""


class AdapterPin(Record):
    """The LoRA adapter that goes on the resolved model."""

    repository: str
    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    ref_asked: str | None
    private: bool
    gated: bool
    files: tuple[FileFact, ...]
    weights: tuple[str, ...]
    """The paths among them that hold tensors."""
    how: AdapterUse
    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    """Last parts of the names of the modules that it changes."""
    modules: int
    parameters: int
    memory_bytes: int
    base_named: str | None
    """What its config calls the base it was trained on."""

    @property
    def public(self) -> bool:
        return not (self.private or self.gated)


class Resolution(Record):
    """The pinned answer to a request; the same on every worker for the same facts."""

    request_digest: str
    asked: str
    ref_asked: str | None
    asked_commit: str | None = None
    """Of the repository asked for, where another one serves it; for an adapter: of its base."""
    mode: Mode = Mode.EXACT
    repository: str
    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    private: bool
    gated: bool
    substitution: Substitution
    files: tuple[FileFact, ...]
    """The files that are fetched, verified and loaded, in path order."""
    weights: tuple[str, ...]
    """The paths among them that hold tensors."""
    architecture: str | None
    model_type: str | None
    parameters: int
    stored_dtypes: dict[str, int]
    """safetensors dtype -> number of tensors."""
    precision: str
    """bf16, fp32, nf4, ... of the tensors in memory; `mixed` where the checkpoint mixes."""
    cast: str | None = None
    """bf16, fp16 or fp32 where the float tensors are converted at the load, as asked."""
    quantization: Quantization | None = None
    adapter: AdapterPin | None = None
    """What is attached to the model; everything else here is about its base."""
    tokenizer_files: tuple[str, ...]
    memory: Memory
    generates: bool
    """True where the architecture is a causal language model."""
    trail: tuple[TrailLine, ...]
    rejected: tuple[Rejected, ...] = ()
    warnings: tuple[str, ...] = ()
    catalog_version: str
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return sum(file.size for part in self.parts for file in part.files)

    @property
    def parts(self) -> "tuple[Resolution, ...]":
        """One for each repository that files come from: the model, then the adapter."""
        if self.adapter is None:
            return (self,)
        pin, base = self.adapter, self.model_copy(update={"adapter": None})
        own = pin.model_dump(include={"repository", "commit", "ref_asked", "private", "gated"})
        held = {"files": pin.files, "weights": pin.weights, "tokenizer_files": ()}
        return base, base.model_copy(update={**own, **held})

    @property
    def selection(self) -> str:
        """Names the set of files; equal for requests that need the same ones."""
        return digest_json([[file.path, file.digest] for file in self.files])

    @property
    def public(self) -> bool:
        """Anybody may read all of it, the adapter's files too."""
        return all(not (part.private or part.gated) for part in self.parts)

    @property
    def stands_in(self) -> bool:
        """Another repository serves, or other weights than those stored, in the asked one's place."""
        return self.substitution not in (Substitution.NONE, Substitution.ALIAS)

    @property
    def same_values(self) -> bool:
        """The tensors in memory have the asked repository's stored values."""
        kept = not self.stands_in or self.substitution is Substitution.EQUIVALENT
        return kept and self.cast is None and self.adapter is None

    @property
    def cache_key(self) -> str:
        """Two spellings of the same weights and load share one warm copy.

        Public repositories that hold the same files are spellings of each other too.
        """
        quantization = self.quantization.model_dump(mode="json") if self.quantization else None
        adapter = self.adapter
        added = [] if adapter is None else [
            "" if adapter.public else f"{adapter.repository}@{adapter.commit}",
            adapter.how.value,
            *([file.path, file.digest] for file in adapter.files),
        ]  # fmt: skip
        return digest_json(
            [
                "" if self.public else f"{self.repository}@{self.commit}",
                self.precision,
                self.cast,
                quantization,
                self.memory.context_tokens,
                [[file.path, file.digest] for file in self.files],
                *([added] if added else []),
            ]
        )

    def lock(self) -> LockedLoad:
        """What a lock keeps of it."""
        return LockedLoad(
            asked_commit=self.asked_commit or self.commit,
            repository=self.repository,
            commit=self.commit,
            substitution=self.substitution.value,
            precision=self.precision,
            cast=self.cast,
            quantization=describe_quantization(self.quantization),
            files=self.files,
            adapter=LockedAdapter(
                repository=self.adapter.repository,
                commit=self.adapter.commit,
                files=self.adapter.files,
            )
            if self.adapter is not None
            else None,
            catalog_version=self.catalog_version,
        )

    def summary(self) -> dict[str, Any]:
        """The few fields that a job's answer carries."""
        return {
            "repository": self.repository,
            "commit": self.commit,
            "ref_asked": self.ref_asked,
            "substitution": self.substitution.value,
            "precision": self.precision,
            "architecture": self.architecture,
            "parameters": self.parameters,
            "adapter": f"{self.adapter.repository}@{self.adapter.commit}" if self.adapter else None,
            "files": sum(len(part.files) for part in self.parts),
            "size_bytes": self.size_bytes,
            "memory_bytes": self.memory.total_bytes,
        }
