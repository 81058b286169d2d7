"""The vault: tokens at rest, marks that give nothing away, and the key's file."""

import os
import stat
from pathlib import Path

import pytest

from warmrack_store.errors import BadRequest
from warmrack_store.settings import Settings
from warmrack_store.vault import Vault, ensure_key_file, open_vault, read_vault

TOKEN = "hf_secret"


def test_a_token_comes_back_and_is_not_to_be_seen() -> None:
    vault = Vault(b"k" * 32)
    first, second = vault.encrypt(TOKEN), vault.encrypt(TOKEN)
    assert TOKEN.encode() not in first
    assert first != second
    assert vault.decrypt(first) == vault.decrypt(second) == TOKEN


def test_another_clusters_key_or_a_changed_text_opens_nothing() -> None:
    sealed = Vault(b"k" * 32).encrypt(TOKEN)
    with pytest.raises(BadRequest, match="another cluster key"):
        Vault(b"x" * 32).decrypt(sealed)
    with pytest.raises(BadRequest):
        Vault(b"k" * 32).decrypt(sealed[:-4] + b"AAA=")


def test_a_mark_is_the_same_for_the_same_token_in_one_cluster_only() -> None:
    vault = Vault(b"k" * 32)
    assert vault.mark(TOKEN) == Vault(b"k" * 32).mark(TOKEN)
    assert vault.mark(TOKEN) != Vault(b"x" * 32).mark(TOKEN)
    assert vault.mark(TOKEN) != vault.mark("hf_other")
    assert TOKEN not in vault.mark(TOKEN)
    assert vault.mark(None) == "anonymous"


def test_each_purpose_has_a_key_of_its_own() -> None:
    vault = Vault(b"k" * 32)
    assert vault.node_token not in (vault.mark("node"), "k" * 32)
    assert vault.node_token == Vault(b"k" * 32).node_token


def test_a_made_key_is_random_kept_and_its_owners_alone(tmp_path: Path) -> None:
    one, two = tmp_path / "a" / "key", tmp_path / "b" / "key"
    for path in (one, two, one):
        ensure_key_file(path)
    assert one.read_text() != two.read_text()
    assert stat.S_IMODE(one.stat().st_mode) == 0o600
    assert [path.name for path in one.parent.iterdir()] == ["key"]
    assert read_vault(one).decrypt(read_vault(one).encrypt(TOKEN)) == TOKEN


def test_a_crash_while_a_secret_is_written_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"

    def crash(_self: Path, _target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            ensure_key_file(path)
    assert not path.exists()
    ensure_key_file(path)
    read_vault(path)


def test_what_a_crashed_process_with_our_pid_left_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / f"key.{os.getpid()}").touch()
    ensure_key_file(tmp_path / "key")
    read_vault(tmp_path / "key")


def test_a_missing_or_short_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="cannot read"):
        read_vault(tmp_path / "none")
    short = tmp_path / "short"
    short.write_text("k" * 31 + "\n\n")
    with pytest.raises(BadRequest, match="shorter"):
        read_vault(short)


def test_the_newest_secret_key_encrypts_and_the_older_ones_open_until_they_are_gone() -> None:
    cluster, old, new = b"k" * 32, b"o" * 32, b"n" * 32
    first = Vault(cluster).encrypt(TOKEN)
    second = Vault(cluster, [old]).encrypt(TOKEN)
    both = Vault(cluster, [new, old])
    assert both.decrypt(first) == both.decrypt(second) == TOKEN
    with pytest.raises(BadRequest, match="secret key"):
        Vault(cluster, [new]).decrypt(second)
    assert Vault(cluster, [new]).decrypt(both.renew(second)) == TOKEN
    with pytest.raises(BadRequest):
        Vault(cluster, [old]).decrypt(both.renew(second))
    assert both.mark(TOKEN) == Vault(cluster).mark(TOKEN)


@pytest.mark.parametrize("where", ["file", "environment"])
def test_secret_keys_come_from_a_file_or_the_environment(tmp_path: Path, where: str) -> None:
    ensure_key_file(tmp_path / "cluster")
    keys = ["n" * 32, "o" * 32]
    (tmp_path / "keys").write_text("\n".join(keys))
    named = {"secret_keys_file": tmp_path / "keys"} if where == "file" else {}
    given = {"secret_keys": ",".join(keys)} if where == "environment" else {}
    settings = Settings.model_validate({"cluster_key_file": tmp_path / "cluster", **named, **given})
    sealed = open_vault(settings).encrypt(TOKEN)
    cluster = (tmp_path / "cluster").read_bytes().strip()
    assert Vault(cluster, [keys[0].encode()]).decrypt(sealed) == TOKEN
    with pytest.raises(BadRequest, match="shorter"):
        open_vault(Settings(cluster_key_file=tmp_path / "cluster", secret_keys="short"))
    with pytest.raises(BadRequest, match="cannot read"):
        open_vault(
            Settings(cluster_key_file=tmp_path / "cluster", secret_keys_file=tmp_path / "none")
        )
