"""Which files may be asked for together."""

from pathlib import Path

import pytest

from warmrack_store.errors import BadRequest, Integrity
from warmrack_store.facts import FileFact
from warmrack_workers.fetch.fetcher import FetchPlan


def fact(path: str, size: int = 1, digest: str = "a") -> FileFact:
    return FileFact(path=path, size=size, git_sha1=digest * 40)


def plan(*files: FileFact, commit: str = "c" * 40) -> FetchPlan:
    return FetchPlan(
        cache_dir=Path("/cache"), repository="acme/tiny", commit=commit, files=files, public=True
    )


def test_two_paths_with_one_digest_are_one_download_and_the_largest_comes_first() -> None:
    small, twin, large = fact("a"), fact("b"), fact("c", size=9, digest="b")
    assert [blob.digest for blob in plan(small, twin, large).blobs] == [large.digest, twin.digest]


@pytest.mark.parametrize(
    "files",
    [
        (fact("a"), fact("a")),
        (fact("a"), fact("a/b", digest="b")),
        (fact("a/b/c", digest="b"), fact("a/b")),
        (fact("a"), fact("b", size=2)),
    ],
)
def test_files_that_contradict_each_other_are_refused(files: tuple[FileFact, ...]) -> None:
    with pytest.raises(Integrity):
        plan(*files)


def test_a_path_out_of_the_snapshot_or_a_branch_for_a_commit_is_refused() -> None:
    with pytest.raises(BadRequest):
        plan(fact("../a"))
    with pytest.raises(BadRequest):
        plan(fact("a"), commit="main")
