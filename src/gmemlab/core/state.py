"""The state: one NamedTuple of record arrays over lazily backed memory.

Every table is reserved for its worst case and costs memory only where it was written, so nothing ever grows inside
compiled code.
"""

import mmap
from contextlib import suppress
from typing import Any, Final, NamedTuple

import numpy as np
from numba.core import config
from numpy.typing import NDArray

from gmemlab.core import layout, parts, state_type, tables
from gmemlab.core.daemons.record import DAEMONS, DEFAULTS, KCOMPACTD_INTERVAL
from gmemlab.core.interpreted import Rows

Records = np.recarray[Any, Any]

MAP_NORESERVE: Final = 0x4000
MAX_SLABS: Final = (1 << 22) - 1  # a frame slot is an int32: 2**22 slabs of 512 frames are 8 TiB of split memory
MAX_FILES: Final = 1 << 20
MAX_PINS: Final = 1 << 20
MAX_POLICIES: Final = 64
NR_EXTENT_CLASSES: Final = 40
WATERMARK_BOOST_FACTOR: Final = 15000  # of 10000 (mm/page_alloc.c)
COPIED_AT_ONCE: Final = 32 << 20  # bytes


class State(NamedTuple):
    """Host memory, files, policies and counters. Row 0 of every table means nil."""

    host: Records  # one record
    zones: Records
    nodes: Records
    zonelists: NDArray[np.int64]  # node * nr_zones + k: the zone that is asked k-th for memory that wants this node
    free_lists: Records  # (zone * NR_MIGRATETYPES + migratetype) * NR_ORDERS + order; isolated chunks by order; CPUs' lists
    pcps: Records  # zone * MAX_CPUS + cpu: what each CPU keeps
    blocks: Records  # every 2 MiB of host
    vmemmap: NDArray[np.int32]  # beside each, STRUCT_FRAMES rows: frames of its page structs restored after HVO, oldest first
    skip: NDArray[np.int8]  # beside each: whether compaction was there lately (PB_compact_skip)
    frames: Records  # slab * 512 + offset: every frame of a split block
    frame_slabs: Records
    files: Records
    file_blocks: Records  # every 2 MiB of every file
    hardware: Records  # beside each row of file_blocks: what SNP or TDX says of it
    pages: NDArray[np.int8]  # slab * 512 + offset: every page of a file block that is not uniform (`page_details`)
    page_frames: NDArray[np.int64]  # beside each: its frame or 0, in use where `mapping.frame_of` reads it
    page_slabs: Records
    extents: NDArray[np.int64]  # heads of free runs of file_blocks, by log2 of their length
    slots: Records  # file * MAX_SLOTS + k: memslots
    policies: Records
    pools: Records  # 0: 2 MiB pages, 1: 1 GiB pages
    node_pools: Records  # pool * MAX_NODES + node
    subpools: Records
    pins: Records
    daemons: Records  # one record
    control: Records  # one record: the run of compaction that goes on
    migratepages: NDArray[np.int64]  # folios that it isolated, by their first frames
    tally: NDArray[np.int64]
    table: NDArray[np.int64]  # for compiled code: address and length of each array above, then the parts' addresses (`parts`)


state_type.register(State)


def records(table: NDArray[Any]) -> Records:
    """The same rows, with their fields as attributes: what compiled code and the interpreted pass both read."""
    return table.view(Rows if config.DISABLE_JIT else np.recarray)


def reserve_plain(count: int, dtype: Any) -> NDArray[Any]:
    """A zeroed array of `count` rows that costs memory only where it is written."""
    length = max(count, 1) * np.dtype(dtype).itemsize
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    memory = mmap.mmap(-1, length, flags=flags)
    return np.frombuffer(memory, dtype=dtype, count=max(count, 1))


def reserve(count: int, dtype: np.dtype[Any]) -> Records:
    """`reserve_plain` of records."""
    return records(reserve_plain(count, dtype))


def nr_free_lists(nr_zones: int) -> int:
    """Rows of `free_lists` that come before the CPUs' lists."""
    return (nr_zones * layout.NR_MIGRATETYPES + 1) * layout.NR_ORDERS


