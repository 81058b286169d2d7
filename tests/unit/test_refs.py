"""How a model may be named, and what is refused as a name."""

import pytest

from warmrack_store.errors import BadRequest, Contradiction, NotSupported
from warmrack_store.refs import (
    ModelRef,
    check_file_path,
    check_revision,
    is_commit,
    merge_revision,
    parse_model,
)

SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "repository", "revision"),
    [
        ("org/name", "org/name", None),
        ("  org/name ", "org/name", None),
        ("hf://org/name", "org/name", None),
        ("hf://org/name@main", "org/name", "main"),
        ("org/name@refs/pr/3", "org/name", "refs/pr/3"),
        (f"org/name@{SHA}", "org/name", SHA),
        ("https://huggingface.co/org/name", "org/name", None),
        ("https://huggingface.co/org/name/", "org/name", None),
        ("https://huggingface.co/org/name/tree/feature/x", "org/name", "feature/x"),
        (f"https://huggingface.co/org/name/commit/{SHA}", "org/name", SHA),
        ("Qwen/Qwen2.5-0.5B_x", "Qwen/Qwen2.5-0.5B_x", None),
    ],
)
def test_a_spelling_names_a_repository_and_perhaps_a_revision(
    text: str, repository: str, revision: str | None
) -> None:
    assert parse_model(text) == ModelRef(repository=repository, revision=revision)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "name", "a/b/c", "/name", "org/", "../name", "org/..", "./name", "org/-name"),
        *("org/na--me", "org/na..me", "org/name.git", "org/name\x00", "org/na me", "org\\name"),
        *("~/name", "/etc/passwd", "org/" + "x" * 97, "org/name@../x", "org/name@a..b"),
        *("org/name@", "hf://org/name@", "https://[/org/name", "https://[::1/org/name"),
        *("org/name@/x", "org/name@x.lock", "org/name@-x", "https://hub.example/org", "orgé/name"),
    ],
)
def test_what_is_no_plain_name_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_model(text)


def test_a_local_folder_is_refused_as_not_served() -> None:
    with pytest.raises(NotSupported):
        parse_model("file:///models/x")


def test_the_revision_may_be_given_beside_the_name_but_not_differently() -> None:
    ref = ModelRef(repository="org/name", revision="main")
    assert merge_revision(ref, None) == ref
    assert merge_revision(ref, "main") == ref
    assert merge_revision(ModelRef(repository="org/name"), "v1").revision == "v1"
    with pytest.raises(Contradiction, match=r"'main'.*'v1'"):
        merge_revision(ref, "v1")


def test_only_forty_lowercase_hex_digits_are_a_commit() -> None:
    assert is_commit(SHA)
    assert not any(is_commit(text) for text in (None, SHA[:39], SHA + "0", SHA.upper(), SHA + "\n"))


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/12", "feature/a+b=c", SHA])
def test_a_revision_that_git_could_have_is_passed_on(revision: str) -> None:
    assert check_revision(revision) == revision


@pytest.mark.parametrize(
    "path", ["a", "a/b.json", "sub dir/file name.txt", "é.txt", ".gitattributes"]
)
def test_a_path_below_its_folder_is_passed_on(path: str) -> None:
    assert check_file_path(path) == path


@pytest.mark.parametrize(
    "path", ["", "/a", "../a", "a/../b", "a//b", "a/", "./a", "a\\b", "a\x00b", "a\nb", "x" * 256]
)
def test_a_path_that_leaves_its_folder_is_refused(path: str) -> None:
    with pytest.raises(BadRequest):
        check_file_path(path)
