"""Where free memory lies inside a machine of which only the counts are known.

The kernel tells how many free chunks of each order and migratetype a zone has, not where they are. Places are drawn from a
seed, so that the counts come out exactly and no two free buddies of one order stand side by side (they would have merged).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, MAX_PAGE_ORDER, MOVABLE, NR_MIGRATETYPES

Counts = NDArray[np.int64]  # free chunks [migratetype, order]


@dataclass(frozen=True)
class Placement:
    """A zone's blocks [first, first + len(types)): their migratetypes, and the free chunks (first frame, pages) in them."""

    first: int
    types: NDArray[np.int64]
    firsts: NDArray[np.int64]
    pages: NDArray[np.int64]
    unplaced: int  # free pages for which the blocks had no room


def place(first: int, blocks: Counts, chunks: Counts, rng: np.random.Generator) -> Placement:
    """Draw the places of a zone's free chunks.

    Args:
        first: number of the zone's first block.
        blocks: blocks of each migratetype.
        chunks: free chunks, shape (migratetypes, orders).
        rng: where the places are drawn from.
    """
    total = int(blocks.sum())
    types = np.full(total, -1, dtype=np.int64)
    taken = np.zeros(total, dtype=bool)
    pieces: list[tuple[int, int]] = []
    for order in (MAX_PAGE_ORDER, BLOCK_ORDER):
        _place_large(first, order, chunks[:, order], types, taken, pieces, rng)
    _deal_types(types, blocks, rng)
    firsts = [np.array([piece for piece, _ in pieces], dtype=np.int64)]
    pages = [np.array([size for _, size in pieces], dtype=np.int64)]
    unplaced = int((chunks * (1 << np.arange(chunks.shape[1]))).sum() - pages[0].sum())
    for migratetype in range(NR_MIGRATETYPES):
        holders = np.flatnonzero((types == migratetype) & ~taken)
        found = _place_small(holders, chunks[migratetype, :BLOCK_ORDER], rng)
        firsts.append(found[0] + first * BLOCK_PAGES)
        pages.append(found[1])
        unplaced -= int(found[1].sum())
    starts, sizes = np.concatenate(firsts), np.concatenate(pages)
    mixed = rng.permutation(len(starts))
    return Placement(first, types, starts[mixed], sizes[mixed], unplaced)


def _place_large(
    first: int, order: int, counts: Counts, types: Counts, taken: NDArray[np.bool_], pieces: list[tuple[int, int]],
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Place chunks of order 9 or 10: one to an aligned pair of blocks, so that no two of order 9 are buddies."""
    offset = first & 1
    pairs = np.arange(offset, len(types) - 1, 2)
    pairs = rng.permutation(pairs[~taken[pairs] & ~taken[pairs + 1]])
    wanted = np.repeat(np.arange(len(counts)), counts)[: len(pairs)]
    for migratetype, pair in zip(wanted.tolist(), pairs.tolist(), strict=False):
        if order == MAX_PAGE_ORDER:
            types[pair : pair + 2] = migratetype
            taken[pair : pair + 2] = True
            pieces.append(((first + pair) * BLOCK_PAGES, 2 * BLOCK_PAGES))
        else:
            half = pair + int(rng.integers(2))
            types[half] = migratetype
            taken[half] = True
            pieces.append(((first + half) * BLOCK_PAGES, BLOCK_PAGES))


def _deal_types(types: Counts, blocks: Counts, rng: np.random.Generator) -> None:
    """Give the blocks without a type the types that are left."""
    used = np.bincount(types[types >= 0], minlength=len(blocks))
    left = np.repeat(np.arange(len(blocks)), np.maximum(blocks - used, 0))
    empty = np.flatnonzero(types < 0)
    if len(left) < len(empty):
        left = np.concatenate([left, np.full(len(empty) - len(left), MOVABLE)])
    types[empty] = rng.permutation(left)[: len(empty)]


def _place_small(holders: Counts, counts: Counts, rng: np.random.Generator) -> tuple[Counts, Counts]:
    """Place chunks below order 9 in the given blocks, the largest first, at most one to a pair of buddies."""
    used = np.zeros(len(holders) * BLOCK_PAGES, dtype=bool)
    firsts: list[Counts] = []
    pages: list[Counts] = []
    for order in range(BLOCK_ORDER - 1, -1, -1):
        pair = 2 << order
        free = np.flatnonzero(~used.reshape(-1, pair).any(axis=1)) if len(used) else np.empty(0, dtype=np.int64)
        chosen = rng.choice(free, size=min(int(counts[order]), len(free)), replace=False)
        starts = chosen * pair + rng.integers(2, size=len(chosen)) * (1 << order)
        for step in range(1 << order):
            used[starts + step] = True
        firsts.append(holders[starts // BLOCK_PAGES] * BLOCK_PAGES + starts % BLOCK_PAGES)
        pages.append(np.full(len(starts), 1 << order, dtype=np.int64))
    return np.concatenate(firsts), np.concatenate(pages)
