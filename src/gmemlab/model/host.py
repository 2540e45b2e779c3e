"""A host: its memory, its pools, and the guests' memory on it."""

import errno
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gmemlab.capture import capture
from gmemlab.core import execute, jit, layout
from gmemlab.core.layout import GUEST_GENERIC, PAGE_SIZE
from gmemlab.core.state import State, copy_state
from gmemlab.errors import CapacityError, UsageError, operation_error
from gmemlab.model import boot_pool, machine, pools
from gmemlab.model.background import atomic_policy, spread
from gmemlab.model.checks import (
    check_cma,
    check_fragmentation,
    check_host_size,
    check_node_size,
    check_seed,
    check_snapshot,
)
from gmemlab.model.cpus import Cpus, check_cpus, give_cpus, give_watermarks
from gmemlab.model.daemons import DaemonSettings, DaemonWork, let_pass
from gmemlab.model.guest import LARGEST_OFFSET, GuestMemory
from gmemlab.model.guests import guest_code, parse_flags
from gmemlab.model.nodes import Distances, check_node, check_nodes, parse_nodes
from gmemlab.model.policies import KINDS, PolicyTable
from gmemlab.model.readings import Readings
from gmemlab.model.room import BLOCK_SIZE, check_room
from gmemlab.policy import Policy
from gmemlab.presets import background, for_guest, for_ordinary_memory, page_cache
from gmemlab.snapshot import Snapshot
from gmemlab.units import format_size, parse_size

jit.announce_compiling()


