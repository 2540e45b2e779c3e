"""The compiled core behind the same interface as the oracle."""

from copy import copy
from dataclasses import dataclass, field

from core_observe import CoreView
from gmemlab.core import boot, execute, layout
from gmemlab.core.audit import audit, describe
from gmemlab.core.layout import (
    BLOCK_PAGES,
    GUEST_GENERIC,
    MOVABLE,
    TOUCH,
)
from gmemlab.core.state import State, copy_state, reserve_state
from gmemlab.model.nodes import LOCAL, set_nodes
from oracle_files import OraclePolicy

Result = tuple[int, int]
CHOICES = (
    *("source", "effort", "movable", "punch", "conversion", "split", "merge", "vmm_punch", "repair"),
    *("zero_scan", "truncation"),
)


@dataclass
class CoreWorld(CoreView):
    """A host in the core. Files are numbered as the oracle numbers them; the shared side of file f is -f."""

    zones: list[tuple[int, int, int, int]]
    reserved: set[int]
    nr_blocks: int
    types: dict[int, int] | None = None
    files: dict[int, int] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    created: int = 0
    policies: dict[OraclePolicy, int] = field(default_factory=dict)

    def copy(self) -> "CoreWorld":
        """The same host once more, with a state of its own."""
        other = copy(self)
        other.state = copy_state(self.state)
        other.files, other.sizes, other.policies = dict(self.files), dict(self.sizes), dict(self.policies)
        return other

    def __post_init__(self) -> None:
        self.state: State = reserve_state(self.nr_blocks, len(self.zones))
        types = self.types or {}
        for zone, (start, end, kind, reserve) in enumerate(self.zones):
            boot.set_zone(self.state, zone, start, end, kind, reserve)
            for block in range(start, end):
                boot.set_types(self.state, block, block + 1, types.get(block, MOVABLE))
            first = start
            while first < end:
                last = first
                while last < end and last not in self.reserved and types.get(last) == types.get(first):
                    last += 1
                if last > first:
                    boot.free_range(self.state, first, last)
                first = max(last, first + 1)
        self.state.nodes.struct_frame = BLOCK_PAGES  # all of them lie in the first blocks
        self.distances = [[LOCAL]]

    def policy(self, policy: OraclePolicy) -> int:
        if policy not in self.policies:
            row = len(self.policies) + 1
            self.policies[policy] = row
            record = self.state.policies[row]
            record.sizes = sum(1 << order for order in policy.sizes)
            record.unit = min(policy.sizes)
            record.fallocate_sizes = sum(1 << order for order in policy.fallocate_sizes or policy.sizes)
            for name in CHOICES:
                record[name] = getattr(policy, name)
            if policy.conversion == layout.CONVERT_TWO_SOURCES:
                record.shared_policy = self.policy(policy.beside())
        return self.policies[policy]

    def create(
        self, pages: int, policy: OraclePolicy, slots: list[tuple[int, int, int]] | None = None, guest: int = GUEST_GENERIC
    ) -> Result:
        error, file = execute.open_guest(self.state, pages, policy.kind, self.policy(policy), 0, guest)
        if error:
            return error, 0
        self.created += 1
        self.files[self.created] = file
        self.sizes[self.created] = pages
        shared = int(self.state.files[file].shared_file)
        if shared:
            self.files[-self.created] = shared
        if slots is not None:
            for k in range(layout.MAX_SLOTS):
                gfn, count, offset = slots[k] if k < len(slots) else (0, 0, 0)
                execute.bind(self.state, file, k, gfn, count, offset)
        return 0, self.created

    def shared_side(self, file: int) -> int:
        return -file

    def run(self, op: int, file: int, first: int, count: int, arg: int = 0) -> Result:
        error, done = execute.execute(self.state, op, self.files[file], first, count, arg)
        return int(error), int(done)

    def ready(self, file: int) -> Result:
        return self.run(layout.OP_READY, file, 0, 0)

    def destroy(self, file: int) -> Result:
        result = self.run(layout.OP_DESTROY, file, 0, 0)
        self.files.pop(-file, None)
        del self.files[file]
        return result

    def allocate(self, file: int, first: int, count: int) -> Result:
        return self.run(layout.OP_ALLOCATE, file, first, count)

    def collapse(self, file: int, first: int, count: int) -> Result:
        return self.run(layout.OP_COLLAPSE, file, first, count)

    def free_lazily(self, file: int, first: int, count: int) -> Result:
        return self.run(layout.OP_FREE_LAZILY, file, first, count)

    def split_deferred(self, file: int, max_none: int = 511) -> Result:
        return self.run(layout.OP_SPLIT_DEFERRED, file, 0, 0, max_none)

    def reserve(self, file: int, first: int, count: int) -> Result:
        return self.run(layout.OP_RESERVE, file, first, count)

    def punch(self, file: int, first: int, count: int) -> Result:
        return self.run(layout.OP_PUNCH, file, first, count)

    def access(self, file: int, first: int, count: int, kind: int, accept: int = TOUCH) -> Result:
        return self.run(layout.OP_ACCESS, file, first, count, kind + 4 * accept)

    def convert(self, file: int, first: int, count: int, to_shared: bool) -> Result:
        return self.run(layout.OP_TO_SHARED if to_shared else layout.OP_TO_PRIVATE, file, first, count)

    def pin(self, file: int, first: int, count: int, duration: int = 0) -> Result:
        return self.run(layout.OP_PIN, file, first, count, duration)

    def unpin(self, file: int, first: int, count: int) -> Result:
        return self.run(layout.OP_UNPIN, file, first, count)

    def reference(self, file: int, first: int, count: int) -> Result:
        return self.run(layout.OP_REFERENCE, file, first, count)

    def unreference(self, file: int, first: int, count: int) -> Result:
        return self.run(layout.OP_UNREFERENCE, file, first, count)

    def grow_pool(self, order: int, count: int, hvo: bool, nodes: int = 0) -> Result:
        error, done = execute.fill_pool(self.state, order, count, int(hvo), nodes)
        return int(error), int(done)

    def set_pool(self, order: int, count: int, overcommit: int, node: int = -1) -> int:
        return int(execute.set_pool(self.state, order, count, overcommit, node))

    def demote(self, count: int, nodes: int = 0) -> Result:
        error, done = execute.demote_pages(self.state, count, nodes)
        return int(error), int(done)

    def set_nodes(self, distances: list[list[int]], of_zone: list[int]) -> None:
        self.distances = distances
        self.state.zones.node = of_zone
        set_nodes(self.state, distances, 0)

    def bind(self, file: int, mode: int, allowed: int, home: int) -> Result:
        execute.bind_nodes(self.state, self.files[file], mode, allowed, home)
        return 0, 0

    def mount(self, order: int, most: int, least: int) -> Result:
        error, subpool = execute.open_mount(self.state, order, most, least)
        return int(error), int(subpool)

    def unmount(self, mount: int) -> Result:
        return int(execute.close_mount(self.state, mount)), 0

    def join(self, mount: int, file: int) -> Result:
        execute.join_mount(self.state, mount, self.files[file])
        return 0, 0

    def set_cpus(self, count: int, batch: int, high_min: int, high_max: int, in_batches: bool = False) -> None:
        set_nodes(self.state, self.distances, count)
        self.state.host[0].nr_cpus = count
        self.state.host[0].in_batches = in_batches
        for zone in range(len(self.zones)):
            for pcp in self.state.pcps[zone * layout.MAX_CPUS :][:count]:
                pcp["batch"], pcp["high_min"], pcp["high_max"] = batch, high_min, high_max

    def run_on(self, cpu: int) -> None:
        self.state.host[0].cpu = cpu

    def set_watermarks(self, low: int, high: int, nofragment: bool) -> None:
        self.state.zones.low, self.state.zones.high = low, high
        self.state.host[0].watermarks = int(low > 0)
        self.state.host[0].nofragment = int(nofragment)

    def set_min(self, least: int) -> None:
        self.state.zones.wmark_min = least

    def drain(self) -> Result:
        return self.run_on_host(layout.OP_DRAIN)

    def decay(self) -> Result:
        return self.run_on_host(layout.OP_DECAY, 1000)

    def run_on_host(self, op: int, count: int = 0) -> Result:
        error, done = execute.execute(self.state, op, 0, 0, count, 0)
        return int(error), int(done)

    def compact(self) -> Result:
        error, moved = execute.execute(self.state, layout.OP_COMPACT, 0, 0, 1, 0)
        return int(error), int(moved)

    def khugepaged(self, milliseconds: int, pages_to_scan: int = 4096, max_ptes_none: int = 511) -> Result:
        daemons = self.state.daemons[0]
        daemons.pages_to_scan, daemons.max_ptes_none = pages_to_scan, max_ptes_none
        return self.tick(layout.OP_KHUGEPAGED, milliseconds)

    def kcompactd(self, milliseconds: int, proactiveness: int = 20) -> Result:
        self.state.daemons[0].proactiveness = proactiveness
        return self.tick(layout.OP_KCOMPACTD, milliseconds)

    def tick(self, op: int, milliseconds: int) -> Result:
        error, pages = execute.execute(self.state, op, 0, 0, milliseconds, 0)
        return int(error), int(pages)

    def check(self) -> None:
        code, place = audit(self.state)
        assert code == 0, f"{describe(code)} (at {place})"
