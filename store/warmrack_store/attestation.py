"""A receipt as it leaves the pool: an in-toto statement about the files and tensors it covers."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from warmrack_store.envelopes import Envelope, PublicKey, SigningKey, open_envelope
from warmrack_store.errors import Integrity, NotSupported
from warmrack_store.facts import FileFact
from warmrack_store.receipts import Receipt
from warmrack_store.records import Record, canonical_json

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "urn:warmrack:receipt:v1"
TENSOR_ROOT = "warmrackTensorRootV1"
"""Our own name among in-toto's digest names, which leaves others to producer and consumer; how the
root is computed is said in `tensors`."""


class Proved(Record):
    """The predicate: which receipt this is, when it was proved, and the receipt itself."""

    id: str
    job: str | None = None
    proved_at: str
    """RFC 3339."""
    receipt: Receipt


class Subject(Record):
    """Something that the statement is about, and its digests by in-toto's names for them."""

    name: str
    digest: dict[str, str] = Field(min_length=1)


class Statement(BaseModel):
    """in-toto's Statement v1; fields that are added later are ignored, as it asks for."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    type: Literal["https://in-toto.io/Statement/v1"] = Field(STATEMENT_TYPE, alias="_type")
    subject: tuple[Subject, ...] = Field(min_length=1)
    predicate_type: Literal["urn:warmrack:receipt:v1"] = Field(
        PREDICATE_TYPE, alias="predicateType"
    )
    predicate: Proved

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True)


def make_statement(proved: Proved, facts: Sequence[FileFact] = ()) -> Statement:
    """The statement of a receipt; `facts` add the name that git gives to a file's bytes.

    Raises NotSupported for a receipt that covers no file, as one at level `name` does.
    """
    if not proved.receipt.files:
        raise NotSupported(f"receipt {proved.id} covers no file, so there is nothing to sign")
    return Statement(
        subject=tuple(_list_subjects(proved.receipt, facts)),
        predicate=proved,
    )


def _list_subjects(receipt: Receipt, facts: Sequence[FileFact]) -> Iterator[Subject]:
    """Every file, then the model by its package URL where its tensors were audited."""
    blobs = {fact.path: fact.git_sha1 for fact in facts if fact.sha256 is None}
    for file in receipt.files:
        named = {"gitBlob": blobs[file.path]} if file.path in blobs else {}
        yield Subject(name=file.path, digest={"sha256": file.sha256, **named})
    if receipt.tensor_root is not None:
        yield Subject(name=model_url(receipt), digest={TENSOR_ROOT: receipt.tensor_root})


def model_url(receipt: Receipt) -> str:
    """The package URL (purl, type huggingface) of what is served; an adapter is a qualifier."""
    served = receipt.served
    url = f"pkg:huggingface/{served.repository}@{served.commit}"
    if served.adapter is None:
        return url
    adapter = f"{served.adapter.repository}@{served.adapter.commit}"
    return f"{url}?adapter={quote(adapter, safe='')}"


def sign_statement(statement: Statement, key: SigningKey) -> Envelope:
    return key.sign(PAYLOAD_TYPE, canonical_json(statement.to_json()).encode())


def verify_statement(envelope: Envelope, keys: Sequence[PublicKey]) -> tuple[Statement, PublicKey]:
    """The statement in an envelope and the key that signed it.

    Raises Integrity, naming what is wrong: an unknown key, a changed payload, another type, or
    subjects that are not those of the receipt.
    """
    payload, key = open_envelope(envelope, keys, PAYLOAD_TYPE)
    try:
        statement = Statement.model_validate_json(payload, extra="ignore")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise Integrity(f"signed, but not a receipt: {where}: {first['msg']}") from error
    _check_subjects(statement)
    return statement, key


def _check_subjects(statement: Statement) -> None:
    """A consumer that reads the subjects alone must see what the receipt says."""
    receipt = statement.predicate.receipt
    shown = {one.name: one.digest.get("sha256") for one in statement.subject}
    if receipt.tensor_root is not None:
        url = model_url(receipt)
        roots = {one.name: one.digest.get(TENSOR_ROOT) for one in statement.subject}
        if roots.get(url) != receipt.tensor_root:
            raise Integrity(f"the subjects do not name the tensor root of {url}")
        shown.pop(url)
    if shown != {file.path: file.sha256 for file in receipt.files}:
        raise Integrity("the subjects are not the receipt's files")
