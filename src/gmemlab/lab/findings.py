"""Two or three sentences that say what a comparison shows, computed from its figures.

Each topic looks for its largest effect and weighs it; the first sentence is about the mappings, the others are the
heaviest of the rest. Differences below a topic's tolerance, or inside the spread over the seeds, are no differences.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from gmemlab.lab.compare import Row, Spread
from gmemlab.units import format_size

MOST_SENTENCES: Final = 3
COVERAGE: Final = "mapped_2m_mean"
LEAST_WEIGHT: Final = 0.005
SHARE_TOLERANCE: Final = 0.005
RATIO_TOLERANCE: Final = 0.005
LEAST_GIGA_PAGES: Final = 4  # below, one 1G page more or less says nothing
FAILURE_TOLERANCE: Final = 0.05  # share of launches; a policy that fails more has other guests than the rest
LOST_WEIGHT: Final = 2.0  # lost data matters more than any share
STALE_WEIGHT: Final = 0.1
RUNTIME_WEIGHT: Final = 0.1  # at least: a running guest that finds no memory stops

# What host memory goes to, and the figures that add up to it.
_COMPONENTS: Final = {
    "memory that guests map as private": ("peak_mapped",),
    "shared and spare memory": ("peak_unmapped", "peak_shared_side"),
    "memory that was punched but is still charged": ("peak_stranded",),
    "memory idle in its pool": ("peak_pool_idle",),
    "page structs of split pages": ("peak_structs",),
    "page tables": ("peak_tables",),
}


class Finding(NamedTuple):
    """A sentence, and how much it matters: roughly the relative size of the effect."""

    weight: float
    text: str


Topic = Callable[[Sequence[Row]], Finding | None]


def findings(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the sentences for a comparison's rows; at least one, at most three."""
    others = [finding for topic in _TOPICS if (finding := topic(rows)) is not None and finding.weight >= LEAST_WEIGHT]
    others.sort(key=lambda finding: -finding.weight)
    sentences = [_coverage(rows), *(finding.text for finding in others[: MOST_SENTENCES - 1])]
    if not others and len(rows) > 1:
        sentences.append("In host memory, failures and what they leave behind the policies make no difference.")
    return tuple(sentences)


def _comparable(rows: Sequence[Row]) -> list[Row]:
    """The rows whose guests mapped something and were started as often as elsewhere; best coverage over time first.

    Policies that fail more launches than the others are left out: a share of fewer guests is no merit.
    """
    known = [row for row in rows if row.figures[COVERAGE] is not None]
    fewest = min((_share(row, "launches_failed", "launches") for row in known), default=0.0)
    able = [row for row in known if _share(row, "launches_failed", "launches") <= fewest + FAILURE_TOLERANCE]
    return sorted(able, key=lambda row: -_median(row, COVERAGE))


def _coverage(rows: Sequence[Row]) -> str:
    """Who keeps the most mapped at 2M over time, against `4k` or the worst, and against the null model."""
    known = _comparable(rows)
    if not known:
        return "No guest mapped any private memory."
    best, worst = known[0], known[-1]
    share = _median(best, COVERAGE)
    null = best.null[COVERAGE]
    ending = (f"; simple arithmetic says {null.median:.1%}" if null else "") + _caveat(best)
    if len(known) == 1:
        return f"{best.policy.name} keeps {share:.1%} of the private memory that guests map at 2M, over time{ending}."
    if not _apart(best, worst, COVERAGE, SHARE_TOLERANCE):
        who = "All policies" if len(known) == len(rows) else _names(known)
        return f"{who} keep the same share of mapped private memory at 2M, over time: {share:.1%}{ending}."
    leaders = [row for row in known if not _apart(best, row, COVERAGE, SHARE_TOLERANCE)]
    reference = next((row for row in known if row.policy.name == "4k" and row not in leaders), worst)
    verb = "keeps" if len(leaders) == 1 else "keep"
    more = (share - _median(reference, COVERAGE)) * 100
    return (
        f"{_names(leaders)} {verb} the most at 2M: {share:.1%} of the private memory that guests map, over time,"
        f" {more:.1f} points more than {reference.policy.name}{ending}."
    )