class Host(Readings, Cpus):
    """The memory of one machine.

    `Host("1T")` is an empty machine; with `fragmentation` it is preconditioned until that share of its free memory lies
    outside 2M pages. `Host.live()` has this machine's free lists, `Host.load(path)` those of a saved snapshot.

    Attributes:
        state: the core's state.
        description: one line for people.
        notes: what was assumed or could not be known.
    """

    description: str
    notes: tuple[str, ...]
    _made: "Callable[..., Host] | None" = None  # of a machine made up: makes it again, with a pool from boot on

    def __init__(
        self,
        size: int | str,
        fragmentation: float | None = None,
        seed: int = 0,
        cpus: int = 0,
        nodes: int = 1,
        distances: Distances | None = None,
        cma: int | str = 0,
        watermarks: bool = False,
        boot_pages: boot_pool.BootPool | None = None,
        boot_hvo: bool = True,
    ) -> None:
        """An empty machine of `size` bytes, each node of it in one Normal zone; 1.6 % of it holds page structs (C23).

        Args:
            size: bytes, or a size such as `1T`.
            fragmentation: share of its free memory that shall lie outside 2M pages.
            seed: where that is drawn from.
            cpus: how many CPUs keep lists of free pages of their own. With them every base page is stepped through alone, which
                takes some hundred times longer where blocks are uniform; without them (0) pages go to the free lists at once.
            nodes: how many NUMA nodes it has, of the same size; the CPUs are dealt out to them in ascending, equal parts.
            distances: between the nodes, a row for each, as in the SLIT: 10 from a node to itself. By default 20 to all others.
            cma: bytes, or a size, at the end of memory that only movable memory may use (the kernel's `cma=`). What drivers
                take of it with `cma_alloc` is not modelled.
            watermarks: whether a reserve stays free, and kswapd works, as Linux sets that (`set_watermarks`).
            boot_pages: huge pages that boot takes before anything else (hugepagesz= and hugepages=): how many of each size, as
                `{"1G": 4, "2M": 100}`; of single nodes as `{"1G": {0: 2, 1: 2}}` (hugepages=0:2,1:2). What cannot be had is
                among the notes. The machine is fragmented after that, but for frames that HVO gave back in pieces below 2M.
            boot_hvo: whether these pages have HVO. Linux does not even allocate the page structs of 1G pages then
                (`hugetlb_vmemmap_init_early`, 6.15); here they are freed at once, which leaves the same memory free.

        Raises:
            UsageError: the size is no multiple of 2M from 64M to 64T, the fragmentation is not in [0, 0.95], the seed is no
                whole number from 0 on, the CPUs are none of 0 to 512; the nodes are none of 1 to 32, have less than 64M each,
                or distances that are none; or CMA is no multiple of 2M up to half of a node, or is to be fragmented; or there
                is no such pool.
        """
        total = check_host_size(size)
        check_seed(seed)
        check_cpus(cpus)
        check_fragmentation(fragmentation)
        table = check_nodes(nodes, distances)
        check_node_size(total, nodes)
        reserved = check_cma(cma, total // nodes, bool(fragmentation))
        taken = boot_pool.check_boot_pool(boot_pages or {}, nodes)
        state = machine.empty(total // BLOCK_SIZE, table, cpus, reserved // BLOCK_SIZE)
        self._adopt(state, format_size(total) + ", empty", ())
        self._describe_nodes()
        short = boot_pool.take(self, taken, boot_hvo)
        if fragmentation:
            self._precondition(fragmentation, seed)
        self.description += boot_pool.describe_boot(taken)
        self.notes += short
        self._give_cpus(cpus)
        if watermarks:
            self.set_watermarks()
        self._made = partial(type(self), size, fragmentation, seed, cpus, nodes, distances, cma, watermarks)

    @classmethod
    def from_snapshot(cls, snapshot: Snapshot, seed: int = 0, description: str = "snapshot", cpus: int = 0) -> "Host":
        """A machine with the free lists of a snapshot; where they lie is drawn from `seed`.

        `cpus` as for an empty machine; how they give back what they have too much of is that of the snapshot's release.

        Raises:
            UsageError: the snapshot says something impossible, or has memory beyond 64T; or the seed or the CPUs are none.
        """
        check_seed(seed)
        check_cpus(cpus)
        check_snapshot(snapshot)
        host = cls.__new__(cls)
        state, notes = machine.from_snapshot(snapshot, cpus)
        host._adopt(state, description, (*snapshot.notes, *notes))
        host._describe_nodes()
        files = (*host._boot_files(), host._boot_cache() if snapshot.reclaimable_pages else 0)
        host.notes += machine.fill_from_snapshot(state, snapshot, files, seed)
        host._give_cpus(cpus)
        return host

    @classmethod
    def live(cls, seed: int = 0, cpus: int = 0) -> "Host":
        """This machine's free lists, now. UnsupportedError where /proc does not tell them."""
        snapshot = capture()
        return cls.from_snapshot(snapshot, seed, f"this machine, Linux {snapshot.release}", cpus)

    @classmethod
    def load(cls, path: str | Path, seed: int = 0, cpus: int = 0) -> "Host":
        """The machine of a file written by `gmemlab host --save`. UsageError where it is damaged."""
        snapshot = Snapshot.load(path)
        return cls.from_snapshot(snapshot, seed, f"{Path(path).name}, Linux {snapshot.release}", cpus)

    def copy(self) -> "Host":
        """The same host once more, as it is now; memory objects of this one do not belong to the copy."""
        host = type(self).__new__(type(self))
        host._adopt(copy_state(self.state), self.description, self.notes)
        host._policies = self._policies.copy_to(host.state)
        host._made = self._made
        return host

    def check_bootable(self) -> None:
        """See that it can be booted with a pool. UsageError for this machine or a saved one, whose memory is in use already."""
        if self._made is None:
            allowed = "a machine of some size, such as 64G; what has booted can only grow its pool (pool_at=run)"
            raise UsageError("no pool can be taken at the boot of a machine that runs", key="host", allowed=allowed)

    def rebooted(self, boot_pages: boot_pool.BootPool, boot_hvo: bool = True) -> "Host":
        """A machine made as this one was (of its size, fragmented alike), as it is when boot took a pool; see `Host`.

        What was done on this one since is not done there. UsageError as `check_bootable` and `Host` say.
        """
        self.check_bootable()
        assert self._made is not None
        return self._made(boot_pages=boot_pages, boot_hvo=boot_hvo)

    def guest_memfd(
        self,
        size: int | str,
        policy: Policy | str = "4k",
        flags: int | None = None,
        nodes: str = "local",
        home: int = 0,
        guest: str = "generic",
    ) -> GuestMemory:
        """A guest_memfd, empty, bound at guest address 0.

        Args:
            size: bytes.
            policy: how its memory is backed.
            flags: of KVM_CREATE_GUEST_MEMFD on a VM without private memory: MMAP (1), INIT_SHARED (2) or both (G8, G12). By
                default it is a confidential guest's: all private, and shared pages can be mapped by the host.
            nodes: the NUMA policy of its memory, as mbind sets it for all of the file (G53): `local`, `bind:0` (or more nodes:
                `bind:0-1,3`), `preferred:0` or `interleave:0-1`; `GuestMemory.set_nodes` changes it.
            home: the node on which the guest runs, where the host has no CPUs; where it has, memory is local to the one that
                works.
            guest: what hardware the guest has: snp or tdx, whose page states are kept then; plain, sw-protected or pkvm, whose
                huge mappings come back; or generic: confidential, by the rules that SNP and TDX share (K6, G79).

        Raises:
            OperationError: InvalidArgument for flags that do not exist (asked first, G11), or a size that is not positive
                or no multiple of the policy's pages; OutOfMemory where the pool cannot promise them; TooBig or ENFILE where
                the model's own tables have no room for so large a file, ever or now.
            UsageError: no such policy, or one for ordinary memory; something that is no size, flags or guest; nodes that are no
                policy, or that the host has not.
        """
        mappable, shared = parse_flags(flags)
        memory = self._open(size, for_guest(policy), nodes, home, shared, guest_code(guest))
        memory.mappable = mappable
        return memory

    def memory(self, size: int | str, policy: Policy | str = "shmem-thp", nodes: str = "local", home: int = 0) -> GuestMemory:
        """Ordinary memory: shmem, anonymous or hugetlb, as the policy says; to hugetlb `reserve` promises (L19).

        `nodes` and `home` as for `guest_memfd`; `allocate` takes pages of hugetlb memory as if it had no policy, as Linux does.

        Raises:
            OperationError: as `guest_memfd` does for sizes.
            UsageError: no such policy, or one for guest_memfd.
        """
        return self._open(size, for_ordinary_memory(policy), nodes, home)

    def background(self, size: int | str, movable: bool, atomic: int | str | None = None) -> GuestMemory:
        """Memory of the host itself, in 4K pages. Its tasks run on all nodes: each 2M of it is local to the next node.

        Args:
            size: bytes, or a size.
            movable: whether it can be migrated.
            atomic: the size of its pieces, where it is kernel memory that is taken where nothing may wait (GFP_ATOMIC), as a
                network driver's buffers are: it may have of the reserves, and has blocks kept for its like (HIGHATOMIC).

        Raises:
            UsageError: such memory is unmovable, and its pieces are a power of two from 4K to 1M.
            OperationError: as `guest_memfd` does for sizes.
        """
        policy = background(movable) if atomic is None else atomic_policy(atomic, movable)
        return spread(self.state, self._open(size, policy, "local", 0))

    def page_cache(self, size: int | str) -> GuestMemory:
        """Clean page cache of the host, in 4K pages: `allocate` reads it, reclaim drops it where memory is short.

        The oldest goes first: what was made first, and of that the first pages (`core.daemons.reclaim`). On a machine without
        watermarks (`set_watermarks`) that happens only when nothing is free any more. Nodes as for `background`.

        Raises:
            OperationError: as `guest_memfd` does for sizes.
        """
        return spread(self.state, self._open(size, page_cache(), "local", 0))

    def set_watermarks(self) -> None:
        """Give an empty or fragmented machine the watermarks of Linux 6.18; others have those of their snapshot."""
        if not self.has_watermarks and self.is_normal:
            give_watermarks(self.state)

    def grow_pool(self, page: int | str, count: int, hvo: bool = True, node: int | None = None) -> int:
        """Add up to `count` huge pages of 2M or 1G to their pool, on a node or on all in turn. Returns how many there were."""
        done = pools.grow(self.state, page, count, hvo, node)
        self.check_capacity()
        return done

    def set_pool(self, page: int | str, count: int, overcommit: int = 0, node: int | None = None) -> None:
        """Give a pool its size, as a write to nr_hugepages does: it grows as far as memory goes, or shrinks (L19).

        With HVO (`grow_pool`), what leaves the pool takes the frames of its page structs first (7 for 2M, 4095 for 1G, K5); a
        page for which there is no memory stays, as a surplus page that is idle.

        Args:
            page: 2M or 1G.
            count: pages; what is in use or promised beyond that becomes surplus, and goes when it is given back.
            overcommit: how many surplus pages of 2M hugetlb memory may take beyond (nr_overcommit_hugepages); of 1G, none.
            node: whose part of the pool gets this size (the node's own nr_hugepages); by default all of it, nodes in turn.

        Raises:
            UsageError: no such pool or node, or a negative number.
            OperationError: InvalidArgument for surplus pages of 1G, which Linux has not.
        """
        error = pools.resize(self.state, page, count, overcommit, node)
        self.check_capacity()
        if error:
            beyond = f" and {overcommit} beyond" if overcommit else ""
            raise operation_error(error, 0, f"set the pool of {page} pages to {count}{beyond}")

    def demote_pages(self, count: int, node: int | None = None) -> int:
        """Turn up to `count` idle 1G pages of their pool (or of a node's) into 2M pages, and return how many were (L20).

        Raises:
            OperationError: OutOfMemory where frames for page structs are short; EBUSY where only promises are left.
        """
        return pools.demote(self, count, node)

    def mount_hugetlbfs(
        self, page: int | str = "2M", size: int | str | None = None, min_size: int | str | None = None
    ) -> "pools.HugetlbMount":
        """Mount hugetlbfs, as `mount -o pagesize=,size=,min_size=` does.

        Args:
            page: 2M or 1G.
            size: how much its files may use.
            min_size: how much the pool keeps for them from now on.

        Raises:
            UsageError: no such pool, or limits that are none.
            OperationError: OutOfMemory where the pool cannot promise what is kept; ENFILE beyond 63 mounts.
        """
        return pools.mount(self, page, size, min_size)

    def compact(self) -> int:
        """Compact all zones, as a write to /proc/sys/vm/compact_memory does. Returns how many 4K pages moved."""
        _, moved = execute.execute(self.state, layout.OP_COMPACT, 0, 0, 1, 0)
        self.check_capacity()
        return int(moved)

    def tick(self, seconds: float) -> DaemonWork:
        """Let time pass for khugepaged, which scans memory whose policy says so (`repair`), and kcompactd, which always works.

        For each whole second since the host was made, CPUs that keep more pages than they need give some back, too
        (`decay_pcp_high`), and batches of other nodes' pages where they were idle for three (`drain_zone_pages`).

        Raises:
            UsageError: not a time from 0 on.
        """
        work = let_pass(self.state, seconds)
        execute.execute(self.state, layout.OP_DECAY, 0, 0, round(seconds * 1000), 0)
        self.check_capacity()
        return work

    def set_daemons(self, settings: DaemonSettings) -> None:
        """Tell khugepaged and kcompactd how to work; what they are doing goes on from where it is."""
        settings.write(self.state)

    def policy_row(self, policy: Policy) -> int:
        """The core's number of a policy."""
        return self._policies.row(policy)

    def check_capacity(self) -> None:
        """CapacityError if a table of the model (not the host's memory) ran out."""
        if self.state.host[0].exhausted:
            raise CapacityError("the model's tables are full: more files, pins or split memory than it has room for")

    def _adopt(self, state: State, description: str, notes: tuple[str, ...]) -> None:
        self.state = state
        self.description = description
        self.notes = notes
        self._policies = PolicyTable(state)

    def _open(
        self,
        size: int | str,
        policy: Policy,
        nodes: str,
        home: int,
        shared: bool = False,
        guest: int = GUEST_GENERIC,
    ) -> GuestMemory:
        mode, allowed = parse_nodes(nodes, self.nr_nodes)
        check_node(home, self.nr_nodes, "home")
        total = size if isinstance(size, int) else parse_size(size)
        if shared and policy.conversion != "in-place":
            raise UsageError("only with in-place conversion can a file start shared", key="policy", value=policy.name)
        if total % PAGE_SIZE or total > LARGEST_OFFSET:
            raise operation_error(errno.EINVAL, 0, f"create {size} ({policy.name})")
        check_room(self.state, size, total, policy)
        row = self.policy_row(policy)
        error, file = execute.open_guest(self.state, total // PAGE_SIZE, KINDS[policy.memory], row, int(shared), guest)
        self.check_capacity()
        if error:
            raise operation_error(error, 0, f"create {size} ({policy.name})")
        execute.bind_nodes(self.state, int(file), mode, allowed, home)
        return GuestMemory(self, int(file), total, policy)

    def _boot_files(self) -> tuple[int, int]:
        """Two files, laid out like the machine, that own what was in use at the start: unmovable and movable."""
        size = (int(self.state.host[0].nr_blocks) + 1) * BLOCK_SIZE
        return self.background(size, movable=False).file, self.background(size, movable=True).file

    def _boot_cache(self) -> int:
        """A third file like these, for page cache."""
        return self.page_cache((int(self.state.host[0].nr_blocks) + 1) * BLOCK_SIZE).file

    def _describe_nodes(self) -> None:
        if self.nr_nodes > 1:
            self.description += f", {self.nr_nodes} NUMA nodes"

    def _give_cpus(self, cpus: int) -> None:
        give_cpus(self.state, cpus)
        if cpus:
            self.description += f", {cpus} CPUs with lists"

    def _precondition(self, fragmentation: float, seed: int) -> None:
        kept = boot_pool.keep_loose(self)
        files = self._boot_files()
        machine.precondition(self.state, files, fragmentation, seed)
        for one in kept:
            one.close()
        self.description = f"{format_size(self.total_bytes)}, fragmented to {fragmentation:g}"
        self._describe_nodes()
        self.notes += (machine.PRECONDITION_NOTE,)
