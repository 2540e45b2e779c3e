"""hugetlb files on the running kernel: rounding, reservations, an exhausted pool, pins, pages of 1G (L18 to L20)."""

import errno
import os
import random
from collections.abc import Iterator

import pytest

from gmemlab.errors import HostAccessFault, InvalidArgument, OutOfMemory, PoolExhausted, TooBig, UnsupportedError, UsageError
from gmemlab.kernel import abi
from gmemlab.kernel.abi import PAGE
from gmemlab.kernel.files import HugetlbMemory
from gmemlab.kernel.host import LiveHost
from gmemlab.kernel.observe.pools import read_pool
from gmemlab.kernel.settings import Settings
from gmemlab.protocol import Extent, GuestMemory, Usage
from gmemlab.units import GIB
from live_world import LARGEST, refusal

HUGE = abi.PMD
PAGES = HUGE // PAGE
POOL = "sys/kernel/mm/hugepages/hugepages-{}kB/{}"
NR, SURPLUS = POOL.format(2048, "nr_hugepages"), POOL.format(2048, "nr_overcommit_hugepages")
EXTRA = 8


@pytest.fixture(scope="module")
def pool(settings: Settings) -> int:
    """Grow the pool until it has some free pages; how many it has."""
    settings.set(NR, 0)  # waits for whoever uses the pool; pages in use stay
    before = read_pool(HUGE).whole
    if before.free:
        pytest.skip("a hugetlb pool without reserved pages")
    if settings.set(NR, before.total + EXTRA) != str(before.total + EXTRA):
        pytest.skip(f"{EXTRA} free huge pages")
    return EXTRA


def free_and_reserved() -> tuple[int, int]:
    found = read_pool(HUGE).whole
    return found.free, found.reserved


