"""The counters of the hugetlb pools: of the machine, and of each NUMA node."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gmemlab.errors import UnsupportedError
from gmemlab.kernel.features import HugetlbPool, read_hugetlb_pools
from gmemlab.kernel.observe.vmstat import read_count
from gmemlab.units import KIB

_LIVE: Final = Path("/")
_NODES: Final = "sys/devices/system/node"
_NODE: Final = re.compile(r"node(\d+)")


@dataclass(frozen=True, slots=True)
class NodePool:
    """A node's part of a pool: pages in all, free, surplus. Reservations belong to no node."""

    total: int
    free: int
    surplus: int


@dataclass(frozen=True, slots=True)
class Pool:
    """A hugetlb pool.

    Attributes:
        whole: pages of the machine: total, free, reserved, surplus.
        overcommit: how many surplus pages there may be.
        nodes: by node number.
    """

    whole: HugetlbPool
    overcommit: int
    nodes: Mapping[int, NodePool]


def read_pool(page_bytes: int, root: Path = _LIVE) -> Pool:
    """Return one pool.

    Args:
        page_bytes: the size of its pages.
        root: the directory that stands for ``/``.

    Raises:
        UnsupportedError: the kernel has no pool of that size.
        UsageError: a file is not a number.
    """
    name = f"hugepages-{page_bytes // KIB}kB"
    whole = next((pool for pool in read_hugetlb_pools(root) if pool.page_bytes == page_bytes), None)
    if whole is None:
        raise UnsupportedError(f"/sys/kernel/mm/hugepages/{name}", "this kernel lacks it")
    nodes = {}
    for folder in (root / _NODES).glob("node*"):
        match = _NODE.fullmatch(folder.name)
        place = f"{_NODES}/{folder.name}/hugepages/{name}"
        if match is not None and (root / place).is_dir():
            counts = (read_count(root, f"{place}/{kind}_hugepages") for kind in ("nr", "free", "surplus"))
            nodes[int(match[1])] = NodePool(*counts)
    overcommit = read_count(root, f"sys/kernel/mm/hugepages/{name}/nr_overcommit_hugepages")
    return Pool(whole, overcommit, dict(sorted(nodes.items())))
