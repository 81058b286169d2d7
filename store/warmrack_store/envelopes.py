"""Signed envelopes: DSSE 1.0 around any payload, with Ed25519 keys, checked without a service."""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from warmrack_store.errors import BadRequest, Integrity

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class Signature(BaseModel):
    """One signature; the key's id is a hint where to look, and decides nothing."""

    model_config = ConfigDict(frozen=True)

    keyid: str = ""
    sig: str


class Envelope(BaseModel):
    """DSSE's JSON envelope; fields that its later versions add are ignored, as it asks for."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    payload: str
    """base64 of the signed bytes."""
    payload_type: str = Field(alias="payloadType")
    signatures: tuple[Signature, ...] = Field(min_length=1)

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, indent=1) + "\n"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What checks a pool's signatures. `der` is the SubjectPublicKeyInfo of an Ed25519 key."""

    der: bytes

    @property
    def keyid(self) -> str:
        """sha256 of the DER form, in hex; `openssl pkey -pubin -outform DER | sha256sum`."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def pem(self) -> str:
        body = base64.b64encode(self.der).decode()
        return f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"

    @classmethod
    def from_pem(cls, pem: bytes) -> Self:
        """Raises BadRequest for anything but an Ed25519 public key."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        try:
            key = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise BadRequest(f"not a public key in PEM: {error}") from error
        if not isinstance(key, Ed25519PublicKey):
            raise BadRequest("the public key is not an Ed25519 key")
        return cls(_der(key))

    def verifies(self, signature: bytes, message: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_der_public_key

        key = load_der_public_key(self.der)
        assert isinstance(key, Ed25519PublicKey), "from_pem and SigningKey make no others"
        try:
            key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """A pool's Ed25519 key, made from 32 secret bytes: the same bytes give the same key."""

    def __init__(self, seed: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = PublicKey(_der(self._key.public_key()))

    def sign(self, payload_type: str, payload: bytes) -> Envelope:
        signature = self._key.sign(encode_pae(payload_type, payload))
        return Envelope(
            payload=base64.b64encode(payload).decode(),
            payload_type=payload_type,
            signatures=(
                Signature(keyid=self.public.keyid, sig=base64.b64encode(signature).decode()),
            ),
        )


def encode_pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: the bytes that are signed, so that neither the type nor
    the payload can be changed and nothing is parsed before its signature is checked."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def read_envelope(text: bytes) -> Envelope:
    """Raises Integrity for what is no envelope."""
    try:
        return Envelope.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise Integrity(
            f"not a signed receipt: {where}: {first['msg']}",
            hint="`warmrack receipt JOB --export FILE` writes one.",
        ) from error


def open_envelope(
    envelope: Envelope, keys: Sequence[PublicKey], payload_type: str
) -> tuple[bytes, PublicKey]:
    """The payload, once one of `keys` has signed it, and that key.

    Raises Integrity: for another payload type, a signature of an unknown key, or one that does not
    fit the payload.
    """
    payload = _decode(envelope.payload, "the payload")
    message = encode_pae(envelope.payload_type, payload)
    for signature in envelope.signatures:
        raw = _decode(signature.sig, "the signature")
        for key in keys:
            if key.verifies(raw, message):
                if envelope.payload_type != payload_type:
                    raise Integrity(f"holds {envelope.payload_type!r}, expected {payload_type!r}")
                return payload, key
    raise _explain(envelope, keys)


def _explain(envelope: Envelope, keys: Sequence[PublicKey]) -> Integrity:
    """Why none of the keys fits; by the ids that the signatures claim, which may lie."""
    claimed = {signature.keyid for signature in envelope.signatures}
    if claimed & {key.keyid for key in keys}:
        return Integrity(
            "the signature does not fit: the payload, its type or the signature was changed",
            hint="Export the receipt again.",
        )
    names = ", ".join(sorted(keyid[:16] or "without an id" for keyid in claimed))
    return Integrity(
        f"signed by an unknown key ({names}); {len(keys)} keys are known here",
        hint="Pass the pool's public key with --key; `warmrack pool-key` prints it.",
    )


def _decode(text: str, what: str) -> bytes:
    """base64 in the standard or the URL-safe alphabet: DSSE allows both."""
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Integrity(f"{what} is not base64: {error}") from error


def _der(key: "Ed25519PublicKey") -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
