"""What can be seen of the core's page states."""

from gmemlab.core import layout
from gmemlab.core.layout import BLOCK_PAGES, FRAME_ORPHAN, ORPHAN, SPLIT
from gmemlab.core.state import State


def observe_entries(state: State, file: int) -> dict[int, tuple[int, int]]:
    """(one RMP entry, one-way mark) of every 2 MiB of file for which one of them is set."""
    record = state.files[file]
    marks = state.hardware.marks[int(record.first_block) :][: -(-int(record.pages) // BLOCK_PAGES)].tolist()
    assert not any(mark & layout.ZAPPED for mark in marks)
    seen = ((mark & layout.RMP_WHOLE, mark // layout.ONE_WAY & 1) for mark in marks)
    return {block: pair for block, pair in enumerate(seen) if any(pair)}


def count_kept_entries(state: State) -> int:
    """Frames of orphans that the RMP still gives to a guest."""
    found = 0
    for block in range(1, int(state.host[0].nr_blocks) + 1):
        record = state.blocks[block]
        if record.kind == ORPHAN:
            found += BLOCK_PAGES if record.assigned < 0 else int(record.assigned)
        elif record.kind == SPLIT:
            base = int(record.detail) * BLOCK_PAGES
            frames = state.frames[base : base + BLOCK_PAGES]
            found += int(frames["index"][frames["kind"] == FRAME_ORPHAN].sum())
    assert found == state.host[0].kept_entries
    return found


def observe_operations(state: State) -> dict[tuple[int, int], int]:
    """What the hardware did, by operation and phase."""
    counts = state.tally[layout.TALLY_HARDWARE : layout.TALLY_HAZARD].tolist()
    return {divmod(place, layout.NR_PHASES): count for place, count in enumerate(counts) if count}


def observe_hazards(state: State) -> dict[tuple[int, int], int]:
    """Pages that what must not happen hit, by kind and by the operation that led to it."""
    counts = state.tally[layout.TALLY_HAZARD :].tolist()
    return {divmod(place, layout.NR_OPS): count for place, count in enumerate(counts) if count}
