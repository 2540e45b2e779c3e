"""Pools as users have them: sizes, demotion of 1G pages, and how far memory for page structs reaches (K5, L20)."""

import pytest

from gmemlab.core.layout import BLOCK_PAGES
from gmemlab.errors import InvalidArgument, OutOfMemory
from gmemlab.model.host import Host

STRUCTS = 511  # frames more that 512 pages of 2M keep than one of 1G


def test_demoted_pages_are_512_of_2m() -> None:
    host = Host("5G")
    assert host.grow_pool("1G", 2, hvo=False) == 2
    free = host.free_bytes
    assert host.demote_pages(5) == 2
    assert host.free_bytes == free
    memory = host.memory("1G", "hugetlbfs")
    memory.allocate()
    assert host.free_bytes == free
    host.audit()


def test_giga_pages_beyond_a_pool_are_refused() -> None:
    host = Host("1G")
    with pytest.raises(InvalidArgument, match="set the pool of 1G pages to 0 and 1 beyond"):
        host.set_pool("1G", 0, overcommit=1)
    host.set_pool("2M", 0, overcommit=1)


def test_demotion_with_hvo_keeps_page_structs() -> None:
    """K5, C26: all structs of the 1 GiB page are restored, then 7 of each 8 frames go back."""
    host = Host("5G")
    assert host.grow_pool("1G", 1) == 1
    free = host.free_bytes
    assert host.demote_pages(1) == 1
    assert host.free_bytes == free - STRUCTS * 4096
    host.audit()


def test_demotion_with_hvo_needs_memory_for_page_structs() -> None:
    host = Host("5G")
    host.grow_pool("1G", 1)
    filler = host.guest_memfd(host.free_bytes - 4094 * 4096, "4k")
    filler.allocate()
    with pytest.raises(OutOfMemory, match="demote 1 pages of 1G") as caught:
        host.demote_pages(1)
    assert (caught.value.done, host.free_bytes) == (0, 4094 * 4096)
    filler.punch_hole(0, "4K")
    assert host.demote_pages(1) == 1
    assert host.free_bytes == (8 * BLOCK_PAGES - 1 - STRUCTS) * 4096
    host.audit()


def test_pool_with_hvo_is_resized() -> None:
    """K5: 7 frames for each page that leaves; without them it stays, as a surplus page."""
    host = Host("64M")
    empty = host.free_bytes
    assert host.grow_pool("2M", 3) == 3
    host.set_pool("2M", 1)
    assert host.free_bytes == empty - (512 - 7) * 4096
    host.set_pool("2M", 2, overcommit=1)
    with host.guest_memfd(host.free_bytes - 6 * 4096, "4k") as filler:
        filler.allocate()
        host.set_pool("2M", 0)
        assert host.state.pools[0].surplus == host.state.pools[0].free == 2
    host.set_pool("2M", 2)
    host.set_pool("2M", 0)
    assert host.free_bytes == empty
    host.audit()


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("hvo", [True, False])
def test_the_pool_decides_whether_a_split_takes_page_structs(before: bool, hvo: bool) -> None:
    """Also where its blocks had been pages of another pool, and whatever the policy would have made of it (K5, G74)."""
    host = Host("64M")
    assert host.grow_pool("2M", 4, hvo=before) == 4
    host.set_pool("2M", 0)
    assert host.grow_pool("2M", 4, hvo=hvo) == 4
    free = host.free_bytes
    guest = host.guest_memfd("8M", "hugetlb-2m")
    guest.access(0, "8M")
    for block in range(4):
        guest.convert(block << 21, 4096, "shared")
        assert host.free_bytes == free - (block + 1) * 7 * 4096 * hvo
    host.audit()
    for block in range(4):
        guest.convert(block << 21, 4096, "private")
    assert host.free_bytes == free
    host.audit()
