"""Host time of what the model counted: counts times the entries of a cost profile, as intervals.

Only what was counted and what the profile has is added up; the rest is named. No entry stands for another operation than its
own, with two exceptions: shmem with THP is the live stand-in for guest_memfd with 2M folios, which no kernel has yet
(live-kernel.md, section 2); and the ordinary memory beside a two-source guest, which is faulted in and discarded, is priced as
if it were guest_memfd's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gmemlab.costs import Profile
from gmemlab.lab.compare import Row
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


OPERATIONS: Final = (
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
    Operation("conver-\nsions", "conversions", "conversion"),
    Operation("2M\nentries", "entries_2m", "guest-fault-2m"),
    Operation("4K\nentries", "entries_4k", "guest-fault-4k"),
)
NOT_COUNTED: Final = "zeroing, but for hugetlb pages, which are zeroed when they are given; the calls themselves"


@dataclass(frozen=True)
class Interval:
    """Nanoseconds: least, most likely, most."""

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class HostTime:
    """Host time of one policy.

    Attributes:
        parts: by figure, for the operations that the profile has a cost for.
        total: of these.
        not_costed: entries that the profile lacks, of figures that are not 0.
    """

    parts: Mapping[str, Interval]
    total: Interval
    not_costed: tuple[str, ...]


def host_times(rows: Sequence[Row], profile: Profile) -> list[HostTime]:
    """Return the host time of each policy.

    Args:
        rows: of a comparison; the interval covers the range over the seeds as well.
        profile: the costs.
    """
    return [host_time(row, profile) for row in rows]


def host_time(row: Row, profile: Profile) -> HostTime:
    """Return the host time of one policy.

    Args:
        row: of a comparison.
        profile: the costs.
    """
    parts: dict[str, Interval] = {}
    missing: list[str] = []
    for operation in OPERATIONS:
        spread, cost = row.figures[operation.figure], profile.costs.get(operation.entry_for(row.policy))
        if spread is None or not spread.most:
            continue
        if cost is None:
            missing.append(operation.entry_for(row.policy))
        else:
            low, high = spread.least * cost.low, spread.most * cost.high
            parts[operation.figure] = Interval(low, spread.median * cost.value, high)
    total = Interval(*(sum(getattr(part, end) for part in parts.values()) for end in ("low", "value", "high")))
    return HostTime(parts, total, tuple(missing))
