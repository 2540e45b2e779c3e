"""The oracle: the slowest, most obvious model of host memory, files and policies.

One dictionary entry per page, one object per folio, lists of frame numbers. The compiled core must agree with it on
everything that `observe` tells. Units: 4 KiB pages; operations return (errno or 0, pages done).
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from gmemlab.core.hardware.counts import HOST_FAULT
from gmemlab.core.layout import (
    ACCEPT_LAUNCH,
    BLOCK_PAGES,
    CONVERT_NONE,
    CONVERT_TWO_SOURCES,
    GUEST_GENERIC,
    GUEST_SNP,
    GUEST_TDX,
    HOST,
    KIND_ANON,
    KIND_CACHE,
    KIND_HUGETLB,
    NODES_LOCAL,
    OP_ACCESS,
    OP_DESTROY,
    OP_PUNCH,
    OP_TO_PRIVATE,
    OP_TO_SHARED,
    PHASE_RUNNING,
    PHASE_TEAR_DOWN,
    PIN_SHORT,
    PRIVATE,
    SHARED,
    TOUCH,
)
from oracle_audit import check
from oracle_conversion import convert
from oracle_daemons import Daemons
from oracle_files import File, Hold, Mount, Observation, OraclePolicy
from oracle_guests import ask_for_accepts, touch_block
from oracle_machine import OracleMachine
from oracle_mapping import map_private
from oracle_memory import Memory
from oracle_observe import observe
from oracle_operations import populate, punch, punch_is_aligned, use
from oracle_pin import leave_movable
from oracle_repair import collapse, free_lazily, split_deferred

__all__ = ["OracleHost", "OraclePolicy"]

MAX_PAGES = 1 << 51  # a byte offset of 2^63 does not fit a file offset (L2)


class OracleHost(OracleMachine):
    """A host with blocks 1 .. nr_blocks, its zones (start block, end block, kind, reserve) and its files.

    The shared side of a two-source file `f` is the file `-f`.
    """

    def __init__(
        self,
        zones: list[tuple[int, int, int, int]],
        reserved_blocks: set[int],
        nr_blocks: int,
        types: dict[int, int] | None = None,
    ) -> None:
        self.memory = Memory(zones, reserved_blocks, nr_blocks, types)
        self.files: dict[int, File] = {}
        self.created = 0
        self.daemons = Daemons()
        self.memory.wake_kcompactd = self.daemons.wake
        self.mounts: list[Mount | None] = []

    # -- files --------------------------------------------------------------------------------------------------------
    def create(
        self, pages: int, policy: OraclePolicy, slots: list[tuple[int, int, int]] | None = None, guest: int = GUEST_GENERIC
    ) -> tuple[int, int]:
        """A new file; (errno, file id). Slots are (gfn, pages, first page in the file)."""
        if pages <= 0 or not policy.is_possible or pages % (1 << min(policy.sizes)) != 0:
            return errno.EINVAL, 0
        if policy.conversion == CONVERT_TWO_SOURCES and pages % (1 << min(policy.shared_sizes or (0,))) != 0:
            return errno.EINVAL, 0
        file = File(self.created + 1, pages, policy, slots if slots is not None else [(0, pages, 0)], guest=guest)
        file.operations = self.memory.operations
        file.rmp = self.memory.rmp if guest == GUEST_SNP else None
        if file.from_pool() and file.confidential():
            pool = self.memory.pools[policy.sizes[0]]
            wanted = pages // file.unit()
            if len(pool.idle) - pool.reserved < wanted:
                return errno.ENOMEM, 0
            pool.reserved += wanted
            file.reservation = wanted
        self.created += 1
        self.files[file.id] = file
        self.daemons.enter(file)
        if policy.kind == KIND_CACHE:
            self.memory.reclaim.files.append(file)
        if file.two_sources():
            file.other = File(-file.id, pages, policy.beside(), [(0, pages, 0)])
            self.files[-file.id] = file.other
            self.daemons.enter(file.other)
        return 0, file.id

    def shared_side(self, file: int) -> int:
        """The file that backs the shared side of a two-source file."""
        return -file

    def destroy(self, file: int) -> tuple[int, int]:
        """Drop every hold, then every page, whatever the policy says about punching."""
        if file not in self.files:
            return errno.EBADF, 0
        if file < 0:
            return errno.EINVAL, 0
        target = self.files.pop(file)
        with self.blamed(OP_DESTROY):
            self.empty(target)
            if target.other is not None:
                self.empty(self.files.pop(-file))
        return 0, target.size

    def ready(self, file: int) -> tuple[int, int]:
        """The guest runs."""
        self.files[file].phase = PHASE_RUNNING
        return 0, 0

    def empty(self, file: File) -> None:
        self.daemons.leave(file)
        if file.policy.kind == KIND_CACHE:
            self.memory.reclaim.leave(file)
        file.phase = PHASE_TEAR_DOWN
        newest_first = list(reversed(file.holds))
        for hold in sorted(newest_first, key=lambda hold: file.two_sources() and hold.pin):
            self.memory.drop(hold)
        file.holds = []
        error, _ = punch(self.memory, file, 0, file.size)
        assert not error, "a whole file without holds can always be punched"
        if file.from_pool():
            pool = self.memory.pools[file.policy.sizes[0]]
            unused = file.outstanding()
            self.memory.forget(pool, unused if file.mount is None else file.mount.put(unused))
            file.reservation = 0
            file.promised = set()

    @contextmanager
    def blamed(self, operation: int) -> Iterator[None]:
        """What must not happen meanwhile is laid to an operation (OP_*)."""
        before = self.memory.harm()
        yield
        for kind, (less, more) in enumerate(zip(before, self.memory.harm(), strict=True)):
            self.memory.hazards[kind, operation] += more - less

    def in_range(self, file: int, first: int, count: int) -> int:
        """The checks that come before granularity and the end of the file, in their order."""
        if file not in self.files:
            return errno.EBADF
        if first < 0 or count <= 0:
            return errno.EINVAL
        return errno.EFBIG if first + count >= MAX_PAGES else 0

    # -- fallocate ----------------------------------------------------------------------------------------------------
    def allocate(self, file: int, first: int, count: int) -> tuple[int, int]:
        """Make every page of the range present (G17 to G21)."""
        error = self.in_range(file, first, count)
        if error:
            return error, 0
        target = self.files[file]
        unit = target.unit()
        if target.from_pool() and target.confidential() and (first % unit or count % unit):
            return errno.EINVAL, 0
        if first + count > target.size:
            return errno.EINVAL, 0
        a, b = first, first + count
        if target.policy.kind == KIND_HUGETLB:
            a, b = a - a % unit, -(-b // unit) * unit
        mode = target.node_mode
        if target.policy.kind == KIND_HUGETLB:
            target.node_mode = NODES_LOCAL  # fallocate of hugetlbfs knows no policy
        error = 0
        for index in range(a, b):
            error = error or populate(self.memory, target, index, by_fallocate=True)
            if error:
                break
        target.node_mode = mode
        return (error, max(0, index - first)) if error else (0, count)

    def collapse(self, file: int, first: int, count: int) -> tuple[int, int]:
        """MADV_COLLAPSE (L15)."""
        error = self.in_range(file, first, count)
        if error == 0 and first + count > self.files[file].size:
            error = errno.EINVAL
        return (error, 0) if error else collapse(self.memory, self.files[file], first, count)

    def free_lazily(self, file: int, first: int, count: int) -> tuple[int, int]:
        """MADV_FREE (L16): asked for the kind of memory first."""
        if self.files[file].policy.kind != KIND_ANON:
            return errno.EINVAL, 0
        error = self.in_range(file, first, count)
        if error == 0 and first + count > self.files[file].size:
            error = errno.EINVAL
        return (error, 0) if error else free_lazily(self.memory, self.files[file], first, count)

    def split_deferred(self, file: int, max_none: int = 511) -> tuple[int, int]:
        """The deferred-split shrinker (L16, L17)."""
        return split_deferred(self.memory, self.files[file], max_none)

    def reserve(self, file: int, first: int, count: int) -> tuple[int, int]:
        """A shared mmap of hugetlb memory: each huge page of the range is promised to it, or none (L19)."""
        error = self.in_range(file, first, count)
        if error == errno.EBADF:
            return error, 0
        target = self.files[file]
        if target.policy.kind != KIND_HUGETLB:
            return errno.EOPNOTSUPP, 0
        if error:
            return errno.EOVERFLOW if error == errno.EFBIG else error, 0
        if first % target.unit() or first + count > target.size:
            return errno.EINVAL, 0
        wanted = {index // target.unit() for index in range(first, first + count)} - target.promised
        if not self.promise(target, len(wanted)):
            return errno.ENOMEM, 0
        target.promised |= wanted
        return 0, count

    def promise(self, file: File, pages: int) -> bool:
        """So many pages more are promised to a file, as far as its mount and the pool go."""
        pool, nodes = self.memory.pools[file.policy.sizes[0]], self.memory.buddy.nodes
        node = nodes.of_cpu(self.memory.buddy.cpu) if nodes.cpus else file.home
        more = pages if file.mount is None else file.mount.get(pages)
        if more is None:
            return False
        if self.memory.promise(pool, more, node):
            return True
        if file.mount is not None:
            file.mount.used -= more if file.mount.most is not None else 0
            if pages > more:
                self.memory.forget(pool, file.mount.put(pages - more))
        return False

    def punch(self, file: int, first: int, count: int) -> tuple[int, int]:
        """Punch a hole (G22 to G24)."""
        error = self.in_range(file, first, count)
        if error:
            return error, 0
        if not punch_is_aligned(self.files[file], first, count):
            return errno.EINVAL, 0
        with self.blamed(OP_PUNCH):
            return punch(self.memory, self.files[file], first, count)

    # -- access -------------------------------------------------------------------------------------------------------
    def access(self, file: int, first: int, count: int, kind: int, accept: int = TOUCH) -> tuple[int, int]:
        """Touch page after page: the guest privately or shared, or the host."""
        error = self.in_range(file, first, count)
        if error:
            return error, 0
        size = self.files[file].size
        if first + count > size and kind != HOST:
            return errno.EINVAL, 0
        target = self.files[file]
        if kind == PRIVATE and target.confidential():
            ask_for_accepts(target, first, first + count, accept)
        reached: list[int] = []  # of one block
        for index in range(first, first + count):
            error = self.touch(target, index, kind, accept) if index < size else errno.EACCES  # SIGBUS (G26)
            reached += [] if error else [index]
            if error or (index + 1) % BLOCK_PAGES == 0 or index + 1 == first + count:
                if reached and kind == PRIVATE and target.confidential():
                    with self.blamed(OP_ACCESS):
                        touch_block(target, reached, accept, self.memory.counters)
                reached = []
            if error:
                return error, index - first
        return 0, count

    def touch(self, file: File, index: int, kind: int, accept: int, pin: bool = False) -> int:
        """One page. A fault for a pin, which the host takes, writes nothing: that shows in anonymous memory, clear before."""
        by_host = pin or kind == HOST
        private = index not in file.shared
        backing = file
        if file.confidential():
            if kind == PRIVATE and not private:
                return errno.EFAULT
            if kind == SHARED and private:
                return errno.EFAULT
            if kind == HOST and private and not file.two_sources():
                return errno.EACCES
            if kind != PRIVATE and file.other is not None:
                backing = file.other
        error = populate(self.memory, backing, index)
        if error:
            return error
        if not pin or backing.policy.kind != KIND_ANON:
            use(backing, index, kind == PRIVATE and accept == ACCEPT_LAUNCH)
        if by_host and backing is file and file.confidential():
            file.note(HOST_FAULT, int(index not in file.host_mapped))
            file.host_mapped.add(index)
        if kind == PRIVATE and file.confidential() and file.guest not in (GUEST_SNP, GUEST_TDX):
            map_private(file, index, accept, self.memory.counters)
        return 0

    def convert(self, file: int, first: int, count: int, to_shared: bool) -> tuple[int, int]:
        """Change the attribute of a range (G42: every wrong range is EINVAL)."""
        if file not in self.files:
            return errno.EBADF, 0
        target = self.files[file]
        if target.policy.conversion == CONVERT_NONE:
            return errno.EOPNOTSUPP, 0
        if first < 0 or count <= 0 or first + count > target.size:
            return errno.EINVAL, 0
        with self.blamed(OP_TO_SHARED if to_shared else OP_TO_PRIVATE):
            return convert(self.memory, target, first, count, to_shared)

    # -- holds --------------------------------------------------------------------------------------------------------
    def pin(self, file: int, first: int, count: int, duration: int = 0) -> tuple[int, int]:
        """Pins on pages that the host may map (K3), for long or for one I/O."""
        self.memory.pinning = duration != PIN_SHORT
        error, done = self.hold(file, first, count, True)
        self.memory.pinning = False
        return error, done

    def unpin(self, file: int, first: int, count: int) -> tuple[int, int]:
        """Undo the newest pin call with the same range."""
        return self.unhold(file, first, count, True)

    def reference(self, file: int, first: int, count: int) -> tuple[int, int]:
        """Transient references on present pages, private ones too (K3, K24)."""
        return self.hold(file, first, count, False)

    def unreference(self, file: int, first: int, count: int) -> tuple[int, int]:
        """Undo the newest reference call with the same range."""
        return self.unhold(file, first, count, False)

    def hold(self, file: int, first: int, count: int, pin: bool) -> tuple[int, int]:
        error = self.in_range(file, first, count)
        if error:
            return error, 0
        target = self.files[file]
        if first + count > target.size and not pin:
            return errno.EINVAL, 0
        backing = target.other if pin and target.other is not None else target
        found = 1
        while pin and found:
            error, done = self.fault_in(target, first, count)
            if error:
                return error, done
            error, found = leave_movable(self.memory, backing, first, first + count) if self.memory.pinning else (0, 0)
            if error:
                return error, 0
        for index in range(first, first + count):
            if index not in backing.pages:
                return errno.ENOENT, index - first
        folios = [backing.pages[index].folio for index in range(first, first + count)]
        for folio in folios:
            if pin:
                folio.pins += 1
            else:
                folio.references += 1
        target.holds.append(Hold(pin, first, count, folios))
        return 0, count

    def fault_in(self, target: File, first: int, count: int) -> tuple[int, int]:
        """A pin faults its pages in; a private one cannot be mapped (G25), nor one beyond the end.

        Once more what the shrinker took meanwhile, of anonymous memory.
        """
        backing = target.other if target.other is not None else target
        absent = True
        while absent:
            for index in range(first, first + count):
                error = self.touch(target, index, SHARED, TOUCH, pin=True) if index < target.size else errno.EFAULT
                if error:  # a hugetlb page that the pool cannot give: SIGBUS for an access
                    return errno.EFAULT if error == errno.ENOSPC else error, index - first
            pages = range(first, first + count)
            absent = backing.policy.kind == KIND_ANON and any(index not in backing.pages for index in pages)
        return 0, count

    def unhold(self, file: int, first: int, count: int, pin: bool) -> tuple[int, int]:
        if file not in self.files:
            return errno.EBADF, 0
        target = self.files[file]
        for hold in reversed(target.holds):
            if (hold.pin, hold.first, hold.count) == (pin, first, count):
                target.holds.remove(hold)
                self.memory.drop(hold)
                return 0, count
        return errno.EINVAL, 0

    # -- what can be seen ---------------------------------------------------------------------------------------------
    def observe(self) -> Observation:
        """Everything that two implementations must agree on."""
        return observe(self.memory, self.files, self.mounts)

    def check(self) -> None:
        """Assert the oracle's own invariants."""
        check(self.memory, self.files, [mount for mount in self.mounts if mount is not None])
