"""The sizes that a policy may name: of its folios, and of its pool."""

from typing import Final

from gmemlab.errors import UsageError
from gmemlab.units import format_size, parse_size

PAGE: Final = 4096
ORDER_2M: Final = 9
ORDER_1G: Final = 18
LARGEST_POOL: Final = 64 << 40  # bytes: as much as the largest host has


def check_sizes(key: str, sizes: tuple[int, ...]) -> None:
    """Sizes must be powers of two from 4K to 2M, or 1G alone, largest first."""
    allowed = "powers of two from 2M down to 4K, largest first; 2M or 1G alone"
    if not isinstance(sizes, tuple) or not all(type(size) is int for size in sizes):
        raise UsageError("not a tuple of bytes", key=key, value=sizes, allowed=f"{allowed}: (2097152, 4096)")
    shown = ",".join(format_size(size) for size in sizes)
    powers = all(size >= PAGE and size & (size - 1) == 0 for size in sizes)
    if not sizes or not powers or list(sizes) != sorted(set(sizes), reverse=True):
        raise UsageError("not a ladder of page sizes", key=key, value=shown, allowed=allowed)
    if any(size > PAGE << ORDER_2M for size in sizes) and sizes != (PAGE << ORDER_1G,):
        raise UsageError(
            "the buddy allocator hands out at most 4M, and no THP is larger than 2M", key=key, value=shown, allowed=allowed
        )


def check_pool(pool: str, page: int) -> None:
    """A pool's size: auto, a share of free memory, or bytes: at least one of its pages, at most what the largest host has."""
    allowed = f"auto, a size from {format_size(page)} to {format_size(LARGEST_POOL)}, or a share of free memory such as 80%"
    if pool == "auto":
        return
    try:
        if isinstance(pool, str) and pool.endswith("%"):
            good = pool[:-1].isascii() and pool[:-1].isdigit() and 0 < int(pool[:-1]) <= 100
        else:
            good = isinstance(pool, str) and page <= parse_size(pool) <= LARGEST_POOL
    except (UsageError, ValueError):
        good = False
    if not good:
        raise UsageError("not a size of a pool", key="pool", value=pool, allowed=allowed)


def parse_sizes(text: str) -> tuple[int, ...]:
    """`2M,64K,4K` as bytes; `+` may stand for the comma where a shell list uses it."""
    return tuple(parse_size(part) for part in text.replace("+", ",").split(","))
