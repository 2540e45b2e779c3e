"""One scenario under one policy on one host: events in, samples and counters out."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gmemlab.core import layout, run
from gmemlab.core.layout import PAGE_SIZE
from gmemlab.core.sample import MEASURE, MEASURE_GUESTS
from gmemlab.core.state import Records, prefer_huge_pages, records
from gmemlab.model.daemons import DaemonSettings
from gmemlab.model.guests import Places, guest_code, note_rmpopt
from gmemlab.model.host import Host
from gmemlab.model.nodes import MODES, NodeUsage
from gmemlab.policy import Policy
from gmemlab.units import MILLISECOND, format_size, parse_size
from gmemlab.workload.schema import Daemons
from gmemlab.workload.stream import SAMPLE_READY
from gmemlab.workload.trace import Trace

SLICE_SECONDS: Final = 0.1  # how long the compiled core may run before Ctrl-C and progress are looked at
FIRST_BUDGET: Final = 1 << 18  # pages of work in the first slice; later ones follow what that took
LARGEST_BUDGET: Final = 1 << 34
LONG_RUN: Final = 10_000_000  # events, a week on 1 TiB: from here on it is worth what huge pages cost at first
Progress = Callable[[float], None]


@dataclass(frozen=True, eq=False)
class Run:
    """What one run gave.

    Attributes:
        policy: the policy of all guests.
        seed: of the event stream.
        times: nanoseconds of each periodic sample.
        samples: MEASURE records, one per periodic sample; the last one is the end of the scenario.
        ready: MEASURE_GUESTS records taken when a guest became ready.
        tally: TALLY_* counters at the end, before the guests that are left are torn down.
        operations: what the guests' hardware did, with the tear-down of those that were left (`Host.operations`).
        places: where page states lie, at the end, before the guests that are left are torn down.
        hardware: of the guests (`model.guests.GUESTS`).
        rmpopt_rebuilds: how often RMPOPT was asked about all of the host (`note_rmpopt`); None for guests other than SNP.
        hazards: what must not happen, and did: pages by kind, then by the operation that led to it (`Host.hazards`).
        after: the host when all guests have left.
        before: TALLY_* counters of the host before its pool has grown.
        start: the host before its pool has grown; for a pool that was taken at boot, the same host without it.
        filled: the host after that, before the first event.
        pool_bytes: what the pool holds; 0 without one.
        pool_wanted_bytes: what it was to hold.
        notes: what the reader must know.
        seconds: wall time.
        nodes: what each NUMA node has, by moment: `start`, `filled`, `end` and `after`.
    """

    policy: Policy
    seed: int
    times: NDArray[np.int64]
    samples: Records
    ready: Records
    tally: NDArray[np.int64]
    before: NDArray[np.int64]
    operations: Mapping[str, Mapping[str, int]]
    places: Places
    after: Any
    start: Any
    filled: Any
    pool_bytes: int
    pool_wanted_bytes: int
    notes: tuple[str, ...]
    seconds: float
    nodes: Mapping[str, tuple[NodeUsage, ...]] = field(default_factory=dict)
    hardware: str = "generic"
    rmpopt_rebuilds: int | None = None
    hazards: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


class Simulation:
    """A trace on its way through a host. `step` runs the core in slices; the caller may look at the state between.

    Attributes:
        samples: MEASURE records, one per periodic sample so far.
        times: nanoseconds of each of them.
        ready: MEASURE_GUESTS records taken when a guest became ready.
    """

    def __init__(self, host: Host, trace: Trace, policy: Policy) -> None:
        """Grow the policy's pool, or boot the host anew with it, and open the host's background files."""
        self.trace = trace
        self.policy = policy
        self.pool_wanted_bytes = _pool_size(host, trace, policy)
        self.host = host = _booted(host, policy, self.pool_wanted_bytes)
        if len(trace.events) >= LONG_RUN:
            prefer_huge_pages(host.state)
        self.before = host.state.tally.copy()
        self.pool_bytes = _grow_pool(host, policy, self.pool_wanted_bytes)
        self.row = host.policy_row(policy)
        self._hardware = guest_code(trace.hardware)
        host.set_daemons(_settings(trace.daemons))
        self.samples: list[Any] = []
        self.times: list[int] = []
        self.ready: list[Any] = []
        self.vms = np.zeros(max(1, len(trace.guests)), layout.VM).view(np.recarray)
        self.cursor = np.zeros(1, layout.CURSOR).view(np.recarray)
        sizes = (max(1, pages) * PAGE_SIZE for pages in trace.background_pages)
        files = [host.background(size, movable).file for size, movable in zip(sizes, (False, True), strict=True)]
        self._background = np.array(files, dtype=np.int64)
        self._read_cache(trace.cache_pages * PAGE_SIZE)
        self._events = records(trace.events)
        self._guests = records(trace.guests)
        self._budget = FIRST_BUDGET
        host.state.host[0].decayed = 0  # the stream's time starts
        host.state.host[0].guest_nodes = MODES[trace.nodes]

    def _read_cache(self, size: int) -> None:
        """Have the host read its page cache, before the first guest; it has watermarks then."""
        if not size:
            return
        if not self.host.has_watermarks:
            self.host.set_watermarks()
            self.host.notes += ("watermarks as Linux would set them, for the sake of the page cache",)
        before = int(self.host.state.tally[layout.TALLY_ALLOCATED])
        cache = self.host.page_cache(size)
        cache.allocate()
        self.host.state.tally[layout.TALLY_HOST_ALLOCATED] += self.host.state.tally[layout.TALLY_ALLOCATED] - before

    @property
    def event(self) -> int:
        """Number of the next event."""
        return int(self.cursor[0].event)

    def advance(self, end: int) -> bool:
        """Run one slice, at most up to event `end`. Returns whether the next event is a sample, which the caller skips."""
        started = time.perf_counter()
        sample: bool = run.run(
            self.host.state,
            records(self._events[:end]),
            self.vms,
            self._guests,
            self._background,
            self.row,
            self._hardware,
            self.cursor,
            self._budget,
        )
        self.host.check_capacity()
        elapsed = max(time.perf_counter() - started, 1e-6)
        if not sample:
            self._budget = int(min(LARGEST_BUDGET, max(FIRST_BUDGET / 4, self._budget * min(2.0, SLICE_SECONDS / 2 / elapsed))))
        return sample

    def step(self, end: int) -> None:
        """`advance`, and the sample that the next event asks for, if it does."""
        if not self.advance(end):
            return
        event = self.trace.events[self.event]
        if event["arg"] != SAMPLE_READY:
            self.samples.append(self.host.measure())
            self.times.append(int(event["time"]))
        elif self.vms[event["vm"]].status == layout.VM_READY:
            self.ready.append(self.host.measure_guests())
        self.skip()

    def skip(self) -> None:
        """Step over the event that the cursor stands on."""
        self.cursor[0].event += 1

    def run_to(self, end: int) -> None:
        """Execute all events before number `end`; samples are passed over."""
        while self.event < end:
            if self.advance(end):
                self.skip()

    def leave(self) -> None:
        """Destroy the guests that are still alive."""
        alive = np.flatnonzero(np.isin(self.vms.status, (layout.VM_LAUNCHING, layout.VM_READY)))
        events = np.zeros(len(alive), layout.EVENT).view(np.recarray)
        events.vm = alive
        events.op = layout.OP_DESTROY
        self._events = records(events)
        self.cursor[:] = np.zeros(1, layout.CURSOR)
        self.run_to(len(events))


def simulate(host: Host, trace: Trace, policy: Policy, progress: Progress | None = None) -> Run:
    """Run a trace under a policy. The host is used up.

    Args:
        host: a fresh host.
        trace: the events.
        policy: how guests' memory is backed.
        progress: called with the share of events done, at least ten times a second.
    """
    started = time.perf_counter()
    start = host.measure()
    nodes = {"start": tuple(host.nodes())}
    simulation = Simulation(host, trace, policy)
    host = simulation.host
    filled = host.measure()
    nodes["filled"] = tuple(host.nodes())
    total = len(trace.events)
    while simulation.event < total:
        simulation.step(total)
        if progress:
            progress(simulation.event / total)
    tally, places = host.state.tally.copy(), host.places()
    nodes["end"] = tuple(host.nodes())
    rebuilds = note_rmpopt(host.state, places.regions, _departures(simulation)) if trace.hardware == "snp" else None
    simulation.leave()
    nodes["after"] = tuple(host.nodes())
    return Run(
        policy=policy,
        seed=trace.seed,
        times=np.array(simulation.times, dtype=np.int64),
        samples=_stack(simulation.samples, MEASURE),
        ready=_stack(simulation.ready, MEASURE_GUESTS),
        tally=tally,
        before=simulation.before,
        operations=host.operations(),
        places=places,
        after=host.measure(),
        start=start,
        filled=filled,
        pool_bytes=simulation.pool_bytes,
        pool_wanted_bytes=simulation.pool_wanted_bytes,
        notes=host.notes + _pool_notes(simulation) + _daemon_notes(simulation) + _node_notes(host, trace),
        seconds=time.perf_counter() - started,
        nodes=nodes,
        hardware=trace.hardware,
        rmpopt_rebuilds=rebuilds,
        hazards=host.hazards(),
    )


def _departures(simulation: Simulation) -> list[int]:
    """When guests left, ascending; those that are alive do at the end. Guests that failed to start count for nothing."""
    trace = simulation.trace
    gone = np.flatnonzero(simulation.vms.status == layout.VM_GONE)
    events = trace.events[trace.events["op"] == layout.OP_DESTROY]
    events = events[np.isin(events["vm"], gone)]
    alive = np.isin(simulation.vms.status, (layout.VM_LAUNCHING, layout.VM_READY)).any()
    return [*events["time"].tolist(), *([trace.duration_ns] if alive else [])]


def _stack(rows: list[Any], record: np.dtype[Any]) -> Records:
    """Measurements as one record array."""
    table = np.zeros(len(rows), record).view(np.recarray)
    for place, row in enumerate(rows):
        table[place] = row
    return table


def _booted(host: Host, policy: Policy, wanted: int) -> Host:
    """The host that a policy runs on: this one, or one like it that has taken the pool at boot."""
    if policy.pool_at != "boot":
        return host
    return host.rebooted({policy.unit: wanted // policy.unit}, policy.hvo == "on")


def _grow_pool(host: Host, policy: Policy, wanted: int) -> int:
    """Grow the policy's pool, unless it is there from boot on. Returns the bytes that it has."""
    if policy.source != "pool":
        return 0
    if policy.pool_at == "boot":
        return int(host.state.pools[int(policy.orders == (layout.GIGA_ORDER,))].nr) * policy.unit
    return host.grow_pool(policy.unit, wanted // policy.unit, hvo=policy.hvo == "on") * policy.unit


def _pool_size(host: Host, trace: Trace, policy: Policy) -> int:
    """Bytes that the pool shall have: a given size, a share of free memory, or what guests can hold at once; 0 without one."""
    if policy.source != "pool":
        return 0
    if policy.pool == "auto":
        blocks = trace.guests["pages"].astype(np.int64) * PAGE_SIZE
        rounded = float((-(-blocks // policy.unit) * policy.unit).sum()) / float(max(1, blocks.sum()))
        wanted = int(trace.peak_guest_bytes * rounded)
    elif policy.pool.endswith("%"):
        wanted = int(host.usable_bytes * float(policy.pool[:-1]) / 100)
    else:
        wanted = parse_size(policy.pool)
    return -(-wanted // policy.unit) * policy.unit


def _settings(daemons: Daemons) -> DaemonSettings:
    """A scenario's daemons in their own units."""
    return DaemonSettings(
        pages_to_scan=daemons.pages_to_scan,
        scan_sleep_millisecs=daemons.scan_sleep // MILLISECOND,
        alloc_sleep_millisecs=daemons.alloc_sleep // MILLISECOND,
        max_ptes_none=daemons.max_ptes_none,
        compaction_proactiveness=daemons.compaction_proactiveness,
    )


def _daemon_notes(simulation: Simulation) -> tuple[str, ...]:
    """What the reader must know about private memory that is moved (K16)."""
    policy = simulation.policy
    copies = int(simulation.host.state.tally[layout.TALLY_FIRMWARE_COPIES])
    if not policy.copies_private_memory or not copies:
        return ()
    return (f"{policy.name}: an upper bound: {copies:,} private 4K pages were copied by firmware, which no kernel does (K16)",)


def _node_notes(host: Host, trace: Trace) -> tuple[str, ...]:
    """Where guests are at home."""
    if host.nr_nodes == 1:
        return ()
    where = {"local": "their home first", "bind": "their home alone", "interleave": "all nodes in turn"}[trace.nodes]
    own = "the host's own memory is spread over the nodes, 2M by 2M"
    return (f"assumption: guest k is at home on node k modulo {host.nr_nodes}, its memory comes from {where}; {own}",)


def _pool_notes(simulation: Simulation) -> tuple[str, ...]:
    """What the reader must know about a pool."""
    at_boot = simulation.policy.pool_at == "boot"
    notes = []
    if at_boot:
        what = "its pool was taken at boot, before anything else (hugepages=)"
        notes.append(f"{simulation.policy.name}: {what}; figures of the start are of the same host without it")
    if simulation.pool_bytes < simulation.pool_wanted_bytes:
        got, wanted = format_size(simulation.pool_bytes), format_size(simulation.pool_wanted_bytes)
        where = "at boot" if at_boot else "from free memory"
        notes.append(f"{simulation.policy.name}: the pool was to have {wanted} and got {got} {where}")
    return tuple(notes)
