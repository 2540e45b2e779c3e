"""Time of what the model counted: counts times the entries of cost profiles, as intervals.

Only what was counted and what a profile has is added up; the rest is named. Two kinds of work are told apart, as they are
priced by different profiles. Host time is what files were given and gave back: `gmemlab calibrate` measures it. Page states are
what the guests' hardware did, by phase of the guests' lives: the shipped profiles bound it, and where the ends of an interval
are further apart than `USELESS_SPREAD`, it tests nothing.

No entry stands for another operation than its own, with two exceptions: shmem with THP is the live stand-in for guest_memfd
with 2M folios, which no kernel has yet (live-kernel.md, section 2); and the ordinary memory beside a two-source guest, which
is faulted in and discarded, is priced as if it were guest_memfd's.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gmemlab.costs import FREE, USELESS_SPREAD, Costs
from gmemlab.lab.compare import Row, Spread
from gmemlab.model.guests import PHASES
from gmemlab.policy import Policy


class Operation(NamedTuple):
    """An operation of the host.

    Attributes:
        title: for a column.
        figure: the key in `FIGURES` that counts it.
        entry: of a cost profile, per one of what the figure counts.
        pool_entry: the entry for policies whose pages are from a pool, where it is another.
    """

    title: str
    figure: str
    entry: str
    pool_entry: str = ""

    def entry_for(self, policy: Policy) -> str:
        """The entry for a policy."""
        return self.pool_entry if self.pool_entry and policy.source == "pool" else self.entry


HOST_OPERATIONS: Final = (
    Operation("4K\ngiven", "allocated_4k", "guest-memfd-fallocate"),
    Operation("4K\nfreed", "released_4k", "guest-memfd-punch"),
    Operation("2M\ngiven", "allocated_2m", "shmem-2m-fallocate", "hugetlb-2m-fallocate"),
    Operation("2M\nfreed", "released_2m", "shmem-2m-punch", "hugetlb-2m-punch"),
    Operation("other\ngiven", "allocated_other", "fallocate-of-other-sizes"),
    Operation("other\nfreed", "released_other", "punch-of-other-sizes"),
    Operation("1G\ngiven", "allocated_1g", "hugetlb-1g-fallocate"),
    Operation("1G\nfreed", "released_1g", "hugetlb-1g-punch"),
    # The split, and one page freed (L13), which is in "4K freed" as well: 4% of it.
    Operation("split by\npunch", "split_by_punch", "shmem-2m-punch-page"),
    # costs.md, section 8: nobody published what these take.
    Operation("split by\nconv.", "split_by_conversion", "split-by-conversion"),
    Operation("\nmerged", "backing_healed", "merge"),
    Operation("\ncollapsed", "collapsed", "shmem-2m-collapse"),
    Operation("moved to\ncompact", "compact_moved", "compaction-move"),
    Operation("dropped by\nkswapd", "pgsteal_kswapd", "reclaim"),
    Operation("dropped\ndirectly", "pgsteal_direct", "reclaim"),
)
NOT_COUNTED: Final = (
    "zeroing, but for hugetlb pages, which are zeroed when they are given (page states have it for all guest_memfd, so that"
    " theirs is in both); the calls themselves; faults and conversions (page states)"
)


@dataclass(frozen=True)
class Interval:
    """Nanoseconds: least, most likely, most."""

    low: float
    value: float
    high: float

    @property
    def useless(self) -> bool:
        """Whether the ends are too far apart to test anything."""
        return self.high > USELESS_SPREAD * self.low

    def scaled(self, factor: float) -> "Interval":
        """The interval times a number from 0 on."""
        return Interval(self.low * factor, self.value * factor, self.high * factor)


@dataclass(frozen=True)
class Time:
    """What some work takes.

    Attributes:
        parts: by name of what was counted, for what a profile has a cost for.
        not_costed: entries that no profile has, of what was counted.
    """

    parts: Mapping[str, Interval]
    not_costed: tuple[str, ...]

    @property
    def total(self) -> Interval:
        """Of all parts."""
        return total(self.parts.values())


def total(intervals: Iterable[Interval]) -> Interval:
    """Return the sum: least of all, most of all."""
    low = value = high = 0.0
    for interval in intervals:
        low, value, high = low + interval.low, value + interval.value, high + interval.high
    return Interval(low, value, high)


def price(counted: Mapping[str, tuple[Spread | None, str]], costs: Costs) -> Time:
    """Return what some work takes; the interval covers the range over the seeds as well.

    Args:
        counted: by name: how often, and the entry that it is priced by.
        costs: the profiles.
    """
    parts: dict[str, Interval] = {}
    missing: list[str] = []
    for name, (spread, entry) in counted.items():
        if spread is None or not spread.most:
            continue
        cost = costs.get(entry)
        if cost is None:
            missing.append(entry)
        else:
            parts[name] = Interval(spread.least * cost.low, spread.median * cost.value, spread.most * cost.high)
    return Time(parts, tuple(missing))


def host_time(row: Row, costs: Costs) -> Time:
    """Return what the host's work took under one policy, by figure."""
    counted = {
        operation.figure: (row.figures[operation.figure], operation.entry_for(row.policy)) for operation in HOST_OPERATIONS
    }
    return price(counted, costs)


def host_times(rows: Sequence[Row], costs: Costs) -> list[Time]:
    """Return the host's time under each policy."""
    return [host_time(row, costs) for row in rows]


def page_state_times(row: Row, costs: Costs) -> dict[str, Time]:
    """Return what page states took under one policy, by phase, then by operation; what takes no time is left out."""
    return {
        phase: price(
            {name: (phases[phase], name) for name, phases in row.operations.items() if name not in FREE},
            costs,
        )
        for phase in PHASES
    }
