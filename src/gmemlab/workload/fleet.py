"""Which guests come, when, how large, and for how long (W2 to W4, P3, P4).

These are figures of ordinary VMs; that confidential ones are alike is an assumption, and lifetimes are censored (W3).
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gmemlab.errors import UsageError
from gmemlab.units import GIB, HOUR, MIB, format_size
from gmemlab.workload.schema import SMALLEST_GUEST, Guests, LifetimeColumn
from gmemlab.workload.stream import Ints

Floats = npt.NDArray[np.float64]

FOREVER: Final = 1 << 62  # destruction time of a guest that outlives every scenario

# W2: (hours, % of VMs that live at most so long), digitised; the first figure of V2 is an upper bound
LIFETIMES: Final[Mapping[LifetimeColumn, tuple[tuple[float, float], ...]]] = {
    "v1-public": ((1, 58), (2, 62), (5, 72), (15, 85), (30, 89), (100, 92), (200, 93)),
    "v2-public": ((1, 70), (2, 71), (5, 78), (10, 82), (15, 85), (20, 86), (30, 88), (40, 89), (60, 89), (100, 91)),
    "azure-2019": ((1, 68), (2, 72), (5, 80), (10, 84), (15, 87), (20, 89), (30, 90), (40, 90), (60, 91), (100, 92)),
}
# W4: (above GiB, up to GiB, % of VMs), digitised; V1's point masses have no width. 0 marks the open end.
SIZES: Final[Mapping[str, tuple[tuple[float, float, float], ...]]] = {
    "v1-public": (
        (0.75, 0.75, 2.5),
        (1.75, 1.75, 47.5),
        (3.5, 3.5, 24),
        (7, 7, 10.5),
        (8, 8, 0.7),
        (14, 14, 10.5),
        (56, 56, 4),
    ),
    "v2-public": ((0, 2, 12.4), (2, 4, 15.7), (4, 8, 37.3), (8, 32, 31.8), (32, 64, 2.8)),
    "azure-2019": ((0, 2, 12.4), (2, 4, 16.6), (4, 8, 32.8), (8, 32, 29), (32, 64, 6.4), (64, 0, 2.8)),
}
_QUANTILES: Final = 200_001  # midpoints at which lifetimes are averaged


@dataclass(frozen=True)
class Fleet:
    """The guests of a scenario by time of creation.

    Attributes:
        sizes: bytes.
        created: ns.
        destroyed: ns; beyond the duration of the scenario for those that stay.
        not_admitted: guests that were turned away because the host was full by their sizes.
        too_large: share of the size column's guests that this host could never hold; they are not offered to it.
    """

    sizes: Ints
    created: Ints
    destroyed: Ints
    not_admitted: int
    too_large: float

    def peak_bytes(self) -> int:
        """Return the largest sum of live guests' sizes."""
        times = np.concatenate([self.destroyed, self.created])
        change = np.concatenate([-self.sizes, self.sizes])[np.argsort(times, kind="stable")]
        return int(np.cumsum(change).max(initial=0))


def lifetime_quantile(settings: Guests, share: Floats) -> Floats:
    """Return the lifetimes (ns) below which these shares of all guests' lifetimes lie, ignoring `longest`.

    Between the points of W2 the logarithm of the lifetime is interpolated; below one hour from `shortest` on; beyond
    the last point the excess is exponential with mean `tail_mean`.
    """
    if settings.lifetimes == "forever" or settings.tail_mean is None:
        return np.full(share.shape, float(FOREVER))
    points = LIFETIMES[settings.lifetimes]
    reached = np.array([0.0] + [percent / 100 for _, percent in points])
    hours = np.array([settings.shortest / HOUR] + [hour for hour, _ in points])
    inside = np.exp(np.interp(share, reached, np.log(hours))) * HOUR
    beyond = np.maximum((1 - share) / (1 - reached[-1]), 1e-12)
    tail: Floats = hours[-1] * HOUR - settings.tail_mean * np.log(np.minimum(beyond, 1))
    return np.where(share <= reached[-1], inside, tail)


