"""Memslots by hand-worked numbers (K10), and what holds for all of them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmemlab.core.layout import GUEST
from gmemlab.errors import UsageError
from gmemlab.workload.memory_layout import MemoryLayout, Slot, aligned, flat, gfn_to_page, q35, subtract, take, total

GIB_PAGES = 262_144


def test_q35_of_4_gib() -> None:
    layout = q35(4 * GIB_PAGES)
    assert layout.low == 0x80000
    assert layout.slots == (Slot(0, 0xA0, 0), Slot(0xC0, 0x80000 - 0xC0, 0xC0), Slot(0x100000, 0x80000, 0x80000))


def test_q35_below_2_75_gib_has_no_high_memory() -> None:
    layout = q35(2 * GIB_PAGES + 0x2000)
    assert layout.slots == (Slot(0, 0xA0, 0), Slot(0xC0, 0x82000 - 0xC0, 0xC0))
    assert len(q35(0xB0000 - 1).slots) == 2
    assert q35(0xB0000).slots[2] == Slot(0x100000, 0x30000, 0x80000)


def test_record_holds_the_slots() -> None:
    guests = np.zeros(1, GUEST)
    q35(4 * GIB_PAGES).fill(guests[0])
    assert guests["pages"][0] == 4 * GIB_PAGES
    assert guests["slot_gfn"][0].tolist() == [0, 0xC0, 0x100000, 0]
    assert guests["slot_count"][0].tolist() == [0xA0, 0x7FF40, 0x80000, 0]
    assert guests["slot_offset"][0].tolist() == [0, 0xC0, 0x80000, 0]
    with pytest.raises(ValueError, match="5 memslots"):
        MemoryLayout(5, 5, tuple(Slot(i, 1, i) for i in range(5))).fill(guests[0])


def test_addresses_without_memory() -> None:
    layout = q35(4 * GIB_PAGES)
    assert gfn_to_page(layout, 0x7D9D7) == 0x7D9D7
    assert gfn_to_page(layout, 0x100000) == 0x80000
    for gfn in (0xA0, 0xBF, 0x80000, 0xFFFFF, 0x180000, -1):
        with pytest.raises(UsageError, match="no memory there in a guest of 4G"):
            gfn_to_page(layout, gfn)


def test_too_small() -> None:
    with pytest.raises(ValueError, match="too few"):
        q35(0xC0)
    with pytest.raises(ValueError, match="too few"):
        flat(0)


@given(st.integers(0xC1, 1 << 32))
def test_every_page_has_one_address_except_the_hole(pages: int) -> None:
    layout = q35(pages)
    assert sum(slot.count for slot in layout.slots) == pages - 32
    edges = [(slot.gfn, slot.gfn + slot.count) for slot in layout.slots]
    assert all(before[1] <= after[0] for before, after in pairwise(edges))
    for slot in layout.slots:
        assert slot.gfn % 512 == slot.offset % 512
        assert gfn_to_page(layout, slot.gfn) == slot.offset
        assert gfn_to_page(layout, slot.gfn + slot.count - 1) == slot.offset + slot.count - 1
    assert flat(pages).memory == ((0, pages),)


RANGES = st.lists(st.integers(0, 5000), max_size=8, unique=True).map(
    lambda edges: tuple(zip(sorted(edges)[::2], sorted(edges)[1::2], strict=False))
)


def pages_of(ranges: tuple[tuple[int, int], ...]) -> set[int]:
    return {page for start, end in ranges for page in range(start, end)}


@given(RANGES, st.integers(0, 5000), st.integers(0, 5000))
def test_range_arithmetic(ranges: tuple[tuple[int, int], ...], start: int, end: int) -> None:
    pages = pages_of(ranges)
    assert total(ranges) == len(pages)
    assert pages_of(subtract(ranges, start, end)) == pages - set(range(start, end))
    first, rest = take(ranges, start)
    assert sorted(pages_of(first)) == sorted(pages)[:start]
    assert pages_of(rest) == pages - pages_of(first)
    whole, unaligned = aligned(ranges, 512)
    assert all(low % 512 == 0 and high % 512 == 0 for low, high in whole)
    assert pages_of(whole) | pages_of(unaligned) == pages
    assert total(whole) + total(unaligned) == len(pages)
