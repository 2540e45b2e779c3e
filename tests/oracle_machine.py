"""The oracle's machine: pools and mounts of hugetlbfs, nodes, CPUs, watermarks, and time that passes for its daemons."""

import errno

from gmemlab.core.layout import GIGA_ORDER
from oracle_compaction import WHOLE_ZONE, Compaction
from oracle_daemons import Daemons, Kcompactd
from oracle_files import File, Mount
from oracle_memory import Memory
from oracle_nodes import Nodes, nearest_first
from oracle_page_alloc import Cpu


class OracleMachine:
    """What is not of one file."""

    memory: Memory
    files: dict[int, File]
    daemons: Daemons
    mounts: list[Mount | None]

    def grow_pool(self, order: int, count: int, hvo: bool, nodes: int = 0) -> tuple[int, int]:
        """Add `count` huge pages to the pool of an order; (errno, huge pages added)."""
        if order not in self.memory.pools or count <= 0:
            return errno.EINVAL, 0
        done = self.memory.grow(self.memory.pools[order], count, hvo, self.bits(nodes) or self.memory.all_nodes())
        return (0 if done == count else errno.ENOMEM), done

    def set_pool(self, order: int, count: int, overcommit: int, node: int = -1) -> int:
        """Give a pool its size, and how many surplus pages it may have (L19)."""
        if count < 0 or overcommit < 0 or (overcommit and order == GIGA_ORDER):
            return errno.EINVAL
        self.memory.resize(self.memory.pools[order], count, overcommit, None if node < 0 else node)
        return 0

    def demote(self, count: int, nodes: int = 0) -> tuple[int, int]:
        """Turn up to `count` idle 1 GiB pages, promised to nobody, into 2 MiB pages (L20); (errno, 1 GiB pages)."""
        return self.memory.demote(count, self.bits(nodes) or self.memory.all_nodes())

    def bits(self, nodes: int) -> set[int]:
        return {node for node in range(32) if nodes >> node & 1}

    def mount(self, order: int, most: int, least: int) -> tuple[int, int]:
        """A mount of hugetlbfs, -1 for no limit; (errno, its number from 1, the lowest that no other has)."""
        pool = self.memory.pools[order]
        if least > 0 and not self.memory.promise(pool, least):
            return errno.ENOMEM, 0
        limits = (None if most < 0 else most, None if least < 0 else least)
        place = self.mounts.index(None) if None in self.mounts else len(self.mounts)
        self.mounts[place : place + 1] = [Mount(pool, *limits, kept=max(least, 0))]
        return 0, place + 1

    def unmount(self, mount: int) -> tuple[int, int]:
        """It goes, and what it keeps; EBUSY while it has files."""
        mine = self.mounts[mount - 1]
        assert mine is not None
        if any(file.mount is mine for file in self.files.values()):
            return errno.EBUSY, 0
        self.memory.forget(mine.pool, mine.least or 0)
        self.mounts[mount - 1] = None
        return 0, 0

    def join(self, mount: int, file: int) -> tuple[int, int]:
        """A new file is of a mount."""
        self.files[file].mount = self.mounts[mount - 1]
        return 0, 0

    def set_nodes(self, distances: list[list[int]], of_zone: list[int]) -> None:
        """The host has several nodes."""
        self.memory.buddy.nodes = Nodes(of_zone, nearest_first(distances))
        self.daemons.kcompactds = [Kcompactd(node) for node in range(len(distances))]

    def bind(self, file: int, mode: int, allowed: int, home: int) -> tuple[int, int]:
        """A file's policy, and of the ordinary memory beside it."""
        target = self.files[file]
        for one in (target, target.other) if target.other else (target,):
            one.node_mode, one.allowed, one.home = mode, frozenset(self.bits(allowed)), home
        return 0, 0

    def set_cpus(self, count: int, batch: int, high_min: int, high_max: int, in_batches: bool = False) -> None:
        """So many CPUs keep lists of their own."""
        buddy = self.memory.buddy
        buddy.in_batches = in_batches
        buddy.nodes.cpus = count
        buddy.cpus = [[Cpu(batch, high_min, high_max) for _ in range(count)] for _ in buddy.zones]

    def run_on(self, cpu: int) -> None:
        """From here on this CPU works."""
        self.memory.buddy.cpu = cpu

    def set_watermarks(self, low: int, high: int, nofragment: bool) -> None:
        """Of all zones, above their reserves."""
        buddy = self.memory.buddy
        buddy.low, buddy.high, buddy.nofragment = [low] * len(buddy.zones), [high] * len(buddy.zones), nofragment

    def set_min(self, least: int) -> None:
        """The min watermark of all zones, which is part of their reserves."""
        self.memory.buddy.minimum = [least] * len(self.memory.buddy.zones)

    def drain(self) -> tuple[int, int]:
        """All CPUs give back what they keep."""
        self.memory.buddy.drain_all()
        return 0, 0

    def decay(self) -> tuple[int, int]:
        """The vmstat worker's second."""
        self.memory.buddy.decay()
        return 0, 0

    def compact(self) -> tuple[int, int]:
        """Compact all zones; pages moved."""
        before = self.memory.counters["moved"]
        for zone in range(len(self.memory.buddy.zones)):
            Compaction(self.memory, zone, WHOLE_ZONE).run()
        return 0, self.memory.counters["moved"] - before

    def khugepaged(self, milliseconds: int, pages_to_scan: int = 4096, max_ptes_none: int = 511) -> tuple[int, int]:
        """Time passes for khugepaged; pages collapsed."""
        daemon = self.daemons.khugepaged
        self.memory.shrinker.max_none = max_ptes_none
        daemon.pages_to_scan, daemon.max_ptes_none = pages_to_scan, max_ptes_none
        return 0, daemon.tick(self.memory, milliseconds)

    def kcompactd(self, milliseconds: int, proactiveness: int = 20) -> tuple[int, int]:
        """Time passes for kcompactd; pages moved."""
        return 0, self.daemons.kcompactd(self.memory, milliseconds, proactiveness)
