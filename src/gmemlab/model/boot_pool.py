"""Pools that boot fills, before anything else is in memory (hugepagesz= and hugepages= on the command line)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gmemlab.core.layout import PAGE_SIZE
from gmemlab.model import machine
from gmemlab.model.guest import GuestMemory
from gmemlab.model.nodes import check_node
from gmemlab.model.pools import order_of
from gmemlab.units import format_size, parse_size

if TYPE_CHECKING:
    from gmemlab.model.host import Host

BootPool = Mapping[int | str, int | Mapping[int, int]]
Taken = list[tuple[int, int | None, int]]


def check_boot_pool(boot_pool: BootPool, nr_nodes: int) -> Taken:
    """The pages that boot is to take: of which size, on which node (None: on all in turn), how many; the largest first.

    UsageError where there is no such pool or node, or a count is none.
    """
    found = []
    for page, wanted in boot_pool.items():
        counts = dict(wanted) if isinstance(wanted, Mapping) else {None: wanted}
        order_of(page, *counts.values())
        for node, count in counts.items():
            if node is not None:
                check_node(node, nr_nodes)
            found.append((parse_size(page), node, count))
    return sorted(found, key=lambda one: -one[0])


def describe_boot(taken: Taken) -> str:
    """What boot was to take, for a line for people."""
    pages = " and ".join(
        f"{sum(count for size, _, count in taken if size == page):,} of {format_size(page)}"
        for page in dict.fromkeys(page for page, _, _ in taken)
    )
    return f", huge pages from boot on: {pages}" if taken else ""


def take(host: "Host", taken: Taken, hvo: bool) -> tuple[str, ...]:
    """Fill the pools of a machine on which nothing else is yet. Returns what could not be had."""
    got = [(page, count, host.grow_pool(page, count, hvo, node)) for page, node, count in taken]
    return tuple(
        f"of {count:,} pages of {format_size(page)} that boot was to take there were {done:,}"
        for page, count, done in got
        if done < count
    )


def keep_loose(host: "Host") -> list[GuestMemory]:
    """Take what HVO gave back in pieces below 2M, so that what comes next lies block by block. Nothing without such pieces."""
    loose = host.free_bytes - machine.free_in_blocks(host.state) * PAGE_SIZE
    kept = [host.background(loose, movable=True)] if loose else []
    for one in kept:
        one.allocate()
    return kept
