"""What a model is made of, counted on a model built from its config without any weights."""

from collections.abc import Mapping

from pydantic import Field

from warmrack_store.records import Record, digest_json


class LinearShape(Record):
    """Equal linear layers; a bias is counted among the other elements."""

    in_features: int = Field(ge=0)
    out_features: int = Field(ge=0)
    count: int = Field(ge=1)
    quantizable: bool
    """False where the quantizing library leaves it as it is: an output head, a tied layer."""

    @property
    def elements(self) -> int:
        """Of one of them."""
        return self.in_features * self.out_features


class CachedLayer(Record):
    """Equal layers of the cache of one sequence."""

    elements_per_token: int = Field(ge=0)
    window_tokens: int | None = None
    """Tokens that are kept; None: all."""
    fixed_elements: int = Field(0, ge=0)
    """Of a state that does not grow with the context."""
    fixed_fp32_elements: int = Field(0, ge=0)
    """The same, of a state that is kept in fp32 whatever the load's dtype."""
    count: int = Field(ge=1)


class Skeleton(Record):
    """The parameters and the cache of one class, built from one config by one library."""

    architecture: str
    library: str
    """Its name and version, which decide which layers are fused."""
    linears: tuple[LinearShape, ...]
    other_elements: int = Field(ge=0)
    """Elements of all other parameters, tied ones counted once."""
    fp32_elements: int = Field(0, ge=0)
    """Those among them that stay fp32 whatever the load's dtype."""
    persistent_buffer_bytes: int = Field(0, ge=0)
    cached: tuple[CachedLayer, ...] | None = None
    """None where the cache could not be counted."""


def digest_config(config: Mapping[str, object]) -> str:
    """What a skeleton is kept under: equal for equal configs."""
    return digest_json(dict(config))