def _longest_share(settings: Guests) -> float:
    """Return the share of lifetimes that are at most `longest`, by bisection."""
    if settings.longest is None:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        short = lifetime_quantile(settings, np.array([middle]))[0] <= settings.longest
        low, high = (middle, high) if short else (low, middle)
    return low


def draw_lifetimes(settings: Guests, count: int, rng: np.random.Generator) -> Ints:
    """Return lifetimes (ns) of new guests, none longer than `longest`."""
    lives: Ints = lifetime_quantile(settings, rng.random(count) * _longest_share(settings)).astype(np.int64)
    return lives


def _lifetime_grid(settings: Guests) -> Floats:
    """Return equally likely lifetimes (ns); their mean is the truncated mean lifetime."""
    return lifetime_quantile(settings, (np.arange(_QUANTILES) + 0.5) / _QUANTILES * _longest_share(settings))


def draw_residuals(settings: Guests, count: int, rng: np.random.Generator) -> Ints:
    """Return how much longer (ns) guests live that are met at a random time: long lives are met more often.

    At least `shortest`, so that each of them comes up.
    """
    grid = _lifetime_grid(settings)
    met = np.cumsum(grid)
    lives = grid[np.minimum(np.searchsorted(met, rng.random(count) * met[-1]), _QUANTILES - 1)]
    residuals: Ints = np.maximum(lives * rng.random(count), settings.shortest).astype(np.int64)
    return residuals


