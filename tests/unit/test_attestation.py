"""Receipts outside the pool: what is signed, and what each kind of tampering is answered with."""

import base64
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmrack_store.attestation import (
    PAYLOAD_TYPE,
    TENSOR_ROOT,
    Proved,
    make_statement,
    sign_statement,
    verify_statement,
)
from warmrack_store.envelopes import (
    Envelope,
    PublicKey,
    SigningKey,
    encode_pae,
    read_envelope,
)
from warmrack_store.errors import BadRequest, Integrity, NotSupported
from warmrack_store.facts import FileFact
from warmrack_store.receipts import Check, Level, Receipt, Served, ServedFile

KEY = SigningKey(bytes(range(32)))
OTHER = SigningKey(b"o" * 32)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FACTS = (
    FileFact(path="config.json", size=2, git_sha1="c" * 40),
    FileFact(path="model.safetensors", size=9, git_sha1="e" * 40, sha256="b" * 64),
)


def receipt(**changes: Any) -> Receipt:
    fields: dict[str, Any] = {
        "level": Level.LOADED,
        "asked": "acme/tiny",
        "served": Served(repository="acme/tiny", commit=COMMIT, precision="bf16"),
        "checks": {"E1": Check(passed=True, detail="as asked")},
        "files": (
            ServedFile(path="config.json", size=2, sha256="a" * 64),
            ServedFile(path="model.safetensors", size=9, sha256="b" * 64),
        ),
        "tensor_root": "d" * 64,
        "identical": True,
    }
    return Receipt(**fields | changes)


def proved(**changes: Any) -> Proved:
    return Proved(id="rec_1", proved_at="2026-01-02T03:04:05.678Z", receipt=receipt(**changes))


def signed(**changes: Any) -> Envelope:
    return sign_statement(make_statement(proved(**changes), FACTS), KEY)


def payload_of(envelope: Envelope) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(envelope.payload))
    return found


def with_payload(envelope: Envelope, statement: dict[str, Any]) -> Envelope:
    text = base64.b64encode(json.dumps(statement).encode()).decode()
    return envelope.model_copy(update={"payload": text})


