"""A modelled host with the free memory that a recording found, and how its free memory is read."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from gmemlab.capture import capture
from gmemlab.core import layout
from gmemlab.core.layout import UNMOVABLE
from gmemlab.errors import UsageError
from gmemlab.kernel.observe.free_memory import FILES
from gmemlab.kernel.procfs import parse_zoneinfo
from gmemlab.kernel.quiet import SMALLEST_LISTS
from gmemlab.model.host import Host
from gmemlab.model.room import BLOCK_SIZE
from gmemlab.snapshot import Snapshot


def host_of(texts: Mapping[str, str], seed: int = 0, *, with_lists: bool = False) -> Host:
    """Return a host whose free lists are those of the kernel when its files were read.

    Args:
        texts: of each of `FILES`.
        seed: where their places are drawn from.
        with_lists: whether it has as many CPUs, which keep as little on lists of their own as `quiet` lets the kernel's.

    Raises:
        UsageError: one is missing, or tells of no CPU with lists where these are wanted.
        UnsupportedError: one is not of its form.
    """
    snapshot = snapshot_of(texts)
    if not with_lists:
        return Host.from_snapshot(snapshot, seed)
    cpus = max(len(zone.pcp_counts) for zone in parse_zoneinfo(texts["proc/zoneinfo"]))
    host = Host.from_snapshot(snapshot, seed, cpus=min(cpus, layout.MAX_CPUS))
    host.limit_cpu_lists(SMALLEST_LISTS)
    return host


def snapshot_of(texts: Mapping[str, str]) -> Snapshot:
    """Return the snapshot that a kernel's files of /proc make.

    Args:
        texts: of each of `FILES`.

    Raises:
        UsageError: one is missing.
        UnsupportedError: one is not of its form.
    """
    with TemporaryDirectory() as folder:
        for name in FILES:
            if name not in texts:
                raise UsageError("a step of the recording lacks a file of /proc", key=name)
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(texts[name], encoding="utf-8")
        return capture(Path(folder))


def free_by_order(host: Host) -> tuple[int, ...]:
    """Return the bytes that are free in chunks of each order; those on the CPUs' lists count as chunks of one page."""
    lists = len(host.state.zones) * layout.NR_MIGRATETYPES * layout.NR_ORDERS
    counts = host.state.free_lists["count"][:lists].reshape(-1, layout.NR_ORDERS).sum(axis=0)
    counts[0] += host.state.pcps["count"].sum()
    return tuple(int(count) * (layout.PAGE_SIZE << order) for order, count in enumerate(counts))


def unmovable(host: Host) -> int:
    """Return the bytes of page blocks, in use or free, that are unmovable."""
    blocks = host.state.blocks
    used = (blocks["kind"] != layout.HOLE) & (blocks["kind"] != layout.RESERVED)
    return int(np.count_nonzero(used & (blocks["migratetype"] == UNMOVABLE))) * BLOCK_SIZE