def reserve_tables(nr_blocks: int, nr_zones: int) -> dict[str, Any]:
    """The arrays of a state, by field."""
    rows = nr_blocks + 1
    frame_slabs = min(rows + 1, MAX_SLABS)
    file_rows = 16 * rows + (1 << 22)
    page_slabs = min(4 * rows + (1 << 12), 1 << 30)
    return {
        "host": reserve(1, tables.HOST_RECORD),
        "zones": reserve(nr_zones, tables.ZONE),
        "nodes": reserve(layout.MAX_NODES, tables.NODE),
        "zonelists": np.tile(np.arange(nr_zones, dtype=np.int64), layout.MAX_NODES),
        "free_lists": reserve(nr_free_lists(nr_zones) + nr_zones * layout.MAX_CPUS * layout.NR_PCP_LISTS, tables.FREE_LIST),
        "pcps": reserve(nr_zones * layout.MAX_CPUS, tables.PCP_RECORD),
        "blocks": reserve(rows, tables.BLOCK),
        "vmemmap": reserve_plain(rows * layout.STRUCT_FRAMES, np.int32),
        "skip": np.zeros(rows, dtype=np.int8),
        "frames": reserve(frame_slabs * layout.BLOCK_PAGES, tables.FRAME),
        "frame_slabs": reserve(frame_slabs, tables.SLAB),
        "files": reserve(MAX_FILES, tables.FILE),
        "file_blocks": reserve(file_rows, tables.FILE_BLOCK),
        "hardware": reserve(file_rows, tables.HARDWARE),
        "pages": reserve_plain(page_slabs * layout.BLOCK_PAGES, np.int8),
        "page_frames": reserve_plain(page_slabs * layout.BLOCK_PAGES, np.int64),
        "page_slabs": reserve(page_slabs, tables.SLAB),
        "extents": np.zeros(NR_EXTENT_CLASSES, dtype=np.int64),
        "slots": reserve(MAX_FILES * layout.MAX_SLOTS, tables.SLOT),
        "policies": reserve(MAX_POLICIES, tables.POLICY),
        "pools": reserve(2, tables.POOL_RECORD),
        "node_pools": reserve(2 * layout.MAX_NODES, tables.NODE_POOL),
        "subpools": reserve(layout.MAX_SUBPOOLS, tables.SUBPOOL),
        "pins": reserve(MAX_PINS, tables.PIN_RECORD),
        "daemons": reserve(1, DAEMONS),
        "control": reserve(1, tables.COMPACT_CONTROL),
        "migratepages": np.zeros(layout.BLOCK_PAGES, dtype=np.int64),
        "tally": np.zeros(layout.NR_TALLIES, dtype=np.int64),
    }


def compiled_type() -> state_type.StateType:
    """What compiled code takes a state for, of whatever size."""
    return state_type.type_of(reserve_tables(1, 1))


def reserve_state(nr_blocks: int, nr_zones: int) -> State:
    """An empty state for a host of `nr_blocks` blocks of 2 MiB (numbered from 1) in `nr_zones` zones."""
    arrays = reserve_tables(nr_blocks, nr_zones)
    words = [word for array in arrays.values() for word in (array.ctypes.data, len(array))]
    table = np.array(words + parts.addresses(state_type.type_of(arrays)), dtype=np.int64)
    state = State(**arrays, table=table)
    host = state.host[0]
    host.nr_blocks = nr_blocks
    host.nr_zones = nr_zones
    host.nr_nodes = 1
    for name in ("frame_slabs", "page_slabs", "files", "pins", "file_blocks"):
        host[f"max_{name}"] = len(arrays[name])
    for name in ("next_frame_slab", "next_page_slab", "next_file", "next_pin", "next_extent"):
        host[name] = 1
    host.boost_factor = WATERMARK_BOOST_FACTOR
    for name, value in DEFAULTS.items():
        state.daemons[0][name] = value
    state.nodes["highest_zone"] = layout.ZONE_MOVABLE
    state.nodes["kcompactd_sleep"] = KCOMPACTD_INTERVAL
    return state


def prefer_huge_pages(state: State) -> None:
    """Back the details of frames and pages with huge pages from now on: a long run on a large host walks all over them."""
    for table in (state.frames, state.pages, state.page_frames):
        memory: Any = table
        while isinstance(memory, np.ndarray):
            memory = memory.base  # at last the view of the mapping that `reserve` made
        with suppress(OSError):  # a kernel without them
            memory.obj.madvise(mmap.MADV_HUGEPAGE)


def used_rows(state: State) -> dict[str, int]:
    """How many rows of each table were ever written, from row 0 on."""
    host = state.host[0]
    frame_slabs, page_slabs, files = int(host.next_frame_slab), int(host.next_page_slab), int(host.next_file)
    bounds = {
        "blocks": int(host.nr_blocks) + 1,
        "vmemmap": (int(host.nr_blocks) + 1) * layout.STRUCT_FRAMES if state.nodes[0].struct_frame else 0,
        "skip": int(host.nr_blocks) + 1,
        "frames": frame_slabs * layout.BLOCK_PAGES,
        "frame_slabs": frame_slabs,
        "files": files,
        "file_blocks": int(host.next_extent),
        "hardware": int(host.next_extent),
        "pages": page_slabs * layout.BLOCK_PAGES,
        "page_frames": page_slabs * layout.BLOCK_PAGES,
        "page_slabs": page_slabs,
        "slots": files * layout.MAX_SLOTS,
        "pins": int(host.next_pin),
    }
    return {name: min(bounds.get(name, len(array)), len(array)) for name, array in state._asdict().items() if name != "table"}


def copy_state(state: State) -> State:
    """The same state once more, in tables of its own; costs what was written.

    In slices: Python looks for signals between two of them only.
    """
    copy = reserve_state(int(state.host[0].nr_blocks), int(state.host[0].nr_zones))
    for name, rows in used_rows(state).items():
        source, target = getattr(state, name), getattr(copy, name)
        step = max(1, COPIED_AT_ONCE // source.itemsize)
        for first in range(0, rows, step):
            end = min(rows, first + step)
            target[first:end] = source[first:end]
    return copy


def written_bytes(state: State) -> int:
    """Bytes of the rows that were ever written."""
    return sum(rows * int(getattr(state, name).itemsize) for name, rows in used_rows(state).items())