def test_signed_bytes_are_those_of_the_specification() -> None:
    """The example of the DSSE protocol text, and the lengths it counts: bytes, not characters."""
    assert (
        encode_pae("http://example.com/HelloWorld", b"hello world")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert encode_pae("", b"") == b"DSSEv1 0  0 "
    assert encode_pae("é", b"\x00\xff ") == b"DSSEv1 2 \xc3\xa9 3 \x00\xff "


def test_key_and_signature_are_ed25519s_own() -> None:
    """RFC 8032, 7.1, test 1: the seed gives that public key."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert SigningKey(seed).public.der.hex().endswith(public)


def test_public_key_survives_its_pem_form() -> None:
    assert PublicKey.from_pem(KEY.public.pem.encode()) == KEY.public
    assert re.fullmatch(r"[0-9a-f]{64}", KEY.public.keyid)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        # P-256, not Ed25519
        b"-----BEGIN PUBLIC KEY-----\n"
        b"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt\n"
        b"6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==\n"
        b"-----END PUBLIC KEY-----\n",
    ],
)
def test_what_is_no_ed25519_public_key_is_refused(pem: bytes) -> None:
    with pytest.raises(BadRequest):
        PublicKey.from_pem(pem)


def test_statement_names_every_file_by_in_totos_digest_names_and_the_tensor_root() -> None:
    statement = payload_of(signed())
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"] == [
        {"name": "config.json", "digest": {"sha256": "a" * 64, "gitBlob": "c" * 40}},
        {"name": "model.safetensors", "digest": {"sha256": "b" * 64}},
        {"name": f"pkg:huggingface/acme/tiny@{COMMIT}", "digest": {TENSOR_ROOT: "d" * 64}},
    ]
    assert statement["predicate"]["receipt"] == receipt().model_dump(mode="json")


def test_receipt_of_files_alone_has_no_tensor_subject() -> None:
    envelope = signed(level=Level.FILES, tensor_root=None)
    statement, _ = verify_statement(envelope, [KEY.public])
    assert [one.name for one in statement.subject] == ["config.json", "model.safetensors"]


def test_receipt_that_covers_no_file_is_not_signed() -> None:
    with pytest.raises(NotSupported):
        make_statement(proved(level=Level.NAME, files=(), tensor_root=None))


def test_signed_receipt_is_verified_by_its_key_among_others() -> None:
    envelope = read_envelope(signed().to_json().encode())
    statement, key = verify_statement(envelope, [OTHER.public, KEY.public])
    assert statement.predicate.receipt == receipt()
    assert key == KEY.public


def test_key_id_is_a_hint_only() -> None:
    envelope = signed()
    (one,) = envelope.signatures
    for keyid in ("", OTHER.public.keyid):
        renamed = envelope.model_copy(
            update={"signatures": (one.model_copy(update={"keyid": keyid}),)}
        )
        assert verify_statement(renamed, [KEY.public])[1] == KEY.public


def test_url_safe_base64_is_read_too() -> None:
    envelope = signed()
    safe = envelope.model_copy(
        update={"payload": envelope.payload.replace("+", "-").replace("/", "_")}
    )
    assert verify_statement(safe, [KEY.public])[0].predicate.id == "rec_1"


@pytest.mark.parametrize("keys", [[], [OTHER.public]])
def test_signature_of_an_unknown_key_is_no_proof(keys: list[PublicKey]) -> None:
    with pytest.raises(Integrity, match=f"unknown key .{KEY.public.keyid[:16]}"):
        verify_statement(signed(), keys)


def _other_file(statement: dict[str, Any]) -> None:
    statement["predicate"]["receipt"]["files"][0]["sha256"] = "f" * 64


def _other_subject(statement: dict[str, Any]) -> None:
    statement["subject"][0]["digest"]["sha256"] = "f" * 64


def _other_root(statement: dict[str, Any]) -> None:
    statement["predicate"]["receipt"]["tensor_root"] = "f" * 64


def _passed(statement: dict[str, Any]) -> None:
    statement["predicate"]["receipt"]["checks"]["E1"]["passed"] = False


def _another_kind(statement: dict[str, Any]) -> None:
    statement["predicateType"] = "https://slsa.dev/provenance/v1"


def _another_version(statement: dict[str, Any]) -> None:
    statement["_type"] = "https://in-toto.io/Statement/v0.1"


CHANGES = [_other_file, _other_subject, _other_root, _passed, _another_kind, _another_version]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_payload_does_not_fit_its_signature(
    change: Callable[[dict[str, Any]], None],
) -> None:
    envelope = signed()
    statement = payload_of(envelope)
    change(statement)
    with pytest.raises(Integrity, match="does not fit"):
        verify_statement(with_payload(envelope, statement), [KEY.public])


@pytest.mark.parametrize("change", [one for one in CHANGES if one is not _passed])
def test_statement_that_contradicts_itself_is_refused_even_where_it_is_signed(
    change: Callable[[dict[str, Any]], None],
) -> None:
    statement = payload_of(signed())
    change(statement)
    with pytest.raises(Integrity, match=r"subjects|predicateType|_type"):
        verify_statement(KEY.sign(PAYLOAD_TYPE, json.dumps(statement).encode()), [KEY.public])


def test_fields_of_a_newer_pool_are_let_through() -> None:
    statement = payload_of(signed())
    statement["predicate"]["receipt"]["later"] = 1
    statement["subject"][0]["uri"] = "file:config.json"
    envelope = KEY.sign(PAYLOAD_TYPE, json.dumps(statement).encode())
    assert verify_statement(envelope, [KEY.public])[0].predicate.receipt == receipt()


def test_changed_payload_type_does_not_fit_the_signature() -> None:
    envelope = signed().model_copy(update={"payload_type": "text/plain"})
    with pytest.raises(Integrity, match="does not fit"):
        verify_statement(envelope, [KEY.public])


def test_signed_payload_of_another_type_is_no_receipt() -> None:
    with pytest.raises(Integrity, match="text/plain"):
        verify_statement(KEY.sign("text/plain", b"{}"), [KEY.public])


def test_changed_signature_does_not_fit() -> None:
    envelope = signed()
    raw = bytearray(base64.b64decode(envelope.signatures[0].sig))
    raw[5] ^= 1
    one = envelope.signatures[0].model_copy(update={"sig": base64.b64encode(raw).decode()})
    with pytest.raises(Integrity, match="does not fit"):
        verify_statement(envelope.model_copy(update={"signatures": (one,)}), [KEY.public])


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[1]",
        b"\xff\xfe",
        b'{"payload": "e30=", "payloadType": "x", "signatures": []}',
    ],
)
def test_what_is_no_envelope_is_refused(text: bytes) -> None:
    with pytest.raises(Integrity, match="not a signed receipt"):
        read_envelope(text)


def test_payload_that_is_not_base64_is_refused() -> None:
    with pytest.raises(Integrity, match="not base64"):
        verify_statement(signed().model_copy(update={"payload": "%%%"}), [KEY.public])


ENVELOPE = signed().to_json().encode()


@given(st.integers(0, len(ENVELOPE) - 1), st.integers(1, 255))
def test_no_change_of_a_byte_makes_another_receipt_pass(place: int, change: int) -> None:
    text = bytearray(ENVELOPE)
    text[place] ^= change
    try:
        statement, key = verify_statement(read_envelope(bytes(text)), [KEY.public])
    except Integrity:
        return
    assert (statement.predicate, key) == (proved(), KEY.public)
