"""The oracle's NUMA nodes: who helps out whom, and which node a page of a file wants (mm/page_alloc.c, mm/mempolicy.c)."""

from collections import Counter
from dataclasses import dataclass, field

from gmemlab.core.layout import (
    BLOCK_PAGES,
    KIND_ANON,
    KIND_GUEST_MEMFD,
    KIND_SHMEM,
    NODES_BIND,
    NODES_INTERLEAVE,
    NODES_PREFERRED,
    NODES_SPREAD,
)
from oracle_files import File


@dataclass
class Nodes:
    """`of_zone`: the node of each zone. `nearest`: for each node, all of them in the order in which they are asked."""

    of_zone: list[int]
    nearest: list[list[int]]
    hit: Counter[int] = field(default_factory=Counter)
    miss: Counter[int] = field(default_factory=Counter)
    foreign: Counter[int] = field(default_factory=Counter)
    missed_pages: int = 0
    cpus: int = 0

    def count(self) -> int:
        return len(self.nearest)

    def several(self) -> bool:
        return self.count() > 1

    def note(self, wanted: int, got: int, order: int) -> None:
        """Count an allocation; hosts of one node do not."""
        if not self.several():
            return
        if wanted == got:
            self.hit[got] += 1
        else:
            self.miss[got] += 1
            self.foreign[wanted] += 1
            self.missed_pages += 1 << order

    def of_cpu(self, cpu: int) -> int:
        """CPUs are dealt out in ascending, equal parts."""
        return next(node for node in range(self.count()) if cpu < self.cpus * (node + 1) // self.count())

    def observe(self) -> list[tuple[int, int, int]]:
        return [(self.hit[node], self.miss[node], self.foreign[node]) for node in range(self.count())]


def nearest_first(distances: list[list[int]]) -> list[list[int]]:
    """All nodes have CPUs. Of equally near ones: those above first, then those that head fewer groups, then by number."""
    heads: Counter[int] = Counter()
    found = []
    for local in range(len(distances)):
        order, last = [local], distances[local][local]
        rest = set(range(len(distances))) - {local}
        while rest:
            best = min(rest, key=lambda n: (distances[local][n] + (1 if n < local else 0), heads[n], n))
            rest.remove(best)
            order.append(best)
            if distances[local][best] != last:
                heads[best] += 1
            last = distances[local][best]
        found.append(order)
    return found


def wanted(nodes: Nodes, file: File, index: int, order: int, cpu: int) -> tuple[int, set[int] | None]:
    """The node that a folio wants, and those that are allowed; None for all. A guest_memfd that interleaves goes on by one."""
    local = nodes.of_cpu(cpu) if nodes.cpus else file.home
    mine = sorted(file.allowed)
    if not nodes.several():
        return 0, None
    if file.node_mode == NODES_BIND:
        return local, set(mine)
    if file.node_mode == NODES_PREFERRED:
        return mine[0], None
    if file.node_mode == NODES_SPREAD:
        return index // BLOCK_PAGES % nodes.count(), None
    if file.node_mode == NODES_INTERLEAVE and file.policy.kind == KIND_GUEST_MEMFD:
        later = [node for node in mine if node > file.il_prev]
        file.il_prev = (later or mine)[0]
        return file.il_prev, None
    if file.node_mode == NODES_INTERLEAVE:
        return mine[(index // 2**order) % len(mine)], None
    return local, None


def is_sought_near(file: File, node: int, allowed: set[int] | None) -> bool:
    """A huge page of ordinary memory is sought on its node alone, first."""
    ordinary = file.policy.kind in (KIND_SHMEM, KIND_ANON)
    return ordinary and file.node_mode != NODES_INTERLEAVE and (allowed is None or node in allowed)
