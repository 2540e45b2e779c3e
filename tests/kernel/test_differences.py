"""The table of what differs between releases."""

import errno

import pytest

from gmemlab.kernel.differences import DIFFERENCES, difference


@pytest.mark.parametrize(
    ("release", "overlap", "split", "ladder", "reclaims"),
    [
        ("6.12.95+deb12-amd64", errno.EINVAL, "4k", False, False),
        ("6.14.0", errno.EINVAL, "4k", True, True),
        ("6.18.44", errno.EINVAL, "pieces", True, True),
        ("7.3.4-sw-protected", errno.EEXIST, "pieces", True, True),
        ("10.0-rc1", errno.EEXIST, "pieces", True, True),
        ("unknown", errno.EINVAL, "4k", False, False),
    ],
)
def test_release_decides(release: str, overlap: int, split: str, ladder: bool, reclaims: bool) -> None:
    found = [difference(name, release) for name in ("memslot_overlap", "split", "shmem_ladder", "reclaims_page_tables")]
    assert found == [overlap, split, ladder, reclaims]


def test_rows_ascend_from_the_first_release() -> None:
    for rows in DIFFERENCES.values():
        releases = [release for release, _ in rows]
        assert releases == sorted(set(releases))
        assert releases[0] == (0, 0)
