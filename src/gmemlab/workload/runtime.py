"""What happens while guests run: shared pages, pins, transient references, memory given back; and the host's own churn.

Everything is drawn as *episodes*: a slot (a page of a guest, a chunk of the host's memory) is used from a start to a
stop.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from gmemlab.core.layout import (
    BLOCK_PAGES,
    OP_ACCESS,
    OP_HOST_ALLOCATE,
    OP_HOST_FREE,
    OP_PIN,
    OP_PUNCH,
    OP_REFERENCE,
    OP_TO_PRIVATE,
    OP_TO_SHARED,
    OP_UNPIN,
    OP_UNREFERENCE,
    PAGE_SIZE,
)
from gmemlab.units import GIB, HOUR
from gmemlab.workload.boot import Booted, Bounce
from gmemlab.workload.memory_layout import Ranges, take, total
from gmemlab.workload.schema import Background, Boot, Pins, Reporting, Runtime, Scenario, Swiotlb
from gmemlab.workload.stream import (
    ARG_ACCEPT_2M,
    ARG_ACCEPT_4K,
    ARG_SHARED,
    Bools,
    Events,
    Ints,
    in_order,
    join,
    rows,
    weave,
)

TOUCH_STEPS: Final = 32  # in how many steps a guest goes on accepting memory after boot
SPARE_SLOTS: Final = 16


@dataclass(frozen=True)
class Episodes:
    """Uses of slots, by start; one slot's uses do not overlap.

    Attributes:
        slot: index of the slot.
        start: ns.
        before: ns, the last moment before the same slot's next use.
    """

    slot: Ints
    start: Ints
    before: Ints

    def stop(self, start: Ints, hold: int, rng: np.random.Generator) -> Ints:
        """Return times that are an exponential time of mean `hold` ns after `start`, before the slot's next use."""
        later = start + rng.exponential(hold, len(start)).astype(np.int64)
        return np.maximum(np.minimum(later, self.before), start)


def episodes(starts: Ints, slots: int) -> Episodes:
    """Return episodes with these starts that use the slots in turn."""
    index = np.arange(len(starts), dtype=np.int64)
    before = np.full(len(starts), np.iinfo(np.int64).max, np.int64)
    if 0 < slots < len(starts):
        before[:-slots] = starts[slots:] - 1
    return Episodes(index % max(slots, 1), starts, before)


def running(booted: Booted, scenario: Scenario, pages: int, end: int, rng: np.random.Generator) -> Events:
    """Return the events of a guest (vm 0, times since its creation) from ready on.

    Args:
        booted: how it came up.
        scenario: all its settings.
        pages: size of the guest.
        end: ns since creation when the guest or the scenario ends; later events are not wanted.
        rng: where all chance comes from.
    """
    ready = scenario.boot.time
    blocks = _blocks(booted.accepted)
    parts = [_touching(booted.untouched, scenario.boot), _growing(booted.swiotlb, scenario.swiotlb, ready)]
    used = np.zeros(0, np.int64)
    if scenario.pins is not None and (pinned := round(booted.swiotlb.touched * scenario.pins.swiotlb)):
        parts.append(rows(0, OP_PIN, ready, booted.swiotlb.first, pinned))
    if scenario.runtime is not None and len(blocks) and end > ready:
        shared, used = shared_pages(scenario, scenario.runtime, blocks, pages, (ready, end), rng)
        parts.append(shared)
    if scenario.reporting is not None and len(blocks) and end > ready:
        parts.append(reported(scenario.reporting, blocks, used, pages, (ready, end), rng))
    events = in_order(join(parts))
    return events[: np.searchsorted(events["time"], end)]


