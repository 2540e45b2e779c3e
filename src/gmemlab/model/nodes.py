"""The NUMA nodes of a modelled host: distances, the order in which they help each other out, and policies in words."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from gmemlab.core import layout
from gmemlab.core.layout import BLOCK_PAGES, GIGA_BLOCKS, MAX_NODES, PAGE_SIZE
from gmemlab.core.state import State
from gmemlab.errors import UsageError

LOCAL: Final = 10  # LOCAL_DISTANCE (include/linux/topology.h)
REMOTE: Final = 20  # REMOTE_DISTANCE: what Linux takes where firmware has no SLIT
FARTHEST: Final = 254  # a byte of the SLIT; 255 says unreachable
Distances = Sequence[Sequence[int]]
MODES: Final = {
    "local": layout.NODES_LOCAL,
    "bind": layout.NODES_BIND,
    "preferred": layout.NODES_PREFERRED,
    "interleave": layout.NODES_INTERLEAVE,
}
_FORMS: Final = "local, bind:NODES, preferred:NODE or interleave:NODES, as bind:0 or interleave:0-1,3"
_RANGE: Final = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?")


@dataclass(frozen=True)
class NodeUsage:
    """What one node has. Bytes, but for `free_2m` and the counters of allocations, which are those of its vmstat.

    Attributes:
        total: memory of its zones.
        free: on its free lists.
        kept: on the lists of CPUs.
        free_2m: 2M pages to be had from the free lists.
        pool: in hugetlb pools.
        pool_idle: of that, idle.
        numa_hit: allocations here that wanted this node.
        numa_miss: here, though another was wanted.
        numa_foreign: elsewhere, though this one was wanted.
    """

    total: int
    free: int
    kept: int
    free_2m: int
    pool: int
    pool_idle: int
    numa_hit: int
    numa_miss: int
    numa_foreign: int


def check_nodes(nodes: int, distances: Distances | None) -> tuple[tuple[int, ...], ...]:
    """See that it is a number of nodes, with distances that are possible. Returns the distances, 10 and 20 if None.

    Raises:
        UsageError: not 1 to 32; not a square table; or not 10 on the diagonal and 11 to 254 elsewhere.
    """
    if not isinstance(nodes, int) or isinstance(nodes, bool) or not 1 <= nodes <= MAX_NODES:
        raise UsageError("not a number of nodes", key="nodes", value=nodes, allowed=f"1 to {MAX_NODES}")
    if distances is None:
        return tuple(tuple(LOCAL if a == b else REMOTE for b in range(nodes)) for a in range(nodes))
    allowed = f"{nodes} rows of {nodes} numbers: {LOCAL} from a node to itself, {LOCAL + 1} to {FARTHEST} to others"
    try:
        table = tuple(tuple(int(number) for number in row) for row in distances)
    except (TypeError, ValueError):
        table = ()
    for a, row in enumerate(table):
        if len(row) != nodes or any((b == a) != (far == LOCAL) or not LOCAL <= far <= FARTHEST for b, far in enumerate(row)):
            raise UsageError("not distances of nodes", key="distances", value=str(row), allowed=allowed)
    if len(table) != nodes:
        raise UsageError("not distances of nodes", key="distances", value=str(distances), allowed=allowed)
    return table


def fallback_orders(distances: Distances, has_cpus: Sequence[bool]) -> list[list[int]]:
    """For each node, all nodes in the order in which it asks them (`build_zonelists`, `find_next_best_node`; 6.18).

    The nearest first. Of equally near ones the next higher, without CPUs, and not yet the first in other nodes' lists.
    """
    load = [0] * len(distances)
    orders = []
    for local, row in enumerate(distances):
        order = [local]
        while len(order) < len(row):
            left = [node for node in range(len(row)) if node not in order]
            best = min(left, key=lambda node: (row[node] + (node < local) + has_cpus[node], load[node], node))
            if row[best] != row[order[-1]]:
                load[best] += 1
            order.append(best)
        orders.append(order)
    return orders


def split_blocks(nr_blocks: int, nodes: int) -> list[tuple[int, int]]:
    """Blocks [start, end) of each of so many nodes of one size: borders at whole 1G where there is room, else at 4M."""
    unit = GIGA_BLOCKS if nr_blocks >= 2 * GIGA_BLOCKS * nodes else 2
    borders = [1, *(round(nr_blocks * node / nodes / unit) * unit for node in range(1, nodes)), nr_blocks + 1]
    return list(pairwise(borders))


def set_nodes(state: State, distances: Distances, cpus: int, has_cpus: Sequence[bool] | None = None) -> None:
    """Give a state whose zones know their nodes the nodes' CPUs, and the order in which zones are asked.

    Args:
        state: of which each node has a zone.
        distances: of all nodes.
        cpus: dealt out in equal, ascending parts to the nodes that have any.
        has_cpus: which have; all if None. Where CPUs are not modelled, it only serves to order the nodes.
    """
    nodes = len(distances)
    having = [True] * nodes if has_cpus is None else list(has_cpus)
    state.host[0].nr_nodes = nodes
    zones = [(int(zone.node), -int(zone.kind), number) for number, zone in enumerate(state.zones)]
    places, dealt = max(1, sum(having)), 0
    for node, order in enumerate(fallback_orders(distances, having)):
        record = state.nodes[node]
        record.has_dma32 = int(any(zone.kind == layout.ZONE_DMA32 for zone in state.zones if zone.node == node))
        first = cpus * dealt // places
        dealt += having[node]
        record.first_cpu, record.nr_cpus = first, cpus * dealt // places - first
        asked = [number for other in order for of, _, number in sorted(zones) if of == other]
        state.zonelists[node * len(zones) : (node + 1) * len(zones)] = asked


def parse_nodes(text: str, nr_nodes: int) -> tuple[int, int]:
    """A file's policy in words. Returns its mode (NODES_*) and the nodes that it names, as bits.

    Raises:
        UsageError: no such policy, nodes that are none, or that this host has not.
    """
    mode, colon, listed = text.partition(":") if isinstance(text, str) else ("", "", "")
    if mode not in MODES or (mode == "local") == bool(colon):
        raise UsageError("not a policy of nodes", key="nodes", value=text, allowed=_FORMS)
    numbers = _numbers(listed)
    if colon and (not numbers or (mode == "preferred" and len(numbers) > 1)):
        raise UsageError("not a policy of nodes", key="nodes", value=text, allowed=_FORMS)
    if max(numbers, default=0) >= nr_nodes:
        allowed = f"nodes 0 to {nr_nodes - 1}" if nr_nodes > 1 else "node 0"
        raise UsageError("this host has no such node", key="nodes", value=text, allowed=allowed)
    return MODES[mode], sum(1 << number for number in numbers)


def _numbers(listed: str) -> set[int]:
    """The numbers of a list like 0-1,3; none where it is no list."""
    numbers: set[int] = set()
    for item in listed.split(","):
        match = _RANGE.fullmatch(item)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            return set()
        numbers.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return numbers


def check_node(node: int, nr_nodes: int, key: str = "node") -> None:
    """See that a host of so many nodes has this one. UsageError if not."""
    if not isinstance(node, int) or isinstance(node, bool) or not 0 <= node < nr_nodes:
        raise UsageError("this host has no such node", key=key, value=node, allowed=f"0 to {nr_nodes - 1}")


def usage_of_nodes(state: State) -> list[NodeUsage]:
    """What each node has."""
    found = []
    kept = state.pcps["count"].reshape(len(state.zones), layout.MAX_CPUS).sum(axis=1)
    for node in range(int(state.host[0].nr_nodes)):
        zones = [number for number, zone in enumerate(state.zones) if zone.node == node]
        pools = [(state.node_pools[pool * MAX_NODES + node], size) for pool, size in ((0, BLOCK_PAGES), (1, 1 << 18))]
        record = state.nodes[node]
        found.append(
            NodeUsage(
                total=sum(int(state.zones[zone].end - state.zones[zone].start) for zone in zones) * BLOCK_PAGES * PAGE_SIZE,
                free=sum(int(state.zones[zone].free) for zone in zones) * PAGE_SIZE,
                kept=sum(int(kept[zone]) for zone in zones) * PAGE_SIZE,
                free_2m=sum(_free_blocks(state, zone) for zone in zones),
                pool=sum(int(part.nr) * pages for part, pages in pools) * PAGE_SIZE,
                pool_idle=sum(int(part.free) * pages for part, pages in pools) * PAGE_SIZE,
                numa_hit=int(record.hit),
                numa_miss=int(record.miss),
                numa_foreign=int(record.foreign),
            )
        )
    return found


def _free_blocks(state: State, zone: int) -> int:
    """Free 2M blocks of a zone, of any migratetype."""
    rows = layout.NR_MIGRATETYPES * layout.NR_ORDERS
    counts = state.free_lists["count"][zone * rows : (zone + 1) * rows].reshape(-1, layout.NR_ORDERS)
    return int((counts[:, layout.BLOCK_ORDER] + 2 * counts[:, layout.MAX_PAGE_ORDER]).sum())
