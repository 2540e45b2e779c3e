"""What a host may be told of when it is made: sizes, shares, seeds; and which snapshots are ones of hosts that are modelled."""

from typing import Final

from gmemlab.core.layout import PAGE_SIZE
from gmemlab.errors import UsageError
from gmemlab.model.machine import MAX_FRAGMENTATION
from gmemlab.model.room import BLOCK_SIZE
from gmemlab.snapshot import Snapshot
from gmemlab.units import format_size, parse_size

LEAST: Final = 32 * BLOCK_SIZE  # of a node
LARGEST: Final = 64 << 40


def check_host_size(size: int | str) -> int:
    """The bytes of a host. UsageError if it is no multiple of 2M from 64M to 64T."""
    total = parse_size(size)
    if total % BLOCK_SIZE or not LEAST <= total <= LARGEST:
        raise UsageError("not a size of a host", key="host", value=str(size), allowed="multiples of 2M from 64M to 64T")
    return total


def check_node_size(total: int, nodes: int) -> None:
    """See that each of so many nodes has 64M. UsageError where it has less."""
    if total < LEAST * nodes:
        allowed = f"{total // LEAST} nodes of {format_size(total)}, or a larger host"
        raise UsageError("nodes smaller than 64M", key="nodes", value=nodes, allowed=allowed)


def check_fragmentation(fragmentation: float | None) -> None:
    """See that it is a share that can be reached. UsageError for others."""
    if fragmentation is None or (isinstance(fragmentation, int | float) and 0 <= fragmentation <= MAX_FRAGMENTATION):
        return
    allowed = f"0 to {MAX_FRAGMENTATION}"
    raise UsageError("not a fragmentation", key="fragmentation", value=str(fragmentation), allowed=allowed)


def check_seed(seed: int) -> None:
    """See that it is a seed. UsageError for others."""
    if not isinstance(seed, int) or seed < 0:
        raise UsageError("not a seed", key="seed", value=seed, allowed="a whole number, 0 or more")


def check_cma(cma: int | str, node: int, fragmented: bool) -> int:
    """CMA in bytes, which lies in one node of so many bytes. UsageError where it cannot, or the machine is to be fragmented."""
    size = parse_size(cma)
    if size % BLOCK_SIZE or not 0 <= size <= node // 2:
        raise UsageError("not a size of CMA", key="cma", value=str(cma), allowed="multiples of 2M up to half of a node")
    if size and fragmented:
        raise UsageError("a machine with CMA is not fragmented on purpose", key="cma", value=str(cma), allowed="0")
    return size


def check_snapshot(snapshot: Snapshot) -> None:
    """See that it is one of a host that is modelled. UsageError where it is impossible, or has memory beyond 64T."""
    snapshot.check()
    for index, zone in enumerate(snapshot.zones):
        if (zone.start_pfn + zone.spanned_pages) * PAGE_SIZE > LARGEST:
            key, allowed = f"zones[{index}].spanned_pages", f"zones that end below {format_size(LARGEST)}"
            raise UsageError("larger than any host that is modelled", key=key, value=zone.spanned_pages, allowed=allowed)