def _memory(rows: Sequence[Row]) -> Finding | None:
    """Who needs the most host memory per byte of guests, and what makes the difference."""
    key = "peak_host_per_guest"
    known = [row for row in rows if row.figures[key] is not None]
    if len(known) < 2:
        return _memory_alone(known[0]) if known else None
    most = max(known, key=lambda row: _median(row, key))
    least = min(known, key=lambda row: _median(row, key))
    if not _apart(most, least, key, RATIO_TOLERANCE):
        return None
    extra = {name: _per_guest(most, keys) - _per_guest(least, keys) for name, keys in _COMPONENTS.items()}
    cause = max(extra, key=lambda name: extra[name])
    high, low = _median(most, key), _median(least, key)
    return Finding(
        (high - low) / low,
        f"{most.policy.name} costs the host the most: {high:.2f} bytes per byte of guests at the peak, against {low:.2f}"
        f" with {least.policy.name}; most of the difference is {cause} ({extra[cause]:.2f}).",
    )


def _memory_alone(row: Row) -> Finding:
    high, null = _median(row, "peak_host_per_guest"), row.null["peak_host_per_guest"]
    expected = null.median if null else 1.0
    text = f"At the peak it costs the host {high:.2f} bytes per byte of guests; simple arithmetic says {expected:.2f}."
    return Finding(abs(high - expected), text)


def _left_behind(rows: Sequence[Row]) -> Finding | None:
    """Who leaves the host with the fewest huge pages after all guests have left, of those that could be left."""
    candidates = []
    for size, least in (("2m", 1), ("1g", LEAST_GIGA_PAGES)):
        known = [row for row in rows if _possible(row, size) >= least]
        if known:
            worst = min(known, key=lambda row: _kept(row, size))
            best = max(known, key=lambda row: _kept(row, size))
            reach = 1.0 if len(rows) == 1 else _kept(best, size)
            candidates.append(Finding(reach - _kept(worst, size), _left_sentence(worst, best, size)))
    return max(candidates, default=None)


def _left_sentence(worst: Row, best: Row, size: str) -> str:
    text = (
        f"After all guests have left, {worst.policy.name} leaves {_left(worst, size)} possible {size.upper()} pages to be had"
    )
    if worst is best:
        return f"{text}{_pools((worst,))}."
    return f"{text}, {best.policy.name} {_left(best, size)}{_pools((worst, best))}."


def _failed_launches(rows: Sequence[Row]) -> Finding | None:
    """Who fails the most launches."""
    worst = max(rows, key=lambda row: _share(row, "launches_failed", "launches"))
    failed, tried = _median(worst, "launches_failed"), _median(worst, "launches")
    if not failed:
        return None
    null = worst.null["launches_failed"]
    expected = f"; simple arithmetic expects {_count(null.median)}" if null else ""
    return Finding(failed / tried, f"{worst.policy.name} fails {_count(failed)} of {_count(tried)} launches{expected}.")


def _runtime_failures(rows: Sequence[Row]) -> Finding | None:
    """Whose running guests find no memory most often; of the best coverage's policy the first sentence says so."""
    worst = max(rows, key=lambda row: _median(row, "runtime_failures"))
    failed = _median(worst, "runtime_failures")
    if not failed or worst in _comparable(rows)[:1]:
        return None
    text = f"Under {worst.policy.name} {_count(failed)} operations of running guests find no memory."
    return Finding(max(RUNTIME_WEIGHT, _share(worst, "runtime_failures", "conversions")), text)


def _refusals(rows: Sequence[Row]) -> Finding | None:
    """Whose conversions are refused most often."""
    worst = max(rows, key=lambda row: _share(row, "conversions_refused", "conversions"))
    weight = _share(worst, "conversions_refused", "conversions")
    refused, tried = _median(worst, "conversions_refused"), _median(worst, "conversions")
    text = f"{worst.policy.name} refuses {_count(refused)} of {_count(tried)} conversions with EAGAIN (pins, references)."
    return Finding(weight, text) if refused else None