def shared_pages(
    scenario: Scenario,
    settings: Runtime,
    blocks: Ints,
    guest_pages: int,
    window: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[Events, Ints]:
    """Return the run-time conversions of a guest, and the first pages of the places that they use.

    A page that is pinned beyond its release is converted back twice: once when it is released, which fails where pins
    matter (G45), and again after the pin has gone.

    Args:
        scenario: for pins (P6) and transient references (K24).
        settings: rate, placement and return (P1, P9).
        blocks: 2 MiB blocks of the guest's file that may be used.
        guest_pages: size of the guest.
        window: first and last time, ns since creation.
        rng: where all chance comes from.
    """
    hourly = settings.rate_per_gib_hour * guest_pages * PAGE_SIZE / GIB + settings.rate_per_guest_hour
    starts = _poisson(hourly, window, rng)
    room = len(blocks) * (BLOCK_PAGES // settings.pages)
    if settings.returns_private:
        pins_hold = scenario.pins.hold if scenario.pins else 0
        # twice the mean number in use, so that an episode is hardly ever cut short by the next one in its place
        wanted = int(2 * hourly * (settings.hold + pins_hold) / HOUR) + SPARE_SLOTS
        slots = min(room, wanted if settings.placement == "packed" else len(starts))
    else:
        starts = starts[:room]
        slots = len(starts)
    places = _places(settings, blocks, slots, rng)
    use = episodes(starts, slots)
    first = places[use.slot] if slots else starts
    return _conversions(scenario, settings, use, first, rng), places


def _conversions(scenario: Scenario, settings: Runtime, use: Episodes, first: Ints, rng: np.random.Generator) -> Events:
    """Return the events of all conversions of one guest."""
    count = settings.pages
    pinned, unpin = _pins(scenario.pins, use, rng)
    referenced = rng.random(len(first)) < (scenario.references.per_punch if scenario.references else 0.0)
    block = first // BLOCK_PAGES * BLOCK_PAGES
    other = block + (first - block + count + rng.integers(0, max(BLOCK_PAGES - count, 1), len(first))) % BLOCK_PAGES
    referenced &= count < BLOCK_PAGES
    release = use.stop(use.start, settings.hold, rng)
    back = settings.returns_private
    late = pinned & (unpin >= release)
    return weave(
        [
            (rows(0, OP_REFERENCE, use.start, other, 1), referenced),
            (rows(0, OP_TO_SHARED, use.start, first, count), True),
            (rows(0, OP_UNREFERENCE, use.start, other, 1), referenced),
            (rows(0, OP_ACCESS, use.start, first, count, ARG_SHARED), True),
            (rows(0, OP_PIN, use.start, first, count), pinned),
            (rows(0, OP_TO_PRIVATE, release, first, count), back),
            (rows(0, OP_UNPIN, unpin, first, count), pinned),
            (rows(0, OP_TO_PRIVATE, unpin, first, count), late & back),
            (rows(0, OP_ACCESS, np.where(late, unpin, release), first, count, ARG_ACCEPT_4K), back),
        ]
    )


def _pins(settings: Pins | None, use: Episodes, rng: np.random.Generator) -> tuple[Bools, Ints]:
    """Return which episodes pin their pages, and until when (P6)."""
    if settings is None:
        return np.zeros(len(use.start), np.bool_), use.start
    return rng.random(len(use.start)) < settings.share, use.stop(use.start, settings.hold, rng)


def _places(settings: Runtime, blocks: Ints, count: int, rng: np.random.Generator) -> Ints:
    """Return the first pages of so many places for shared pages (P9).

    Scattered: drawn without repetition from all of the blocks. Packed: side by side from a random block on.
    """
    each = BLOCK_PAGES // settings.pages
    if settings.placement == "scattered":
        place = rng.choice(len(blocks) * each, count, replace=False)
    else:
        place = (np.arange(count) + rng.integers(0, len(blocks)) * each) % (len(blocks) * each)
    return blocks[place // each] * BLOCK_PAGES + place % each * settings.pages


def reported(
    settings: Reporting,
    blocks: Ints,
    used: Ints,
    guest_pages: int,
    window: tuple[int, int],
    rng: np.random.Generator,
) -> Events:
    """Return what a guest gives back: a punch of each reported block, and its acceptance when it is used again.

    Blocks that hold run-time shared pages are never free, hence never reported. Blocks of order 9 are accepted again in
    2 MiB units, smaller ones in 4 KiB units.

    Args:
        settings: order, batch (W24, W25), share and hold (P5).
        blocks: 2 MiB blocks of the guest's file that may be used.
        used: pages that run-time sharing occupies.
        guest_pages: size of the guest.
        window: first and last time, ns since creation.
        rng: where all chance comes from.
    """
    size = 1 << settings.order
    each = BLOCK_PAGES // size
    chunks = (blocks[:, None] * each + np.arange(each)).reshape(-1)
    chunks = rng.permutation(np.setdiff1d(chunks, used // size))
    batches = _poisson(settings.share_per_hour * guest_pages / size / settings.batch, window, rng)
    starts = np.repeat(batches, settings.batch) if len(chunks) else batches[:0]
    if len(chunks) < settings.batch:
        starts = batches[:0]
    use = episodes(starts, len(chunks))
    first = chunks[use.slot] * size if len(starts) else starts
    again = use.stop(starts, settings.hold, rng)
    accept = ARG_ACCEPT_2M if size == BLOCK_PAGES else ARG_ACCEPT_4K
    return weave([(rows(0, OP_PUNCH, starts, first, size), True), (rows(0, OP_ACCESS, again, first, size, accept), True)])


def background(settings: Background, vm: int, pages: int, duration: int, rng: np.random.Generator) -> Events:
    """Return the host's own memory of one kind: all of it allocated at the start, then churned in chunks (P7).

    Args:
        settings: rate and chunk.
        vm: HOST_UNMOVABLE or HOST_MOVABLE.
        pages: size of the background file, a multiple of the chunk.
        duration: ns.
        rng: where all chance comes from.
    """
    if pages == 0:
        return join([])
    size = settings.chunk // PAGE_SIZE
    chunks = rng.permutation(pages // size).astype(np.int64)
    starts = _poisson(settings.churn_per_hour * len(chunks), (0, duration), rng)
    use = episodes(starts, len(chunks))
    first = chunks[use.slot] * size
    again = use.stop(starts, settings.hold, rng)
    churn = weave([(rows(vm, OP_HOST_FREE, starts, first, size), True), (rows(vm, OP_HOST_ALLOCATE, again, first, size), True)])
    return join([rows(vm, OP_HOST_ALLOCATE, 0, 0, pages), churn[: np.searchsorted(churn["time"], duration)]])


def _touching(untouched: Ranges, settings: Boot) -> Events:
    """Return the guest's further accepts after boot, in 2 MiB units, ascending, evenly over `touch_time` (P5)."""
    if settings.touched >= 1:
        return join([])
    wanted = (settings.touched_final - settings.touched) / (1 - settings.touched)
    blocks = round(total(untouched) // BLOCK_PAGES * wanted)
    parts = []
    done = 0
    for step in range(1, TOUCH_STEPS + 1):
        goal = blocks * step // TOUCH_STEPS
        taken, untouched = take(untouched, (goal - done) * BLOCK_PAGES)
        time = settings.time + settings.touch_time * step // TOUCH_STEPS
        parts += [rows(0, OP_ACCESS, time, start, end - start, ARG_ACCEPT_2M) for start, end in taken]
        done = goal
    return join(parts)


def _growing(swiotlb: Bounce, settings: Swiotlb, ready: int) -> Events:
    """Return the growth of the bounce buffers, downwards from where they are (W10)."""
    parts = []
    top, step = swiotlb.first, settings.growth_step // PAGE_SIZE
    time = ready
    while top > swiotlb.floor:
        count = min(step, top - swiotlb.floor)
        top -= count
        time += settings.growth_interval
        parts += [rows(0, OP_TO_SHARED, time, top, count), rows(0, OP_ACCESS, time, top, count, ARG_SHARED)]
    return join(parts)


def _poisson(hourly: float, window: tuple[int, int], rng: np.random.Generator) -> Ints:
    """Return the times of a Poisson process within a window (ns), ascending."""
    begin, end = window
    count = int(rng.poisson(hourly * (end - begin) / HOUR))
    return np.sort(rng.integers(begin + 1, max(end, begin + 2), count))


def _blocks(ranges: Ranges) -> Ints:
    """Return the 2 MiB blocks of ranges that consist of whole ones."""
    parts = [np.arange(start // BLOCK_PAGES, end // BLOCK_PAGES, dtype=np.int64) for start, end in ranges]
    return np.concatenate([np.zeros(0, np.int64), *parts])