def size_table(settings: Guests, load_bytes: int) -> tuple[Ints, Floats]:
    """Return the sizes (bytes) that guests can have, and how likely each is.

    W4's buckets become whole GiB (V1's sizes rounded up), so that every page size fits: the powers of two in a bucket,
    equally likely, or all whole GiB, each as likely as its part of the bucket on a logarithmic scale. Shares of the
    load are rounded down to 1 GiB, below 4 GiB to 2 MiB, but are at least 128 MiB.
    """
    if settings.sizes == "fixed":
        sizes = np.array(settings.fixed, np.int64)
        return sizes, np.full(len(sizes), 1 / len(sizes))
    if settings.sizes == "share":
        wanted = [int(load_bytes * share) for share in settings.shares]
        rounded = [size // GIB * GIB if size >= 4 * GIB else size // (2 * MIB) * 2 * MIB for size in wanted]
        sizes = np.maximum(np.array(rounded, np.int64), SMALLEST_GUEST)
        return sizes, np.full(len(sizes), 1 / len(sizes))
    chances: dict[int, float] = {}
    for low, high, percent in SIZES[settings.sizes]:
        for size, part in _bucket(low, high or settings.largest / GIB, settings.inside).items():
            chances[size] = chances.get(size, 0.0) + percent * part
    weights = np.array(list(chances.values()))
    return np.array(list(chances), np.int64) * GIB, weights / weights.sum()


def _bucket(low: float, high: float, inside: str) -> dict[int, float]:
    """Return the whole GiB of one bucket of W4 and how likely each is inside of it."""
    if low == high:
        return {int(np.ceil(high)): 1.0}
    top = int(high)
    if inside == "points":
        powers = [1 << bit for bit in range(top.bit_length()) if low < 1 << bit <= top] or [top]
        return {size: 1 / len(powers) for size in powers}
    bottom = max(low, 0.5)
    width = np.log(top / bottom)
    return {size: float(np.log(size / max(size - 1, bottom)) / width) for size in range(int(np.floor(bottom)) + 1, top + 1)}


def populate(settings: Guests, free_bytes: int, usable_bytes: int, duration: int, rng: np.random.Generator) -> Fleet:
    """Return the guests of a scenario.

    Args:
        settings: the scenario's [guests].
        free_bytes: what the host has free at the start; loads are shares of it.
        usable_bytes: what of it guests can have at most (without the host's background).
        duration: ns of simulated time.
        rng: where all chance comes from.

    Raises:
        UsageError: the guests, or the smallest of them, are larger than what the host has; with the place of [guests].
    """
    if settings.count is not None:
        return _counted(settings, settings.count, usable_bytes, rng)
    load_bytes = int(free_bytes * (settings.load or 0))
    capacity = min(int(free_bytes * (settings.load_cap or 0)), usable_bytes)
    sizes, chances = size_table(settings, load_bytes)
    fits = sizes <= capacity
    if not fits.any():
        raise _too_large(settings, int(sizes.min()), capacity)
    too_large = float(chances[~fits].sum())
    sizes, chances = sizes[fits], chances[fits] / chances[fits].sum()
    first = _initial(sizes, chances, load_bytes, capacity, rng)
    lives = draw_residuals(settings, len(first), rng)
    starts = np.arange(len(first), dtype=np.int64) * settings.fill_time // max(len(first), 1)
    rate = load_bytes / float(sizes @ chances) / float(_lifetime_grid(settings).mean())  # Little's law
    arrivals = np.sort(rng.integers(0, duration, int(rng.poisson(rate * duration))))
    wanted = rng.choice(sizes, len(arrivals), p=chances)
    ends = arrivals + draw_lifetimes(settings, len(arrivals), rng)
    admitted = _admit(first, starts + lives, arrivals, wanted, ends, capacity)
    created = np.concatenate([starts, arrivals[admitted]])
    order = np.argsort(created, kind="stable")
    return Fleet(
        np.concatenate([first, wanted[admitted]])[order],
        created[order],
        np.concatenate([starts + lives, ends[admitted]])[order],
        int(len(arrivals) - admitted.sum()),
        too_large,
    )


def _counted(settings: Guests, count: int, usable_bytes: int, rng: np.random.Generator) -> Fleet:
    """Return a given number of guests; fixed sizes in turn, others drawn."""
    sizes, chances = size_table(settings, 0)
    chosen = np.resize(sizes, count) if settings.sizes == "fixed" else rng.choice(sizes, count, p=chances)
    if int(chosen.sum()) > usable_bytes:
        raise _too_large(settings, int(chosen.max() if count == 1 else chosen.sum()), usable_bytes, count)
    starts = np.arange(count, dtype=np.int64) * settings.fill_time // count
    lives = draw_lifetimes(settings, count, rng)
    return Fleet(chosen.astype(np.int64), starts, starts + lives, 0, 0.0)


def _initial(sizes: Ints, chances: Floats, load_bytes: int, capacity: int, rng: np.random.Generator) -> Ints:
    """Return sizes of guests that make up the load at the start: the last one only if it brings the sum closer."""
    chosen: list[int] = []
    used = 0
    while True:
        size = int(rng.choice(sizes, p=chances))
        over = used + size - load_bytes
        if over > 0 and (over >= load_bytes - used or used + size > capacity):
            return np.array(chosen, np.int64)
        chosen.append(size)
        used += size


def _admit(first: Ints, first_ends: Ints, arrivals: Ints, wanted: Ints, ends: Ints, capacity: int) -> npt.NDArray[np.bool_]:
    """Return which arrivals find room for their whole size; guests that were there at the start have theirs."""
    live = list(zip(first_ends.tolist(), first.tolist(), strict=True))
    heapq.heapify(live)
    used = int(first.sum())
    admitted = np.zeros(len(arrivals), np.bool_)
    for index, (now, size, end) in enumerate(zip(arrivals.tolist(), wanted.tolist(), ends.tolist(), strict=True)):
        while live and live[0][0] <= now:
            used -= heapq.heappop(live)[1]
        if used + size <= capacity:
            admitted[index] = True
            used += size
            heapq.heappush(live, (end, size))
    return admitted


def _too_large(settings: Guests, size: int, room: int, count: int = 1) -> UsageError:
    who = f"a guest of {format_size(size)}" if count == 1 else f"{count} guests of {format_size(size)} in all"
    left = format_size(room)
    message = f"the scenario is larger than the host: {who} against {left} that the host has free for guests"
    return UsageError(message, file=settings.file, line=settings.line, key="guests", allowed=f"up to {left}")