def _contents(rows: Sequence[Row]) -> Finding | None:
    """Whose failed splits lose contents or leave stale ones."""
    worst = max(rows, key=lambda row: (_median(row, "lost"), _median(row, "stale")))
    lost, stale = _median(worst, "lost"), _median(worst, "stale")
    if not lost and not stale:
        return None
    parts = [f"drop {format_size(lost)} of live guest memory"] * bool(lost)
    parts += [f"leave {format_size(stale)} of stale contents"] * bool(stale)
    return Finding(
        LOST_WEIGHT if lost else STALE_WEIGHT, f"Failed splits under {worst.policy.name} {' and '.join(parts)} (K2)."
    )


def _shattering(rows: Sequence[Row]) -> Finding | None:
    """Whose 2M mappings fall to 4K most often, and by what."""
    worst = max(rows, key=lambda row: _share(row, "shattered", "entries_2m"))
    shattered = _median(worst, "shattered")
    if not shattered:
        return None
    causes = {name: _median(worst, f"shattered_by_{name}") for name in ("punch", "conversion", "accept")}
    cause = max(causes, key=lambda name: causes[name])
    text = (
        f"Under {worst.policy.name} {_count(shattered)} of {_count(_median(worst, 'entries_2m'))} mappings of 2M fall to 4K,"
        f" {_count(causes[cause])} of them by {cause}, and {_count(_median(worst, 'mappings_healed'))} come back."
    )
    return Finding(_share(worst, "shattered", "entries_2m"), text)


_TOPICS: Final[tuple[Topic, ...]] = (
    _memory,
    _left_behind,
    _failed_launches,
    _runtime_failures,
    _refusals,
    _contents,
    _shattering,
)


def _median(row: Row, key: str) -> float:
    spread = row.figures[key]
    return spread.median if spread else 0.0


def _apart(first: Row, second: Row, key: str, tolerance: float) -> bool:
    """Whether two rows differ by more than the tolerance, and in every seed: their ranges do not overlap."""
    one, other = first.figures[key], second.figures[key]
    if one is None or other is None:
        return one is not other
    return abs(one.median - other.median) > tolerance and not _overlap(one, other)


def _overlap(one: Spread, other: Spread) -> bool:
    return one.least <= other.most and other.least <= one.most


def _share(row: Row, part: str, whole: str) -> float:
    total = _median(row, whole)
    return _median(row, part) / total if total else 0.0


def _per_guest(row: Row, keys: Sequence[str]) -> float:
    return sum(_share(row, key, "peak_guest") for key in keys)


def _possible(row: Row, size: str) -> float:
    """Huge pages that could be left: those of the start, less what the host's own new memory takes at least."""
    start, after = row.null[f"free_{size}_start"], row.null[f"free_{size}_after"]
    taken = start.median - after.median if start and after else 0.0
    return max(_median(row, f"free_{size}_start") - taken, _median(row, f"free_{size}_after"))


def _kept(row: Row, size: str) -> float:
    possible = _possible(row, size)
    return _median(row, f"free_{size}_after") / possible if possible else 1.0


def _left(row: Row, size: str) -> str:
    return f"{_count(_median(row, f'free_{size}_after'))} of {_count(_possible(row, size))}"


def _pools(rows: Sequence[Row]) -> str:
    """What the pools of these rows hold besides, for the reader who misses it."""
    held = [(row.policy.name, _median(row, "pool_idle_after")) for row in rows if _median(row, "pool_idle_after")]
    return f" (the pool of {held[0][0]} holds {format_size(held[0][1])} more)" if held else ""


def _caveat(row: Row) -> str:
    failed = _median(row, "runtime_failures")
    return f"; but under {row.policy.name} {_count(failed)} operations of running guests find no memory" if failed else ""


def _count(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def _names(rows: Sequence[Row]) -> str:
    names = [row.policy.name for row in rows]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