def held(memory: HugetlbMemory) -> list[int]:
    """Numbers of the huge pages that are there; the kernel must count as many."""
    present = memory.present()
    assert sum(present) * PAGE == memory.usage().charged == os.fstat(memory.fd).st_blocks * 512
    return [page for page in range(memory.size // HUGE) if present[page * PAGES]]


def test_it_is_guest_memory(pool: int, host: LiveHost) -> None:
    guest: GuestMemory = host.hugetlb("4M")
    guest.allocate(0, "2M")
    for by in ("guest", "guest-shared", "host"):
        guest.access(0, "4K", by=by)
    assert guest.usage() == Usage(2 * HUGE, HUGE, 0, 0, 0, 0, 0, 0)
    assert guest.layout() == [Extent(0, HUGE, HUGE, False), Extent(HUGE, HUGE, 0, False)]
    with refusal(errno.EOPNOTSUPP):
        guest.convert(0, HUGE, "shared")
    guest.close()
    assert free_and_reserved() == (pool, 0)


@pytest.mark.parametrize("size", [0, -HUGE, PAGE, HUGE + PAGE, 1])
def test_bad_sizes(host: LiveHost, size: int) -> None:
    with pytest.raises(InvalidArgument):
        host.hugetlb(size)


@pytest.mark.parametrize("page", ["4K", "4M", 3])
def test_bad_pages(host: LiveHost, page: int | str) -> None:
    with pytest.raises(UsageError, match="no such page size"):
        host.hugetlb(HUGE, page)


# -- rounding (L18) ----------------------------------------------------------------------------------------------------------


def test_allocation_rounds_outward(pool: int, host: LiveHost) -> None:
    memory = host.hugetlb(4 * HUGE)
    memory.allocate(HUGE - PAGE, 2 * PAGE)
    assert held(memory) == [0, 1]
    memory.allocate(3 * HUGE + 1, 1)
    assert held(memory) == [0, 1, 3]
    assert free_and_reserved() == (pool - 3, 0)


def test_punch_rounds_inward(pool: int, host: LiveHost) -> None:
    memory = host.hugetlb(4 * HUGE)
    memory.write(0, memory.size, b"h")
    memory.punch_hole(PAGE, 3 * HUGE)
    assert held(memory) == [0, 3]
    assert memory.tags() == b"h" + bytes(3 * PAGES) + b"h" * (PAGES - 1)
    assert memory.usage() == Usage(4 * HUGE, 2 * HUGE, 0, 0, 0, 0, HUGE, 0)  # 511 pages of the first, one of the last
    memory.punch_hole(0, PAGE)
    assert held(memory) == [0, 3]  # all zero, none freed
    assert memory.layout() == [
        Extent(0, HUGE, HUGE, False),
        Extent(HUGE, 2 * HUGE, 0, False),
        Extent(3 * HUGE, HUGE, HUGE, False),
    ]
    memory.write(0, 2 * PAGE, b"i")
    assert memory.usage().stranded == HUGE - PAGE
    memory.punch_hole(0, HUGE)
    assert held(memory) == [3]
    assert memory.usage().stranded == PAGE


def test_random_operations_are_followed(pool: int, host: LiveHost) -> None:
    chooser = random.Random(18)
    memory = host.hugetlb(6 * HUGE)
    expected: set[int] = set()
    for _ in range(300):
        begin, end = sorted(chooser.sample(range(6 * PAGES + 1), 2))
        offset, size = begin * PAGE, (end - begin) * PAGE
        outward = set(range(begin // PAGES, -(-end // PAGES)))
        operation = chooser.randrange(4)
        if operation == 0:
            memory.allocate(offset, size)
            expected |= outward
        elif operation == 1:
            memory.access(offset, PAGE)
            expected.add(begin // PAGES)
        elif operation == 2:
            memory.pin(offset, PAGE)
            memory.unpin(offset, PAGE)
            expected.add(begin // PAGES)
        else:
            memory.punch_hole(offset, size)
            expected -= set(range(-(-begin // PAGES), end // PAGES))
        assert held(memory) == sorted(expected)
        assert free_and_reserved() == (pool - len(expected), 0)


def test_looking_changes_nothing(pool: int, host: LiveHost) -> None:
    memory = host.hugetlb(2 * HUGE)
    memory.allocate(HUGE, HUGE)
    assert memory.tags() == bytes(2 * PAGES)
    assert held(memory) == [1]
    assert memory.read(0, 8) == bytes(8)  # which faults the page in
    assert held(memory) == [0, 1]


@pytest.mark.parametrize("mode", [1, 3])
def test_bad_ranges(pool: int, host: LiveHost, mode: int) -> None:
    memory = host.hugetlb(2 * HUGE)
    for offset, size in ((-HUGE, HUGE), (0, 0), (0, -1)):
        with refusal(errno.EINVAL, done=0):
            memory.fallocate(mode, offset, size)
    with pytest.raises(TooBig):
        memory.fallocate(mode, LARGEST, 1)
    with refusal(errno.EOPNOTSUPP, done=0):
        memory.fallocate(0x10, 0, HUGE)
    assert held(memory) == []


def test_beyond_the_end(pool: int, host: LiveHost) -> None:
    memory = host.hugetlb(HUGE)
    with pytest.raises(HostAccessFault) as caught:
        memory.access(HUGE - PAGE, 2 * PAGE)
    assert caught.value.done == 1
    assert os.fstat(memory.fd).st_size == HUGE  # a mapping beyond the end would have moved it
    assert held(memory) == [0]


# -- reservations (L19) ------------------------------------------------------------------------------------------------------


def test_reservations(pool: int, host: LiveHost) -> None:
    memory = host.hugetlb(4 * HUGE)
    memory.reserve()
    assert free_and_reserved() == (pool, 4)
    memory.allocate(0, HUGE)
    memory.access(HUGE, PAGE)
    assert free_and_reserved() == (pool - 2, 2)
    memory.punch_hole(0, HUGE)
    assert free_and_reserved() == (pool - 1, 2)
    with pytest.raises(OutOfMemory):
        host.hugetlb((pool + 1) * HUGE).reserve()
    memory.reserve(0, PAGE)  # mmap takes the whole huge page; munmap refuses a part of it
    assert free_and_reserved() == (pool - 1, 3)
    memory.close()
    assert free_and_reserved() == (pool, 0)


def test_an_exhausted_pool(pool: int, host: LiveHost) -> None:
    taker, memory = host.hugetlb((pool - 3) * HUGE), host.hugetlb(6 * HUGE)
    taker.reserve()
    memory.access(HUGE, PAGE)
    with pytest.raises(PoolExhausted) as caught:
        memory.allocate(PAGE, 5 * HUGE)
    assert held(memory) == [0, 1, 2]  # what it got stays
    assert caught.value.done == 3 * PAGES - 1
    with pytest.raises(PoolExhausted) as caught:  # SIGBUS for a plain access
        memory.access(2 * HUGE, 2 * HUGE)
    assert caught.value.done == PAGES
    with pytest.raises(OutOfMemory):
        host.hugetlb(HUGE).reserve()
    taker.allocate()  # its reservation holds
    assert free_and_reserved() == (0, 0)
    memory.punch_hole(0, HUGE)
    memory.access(5 * HUGE, PAGE)
    assert held(memory) == [1, 2, 5]


def test_surplus_pages_are_freed_first(settings: Settings, pool: int, host: LiveHost) -> None:
    settings.set(SURPLUS, 1)
    try:
        memory = host.hugetlb((pool + 1) * HUGE)
        memory.allocate()
        assert (read_pool(HUGE).whole.surplus, free_and_reserved()) == (1, (0, 0))
        memory.punch_hole(0, HUGE)
        assert (read_pool(HUGE).whole.surplus, free_and_reserved()) == (0, (0, 0))
        memory.punch_hole(HUGE, HUGE)
        assert free_and_reserved() == (1, 0)
    finally:
        settings.set(SURPLUS, 0)


# -- pins (L18) --------------------------------------------------------------------------------------------------------------


def test_a_pinned_page_that_is_punched(pool: int, host: LiveHost) -> None:
    memory = host.hugetlb(2 * HUGE)
    memory.write(0, HUGE, b"p")
    memory.pin(7 * PAGE, 2 * PAGE)
    memory.punch_hole(0, PAGE)
    assert memory.tags()[:2] == b"\0p"
    memory.punch_hole(0, HUGE)
    assert held(memory) == []
    assert free_and_reserved() == (pool - 1, 0)
    memory.unpin(7 * PAGE, 2 * PAGE)
    assert free_and_reserved() == (pool, 0)


def test_closing_releases_pins(pool: int) -> None:
    with LiveHost() as host:
        memory = host.hugetlb(2 * HUGE)
        for page in range(20):
            memory.pin(page * PAGE, PAGE)
        assert free_and_reserved() == (pool - 1, 0)
    assert free_and_reserved() == (pool, 0)


# -- pages of 1G (L20) -------------------------------------------------------------------------------------------------------


@pytest.fixture
def giant(settings: Settings) -> Iterator[None]:
    name = POOL.format(1048576, "nr_hugepages")
    try:
        before = read_pool(GIB).whole
    except UnsupportedError as error:
        pytest.skip(str(error))
    if before.total or settings.set(name, 1) != "1":
        settings.set(name, before.total)
        pytest.skip("a 1G page to be had")
    yield
    settings.set(name, before.total)


def test_pages_of_1g(giant: None, host: LiveHost) -> None:
    memory = host.hugetlb("2G", "1G")
    with pytest.raises(PoolExhausted) as caught:
        memory.allocate(HUGE, "2G")
    assert caught.value.done == (GIB - HUGE) // PAGE
    memory.write(0, 4 * PAGE, b"g")
    assert memory.address % GIB == 0
    memory.punch_hole(0, HUGE)  # only zeroes
    assert memory.tags()[:5] == bytes(5)
    assert memory.usage() == Usage(2 * GIB, GIB, 0, 0, 0, 0, HUGE, 0)
    assert memory.layout() == [Extent(0, GIB, GIB, False), Extent(GIB, GIB, 0, False)]
    memory.punch_hole(0, GIB)
    assert memory.usage().charged == memory.usage().stranded == 0
