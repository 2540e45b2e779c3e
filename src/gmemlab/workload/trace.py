"""A scenario turned into a stream of events."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from gmemlab.core.layout import (
    BLOCK_PAGES,
    GUEST,
    HOST_MOVABLE,
    HOST_UNMOVABLE,
    OP_CREATE,
    OP_DESTROY,
    OP_HOST_ALLOCATE,
    OP_HOST_FREE,
    OP_KCOMPACTD,
    OP_KHUGEPAGED,
    OP_SAMPLE,
    PAGE_SIZE,
)
from gmemlab.units import format_size
from gmemlab.workload.assumptions import assumptions
from gmemlab.workload.boot import boot
from gmemlab.workload.fleet import Fleet, populate
from gmemlab.workload.memory_layout import flat, q35
from gmemlab.workload.runtime import background, running
from gmemlab.workload.schema import Daemons, Scenario
from gmemlab.workload.stream import NO_VM, SAMPLE_PERIODIC, Events, Ints, in_order, join, rows
from gmemlab.workload.ticks import ticks

_FLEET_STREAM: Final = 0  # the seed's independent generators: the fleet, the host, then one per guest
_HOST_STREAM: Final = 1
_GUEST_STREAMS: Final = 2


@dataclass(frozen=True, eq=False)
class Trace:
    """Events by time, and the guests that they speak of.

    Attributes:
        events: EVENT records; `vm` indexes `guests`, is negative for the host, and NO_VM for daemons and periodic samples.
        guests: GUEST records: sizes and memslots.
        names: what to call each guest.
        assumptions: lines naming the figures and assumptions that the stream rests on.
        background_pages: size of the host's unmovable and movable background files.
        peak_guest_bytes: largest sum of live guests' sizes.
        duration_ns: length of simulated time.
        seed: what the stream was drawn from.
        not_admitted: guests that found the host full by their sizes and were not started.
        daemons: how those of the host work.
        cache_pages: page cache that the host has at the start.
        nodes: where guests' memory comes from on a host of several NUMA nodes: local, bind or interleave.
        hardware: what all guests have (`model.guests.GUESTS`).
    """

    events: Events
    guests: Events
    names: tuple[str, ...]
    assumptions: tuple[str, ...]
    background_pages: tuple[int, int]
    peak_guest_bytes: int
    duration_ns: int
    seed: int
    not_admitted: int
    daemons: Daemons = field(default_factory=Daemons)
    cache_pages: int = 0
    nodes: str = "local"
    hardware: str = "generic"


def generate(scenario: Scenario, host_free_bytes: int, seed: int) -> Trace:
    """Return the events of a scenario on a host with so many free bytes at the start.

    Guests that live beyond the end are not destroyed in the stream. The same arguments give the same stream.

    Raises:
        UsageError: the scenario is larger than the host.
    """
    unmovable, movable = _background_pages(scenario, host_free_bytes)
    usable = host_free_bytes - (unmovable + movable) * PAGE_SIZE
    duration = scenario.duration
    fleet = populate(scenario.guests, host_free_bytes, usable, duration, _generator(seed, _FLEET_STREAM))
    guests = np.zeros(len(fleet.sizes), GUEST)
    parts = [_host(scenario, unmovable, movable, seed)]
    for index in range(len(guests)):
        rng = _generator(seed, _GUEST_STREAMS + index)
        parts.append(_guest(scenario, fleet, index, guests[index], rng))
    parts.append(ticks(scenario.daemons, duration))
    parts.append(rows(NO_VM, OP_SAMPLE, _sample_times(duration, scenario.sample_interval), arg=SAMPLE_PERIODIC))
    return Trace(
        events=in_order(join(parts)),
        guests=guests,
        names=tuple(f"guest-{index}-{format_size(int(size))}" for index, size in enumerate(fleet.sizes)),
        assumptions=assumptions(scenario, fleet.too_large),
        background_pages=(unmovable, movable),
        peak_guest_bytes=fleet.peak_bytes(),
        duration_ns=duration,
        seed=seed,
        not_admitted=fleet.not_admitted,
        daemons=scenario.daemons,
        cache_pages=_cache_pages(scenario, host_free_bytes),
        nodes=scenario.guests.nodes,
        hardware=scenario.guests.hardware,
    )


def order_faults(trace: Trace) -> tuple[str, ...]:
    """Return what is wrong with the order of a stream, in words; nothing if it is sound.

    Times ascend within the duration; each guest is created once, nothing of it comes earlier, and nothing after it is
    destroyed; ranges lie inside its file; host events stay inside the background files.
    """
    events = trace.events
    faults = []
    if len(events) and (np.any(np.diff(events["time"]) < 0) or events["time"][0] < 0):
        faults.append("times do not ascend")
    if len(events) and events["time"][-1] > trace.duration_ns:
        faults.append("an event comes after the end")
    sizes = dict(zip((HOST_UNMOVABLE, HOST_MOVABLE), trace.background_pages, strict=True))
    sizes |= {index: int(pages) for index, pages in enumerate(trace.guests["pages"])}
    order = np.argsort(events["vm"], kind="stable")
    vms, starts = np.unique(events["vm"][order], return_index=True)
    for vm, own in zip(vms.tolist(), np.split(events[order], starts[1:]), strict=True):
        faults += [f"vm {vm}: {fault}" for fault in _vm_faults(vm, own, sizes.get(vm))]
    return tuple(faults)


def _vm_faults(vm: int, own: Events, pages: int | None) -> list[str]:
    """Return what is wrong with the events of one vm, in stream order."""
    if vm == NO_VM:
        known = np.isin(own["op"], (OP_SAMPLE, OP_KHUGEPAGED, OP_KCOMPACTD))
        return [] if np.all(known) else ["not a sample, nor a daemon's"]
    if pages is None:
        return ["no such vm"]
    faults = []
    if np.any((own["first"] < 0) | (own["count"] < 0) | (own["first"] + own["count"] > pages)):
        faults.append("a range leaves the file")
    if vm < 0:
        known = (own["op"] == OP_HOST_ALLOCATE) | (own["op"] == OP_HOST_FREE)
        return faults if np.all(known) else [*faults, "not an operation of the host"]
    if list(np.flatnonzero(own["op"] == OP_CREATE)) != [0]:
        faults.append("creation is not its first event")
    if list(np.flatnonzero(own["op"] == OP_DESTROY)) not in ([], [len(own) - 1]):
        faults.append("destruction is not its last event")
    return faults


def _generator(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, stream))))


def _cache_pages(scenario: Scenario, free_bytes: int) -> int:
    """Return the size of the page cache, in pages, whole 2 MiB blocks. Guests can have it."""
    share = scenario.background.cache if scenario.background else 0
    return int(free_bytes // PAGE_SIZE // BLOCK_PAGES * share) * BLOCK_PAGES


def _background_pages(scenario: Scenario, free_bytes: int) -> tuple[int, int]:
    """Return the sizes of the background files, in pages, whole 2 MiB blocks."""
    settings = scenario.background
    if settings is None:
        return 0, 0
    blocks = free_bytes // PAGE_SIZE // BLOCK_PAGES
    return int(blocks * settings.unmovable) * BLOCK_PAGES, int(blocks * settings.movable) * BLOCK_PAGES


def _host(scenario: Scenario, unmovable: int, movable: int, seed: int) -> Events:
    if scenario.background is None:
        return join([])
    rng = _generator(seed, _HOST_STREAM)
    kinds = ((HOST_UNMOVABLE, unmovable), (HOST_MOVABLE, movable))
    return join([background(scenario.background, vm, pages, scenario.duration, rng) for vm, pages in kinds])


def _guest(scenario: Scenario, fleet: Fleet, index: int, record: np.void, rng: np.random.Generator) -> Events:
    """Return all events of one guest, in causal order, and fill its record."""
    pages = int(fleet.sizes[index]) // PAGE_SIZE
    layout = q35(pages) if scenario.guests.machine == "q35" else flat(pages)
    layout.fill(record)
    created, destroyed = int(fleet.created[index]), int(fleet.destroyed[index])
    end = min(destroyed, scenario.duration) - created
    booted = boot(layout, scenario.boot, scenario.swiotlb, rng)
    life = join([booted.events[booted.events["time"] < end], running(booted, scenario, pages, end, rng)])
    life["time"] += created
    life["vm"] = index
    if destroyed > scenario.duration:
        return life
    return join([life, rows(index, OP_DESTROY, destroyed)])


def _sample_times(duration: int, interval: int) -> Ints:
    """Return the times of periodic samples: every interval, and the end."""
    times = np.arange(interval, duration, interval, dtype=np.int64)
    return np.append(times, np.int64(duration))
