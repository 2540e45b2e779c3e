"""Watching one guest page through a scenario: which term of K8 limits its mapping, and which event made it so."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gmemlab.core import layout, measure
from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, HUGE_MAPPED
from gmemlab.core.state import State
from gmemlab.errors import UsageError
from gmemlab.lab.simulate import Progress, Simulation
from gmemlab.model.host import Host
from gmemlab.model.observe import PageView, file_pages
from gmemlab.policy import Policy
from gmemlab.workload.trace import Trace


@dataclass(frozen=True)
class Change:
    """The limiting term of the watched page changed, or its 2 MiB mapping came or went.

    Attributes:
        time_ns: when.
        event: number of the event in the stream.
        op: the event's operation (OP_*).
        first: its first page.
        count: its pages.
        arg: its argument.
        term: the limiting term afterwards (TERM_*).
        was: the limiting term before.
        mapped_2m: whether the guest maps the page with a 2 MiB entry afterwards.
    """

    time_ns: int
    event: int
    op: int
    first: int
    count: int
    arg: int
    term: int
    was: int
    mapped_2m: bool


@dataclass(frozen=True)
class Watch:
    """The history of one guest page, and its state at the end (or when its guest was destroyed).

    Attributes:
        page: its number in the guest's file.
        changes: what changed, in order.
        final_term: the limiting term.
        folio_order: order of its folio; -1 without one.
        present: whether it is backed.
        shared: its attribute.
        mapped: whether the guest maps it as private.
        host_mapped: whether the VMM maps it.
        shared_term: what limits its mapping as shared memory (K9).
    """

    page: int
    changes: tuple[Change, ...]
    final_term: int
    folio_order: int
    present: bool
    shared: bool
    mapped: bool
    host_mapped: bool
    shared_term: int


@dataclass(frozen=True)
class _View:
    term: int
    shared_term: int
    mapped_2m: bool
    page: PageView


def page_of_gfn(trace: Trace, vm: int, gfn: int) -> int:
    """File page behind a guest frame. UsageError for an unknown guest, or a frame that is no memory of it."""
    if not 0 <= vm < len(trace.guests):
        raise UsageError("no such guest", key="vm", value=str(vm), allowed=f"0 to {len(trace.guests) - 1}")
    guest = trace.guests[vm]
    ranges = []
    for start, count, offset in zip(guest["slot_gfn"], guest["slot_count"], guest["slot_offset"], strict=True):
        if start <= gfn < start + count:
            return int(offset + gfn - start)
        if count:
            ranges.append(f"{start:#x}-{start + count - 1:#x}")
    raise UsageError("the guest has no memory there", key="gfn", value=f"{gfn:#x}", allowed=", ".join(ranges))


def watch(host: Host, trace: Trace, policy: Policy, vm: int, gfn: int, progress: Progress | None = None) -> Watch:
    """Run a trace and stop after each event that can touch the 2 MiB around guest frame `gfn` of guest `vm`."""
    page = page_of_gfn(trace, vm, gfn)
    simulation = Simulation(host, trace, policy)
    seen = _View(layout.TERM_ABSENT, layout.TERM_ABSENT, False, PageView(page, 0, -1, 0, 0, 0, 0, 0, 0))
    changes: list[Change] = []
    for number in _touching(trace, vm, page, policy.is_repaired_by("collapse")):
        simulation.run_to(number)
        if int(trace.events[number]["op"]) == layout.OP_DESTROY:
            break
        simulation.run_to(number + 1)
        if progress:
            progress(number / len(trace.events))
        if simulation.vms[vm].status not in (layout.VM_LAUNCHING, layout.VM_READY):
            break
        view = _look(simulation.host.state, int(simulation.vms[vm].file), page)
        if (view.term, view.mapped_2m) != (seen.term, seen.mapped_2m):
            changes.append(_change(trace, number, page, seen, view))
        seen = view
    end = seen.page
    return Watch(
        page,
        tuple(changes),
        seen.term,
        end.order,
        end.pfn > 0,
        bool(end.shared),
        bool(end.mapped),
        bool(end.host_mapped),
        seen.shared_term,
    )


def _touching(trace: Trace, vm: int, page: int, scanned: bool) -> Iterator[int]:
    """Numbers of the guest's events that reach into the 2 MiB around a page, and of khugepaged's in its life; ascending."""
    first = page & ~(BLOCK_PAGES - 1)
    events = trace.events
    reach = (events["first"] < first + BLOCK_PAGES) & (events["first"] + events["count"] > first)
    life = np.isin(events["op"], (layout.OP_CREATE, layout.OP_DESTROY))
    mine = (events["vm"] == vm) & (events["op"] != layout.OP_SAMPLE) & (reach | life)
    if scanned and mine.any():
        lives = np.arange(len(events)) > int(mine.argmax())
        mine |= lives & (events["op"] == layout.OP_KHUGEPAGED)
    yield from np.flatnonzero(mine).tolist()


def _look(state: State, file: int, page: int) -> _View:
    """The watched page as it is."""
    block = state.file_blocks[int(state.files[file].first_block) + (page >> BLOCK_ORDER)]
    terms = int(measure.limit(state, file, page)), int(measure.limit_of_shared(state, file, page))
    return _View(*terms, bool(block.marks & HUGE_MAPPED), file_pages(state, file, page, 1)[0])


def _change(trace: Trace, number: int, page: int, before: _View, after: _View) -> Change:
    event = trace.events[number]
    scanned = int(event["op"]) == layout.OP_KHUGEPAGED
    return Change(
        time_ns=int(event["time"]),
        event=number,
        op=int(event["op"]),
        first=page & ~(BLOCK_PAGES - 1) if scanned else int(event["first"]),
        count=BLOCK_PAGES if scanned else int(event["count"]),
        arg=int(event["arg"]),
        term=after.term,
        was=before.term,
        mapped_2m=after.mapped_2m,
    )
