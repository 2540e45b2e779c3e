"""The events of one guest's boot.

The order is: creation, launch image, 4 KiB accepts of unaligned parts (W18) and of the two sweeps (W15), firmware's
accept of memory below 4 GiB (W20), the pages that are converted back and forth (W16), swiotlb (W8), the kernel's share
of what is left (W18), ready. It is one guest image and one firmware: a case study.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from gmemlab.core.layout import (
    BLOCK_PAGES,
    OP_ACCESS,
    OP_CREATE,
    OP_READY,
    OP_SAMPLE,
    OP_TO_PRIVATE,
    OP_TO_SHARED,
    PAGE_SIZE,
)
from gmemlab.workload.memory_layout import MemoryLayout, Ranges, aligned, subtract, take, total
from gmemlab.workload.schema import Boot, Swiotlb
from gmemlab.workload.stream import (
    ARG_ACCEPT_2M,
    ARG_ACCEPT_4K,
    ARG_LAUNCH,
    ARG_SHARED,
    SAMPLE_READY,
    Events,
    Ints,
    join,
    rows,
    weave,
)

LAUNCH_IMAGE: Final = (0x800, 0x806)  # the rest of the first sweep's block: taken to be there before it runs (G76)
SWEEPS: Final = ((0x806, 0xA00), (0x7E800, 0x7EA00))  # accepted at 4 KiB, once each (W15): 506 and 512 pages
HOT_RANGE: Final = (0x7D3FF, 0x7E7FF)  # converted back and forth (W15)
HOT_PAGES: Final = ((0x7D9D7, 974), (0x7D9DA, 476), (0x7D9D9, 156))  # how often (W16)
HOT_REST: Final = 86  # repeats elsewhere in the range (W16: 2710 - 506 - 512 - 974 - 476 - 156)
FIRMWARE_TOP: Final = HOT_RANGE[0] // BLOCK_PAGES * BLOCK_PAGES  # what firmware used lies above


@dataclass(frozen=True)
class Bounce:
    """Where a guest's swiotlb is, in pages.

    Attributes:
        first: the first page shared at boot.
        count: pages shared at boot.
        touched: the first so many of them are used.
        floor: it may grow down to this page.
    """

    first: int
    count: int
    touched: int
    floor: int


@dataclass(frozen=True)
class Booted:
    """A boot's events (vm 0, times in ns since creation) and the memory that they leave.

    Attributes:
        events: from OP_CREATE to OP_READY and the sample that follows it.
        accepted: private pages in use, whole 2 MiB ranges, apart from swiotlb and its growth.
        untouched: pages not accepted so far, whole 2 MiB ranges.
        swiotlb: where the bounce buffers are.
    """

    events: Events
    accepted: Ranges
    untouched: Ranges
    swiotlb: Bounce


def boot(layout: MemoryLayout, settings: Boot, bounce: Swiotlb, rng: np.random.Generator) -> Booted:
    """Return how a guest of this layout comes up; its events are spread evenly over the time it takes."""
    swiotlb = place_swiotlb(layout, bounce, rng)
    whole, unaligned = aligned(layout.memory, BLOCK_PAGES)
    firmware = settings.firmware == "w14"
    swept = tuple(sweep for sweep in SWEEPS if firmware and sweep[1] <= layout.low)
    for _, end in swept:
        whole = subtract(whole, end - BLOCK_PAGES, end)
    early = _early(whole, layout.low, settings, swiotlb)
    late = whole
    for start, end in early:
        late = subtract(late, start, end)
    touched, untouched = take(late, round(total(late) * settings.touched) // BLOCK_PAGES * BLOCK_PAGES)
    parts = [
        rows(0, OP_CREATE, 0),
        _accesses((LAUNCH_IMAGE,) if swept else (), ARG_LAUNCH),
        _accesses(unaligned, ARG_ACCEPT_4K),
        _accesses(swept, ARG_ACCEPT_4K),
        _accesses(early, ARG_ACCEPT_2M),
        _back_and_forth(_hot_pages(layout.low, rng) if firmware else np.zeros(0, np.int64)),
        rows(0, OP_TO_SHARED, 0, swiotlb.first, swiotlb.count),
        _accesses(((swiotlb.first, swiotlb.first + swiotlb.touched),) if swiotlb.touched else (), ARG_SHARED),
        _accesses(touched, ARG_ACCEPT_2M),
        rows(0, OP_READY, 0),
        rows(0, OP_SAMPLE, 0, arg=SAMPLE_READY),
    ]
    events = join(parts)
    steps = len(events) - 2  # ready and its sample come at the same time
    events["time"] = np.minimum(np.arange(len(events)), steps) * settings.time // steps
    private = subtract((*early, *touched), swiotlb.floor, swiotlb.first + swiotlb.count)
    return Booted(events, aligned(private, BLOCK_PAGES)[0], untouched, swiotlb)


def swiotlb_pages(memory_bytes: int, settings: Swiotlb) -> int:
    """Return how many pages the bounce buffers have (W8: 6 % of memory, clamped to 64 MiB .. 1 GiB)."""
    wanted = min(max(int(memory_bytes * settings.share), settings.smallest), settings.largest)
    unit = BLOCK_PAGES if settings.aligned else 1
    return -(-wanted // (PAGE_SIZE * unit)) * unit


def place_swiotlb(layout: MemoryLayout, settings: Swiotlb, rng: np.random.Generator) -> Bounce:
    """Return where the bounce buffers go: as high as they can below the top that is configured, in low memory.

    Unaligned buffers end 1 to 511 pages below that top, drawn from the generator. They never reach below 10 MiB.
    """
    count = swiotlb_pages(layout.pages * PAGE_SIZE, settings)
    top = layout.low // BLOCK_PAGES * BLOCK_PAGES
    if settings.place == "below-firmware":
        top = min(top, FIRMWARE_TOP)
    if not settings.aligned:
        top -= int(rng.integers(1, BLOCK_PAGES))
    bottom = SWEEPS[0][1]
    count = min(count, top - bottom)
    first = top - count
    floor = max(bottom, first - settings.growth_limit // PAGE_SIZE)
    return Bounce(first, count, round(count * settings.touched), floor)


def _early(whole: Ranges, low: int, settings: Boot, swiotlb: Bounce) -> Ranges:
    """Return what is accepted in 2 MiB units before swiotlb is converted.

    That is all memory, low memory, or just swiotlb with the room for its growth: the boot allocator accepts what it
    hands out.
    """
    end = whole[-1][1]
    if settings.accept == "eager":
        return whole
    if settings.firmware_accepts_low:
        return subtract(whole, low, end)
    bottom = swiotlb.floor // BLOCK_PAGES * BLOCK_PAGES
    top = -(-(swiotlb.first + swiotlb.count) // BLOCK_PAGES) * BLOCK_PAGES
    return subtract(subtract(whole, 0, bottom), top, end)


def _accesses(ranges: Ranges, arg: int) -> Events:
    starts = np.array([start for start, _ in ranges], np.int64)
    counts = np.array([end - start for start, end in ranges], np.int64)
    return rows(0, OP_ACCESS, np.zeros(len(ranges), np.int64), starts, counts, arg)


def _hot_pages(low: int, rng: np.random.Generator) -> Ints:
    """Return the pages of HOT_RANGE once per conversion, in the order in which they are converted.

    W16 gives three pages; the other repeats are drawn evenly from the rest of the range. Pages beyond a small guest's
    low memory are left out.
    """
    hottest = np.array([page for page, _ in HOT_PAGES], np.int64)
    others = np.setdiff1d(np.arange(*HOT_RANGE, dtype=np.int64), hottest)
    repeats = np.repeat(hottest, [count for _, count in HOT_PAGES])
    pages = rng.permutation(np.concatenate([repeats, rng.choice(others, HOT_REST)]))
    return pages[pages < low]


def _back_and_forth(pages: Ints) -> Events:
    """Return, for each page: conversion to shared, use, conversion back, 4 KiB accept."""
    time = np.arange(len(pages))  # keeps the procedures apart; the caller sets the real times
    return weave(
        [
            (rows(0, OP_TO_SHARED, time, pages, 1), True),
            (rows(0, OP_ACCESS, time, pages, 1, ARG_SHARED), True),
            (rows(0, OP_TO_PRIVATE, time, pages, 1), True),
            (rows(0, OP_ACCESS, time, pages, 1, ARG_ACCEPT_4K), True),
        ]
    )
