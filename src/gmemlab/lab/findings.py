"""The sentences that say what a comparison shows, computed from its figures.

Guests that went without memory come first, whatever else there is: all other sentences are to be read with that in mind.
Then come the mappings; the other topics look for their largest effect and weigh it, and the heaviest are told. Differences
below a topic's tolerance, or inside the spread over the seeds, are no differences. What must not happen is told apart, always
(`hazards`).
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from gmemlab.lab.compare import Row, Spread
from gmemlab.units import format_size

MOST_SENTENCES: Final = 3  # more only if guests went without memory: all of that is told, and one other thing besides
COVERAGE: Final = "mapped_2m_mean"
COST: Final = "peak_host_per_guest"
LEAST_WEIGHT: Final = 0.005
SHARE_TOLERANCE: Final = 0.005
RATIO_TOLERANCE: Final = 0.005
LEAST_GIGA_PAGES: Final = 4  # below, one 1G page more or less says nothing

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
    """Return the sentences for a comparison's rows: one to three, or up to five if guests went without memory."""
    short = [text for text in (_small_pools(rows), _failed_launches(rows), _runtime_failures(rows)) if text]
    others = [finding for topic in _TOPICS if (finding := topic(rows)) is not None and finding.weight >= LEAST_WEIGHT]
    others.sort(key=lambda finding: -finding.weight)
    room = max(1, MOST_SENTENCES - 1 - len(short))
    sentences = [*short, _coverage(rows), *(finding.text for finding in others[:room])]
    if not others and not short and len(rows) > 1:
        sentences.append("In host memory, in what fails and in what they leave behind the policies hardly differ.")
    return tuple(sentences)


def _small_pools(rows: Sequence[Row]) -> str | None:
    """Whose pool is smaller than it was to be."""
    parts: list[str] = []
    for row in rows:
        if _most(row, "pool_missing"):
            lacks = "" if parts else "lacks "
            parts.append(f"that of {row.policy.name} {lacks}{_part(row, 'pool_missing', 'pool_wanted', format_size)}")
    return f"Free memory does not fill the pools: {', '.join(parts)}." if parts else None


def _failed_launches(rows: Sequence[Row]) -> str | None:
    """Whose launches fail."""
    parts: list[str] = []
    for row in rows:
        if _most(row, "launches_failed"):
            null = row.null["launches_failed"]
            says = "" if parts else "simple arithmetic expects "
            expected = f" ({says}{_count(null.median)})" if null else ""
            parts.append(f"{row.policy.name} {_part(row, 'launches_failed', 'launches')}{expected}")
    return f"Launches that fail: {', '.join(parts)}." if parts else None


def _runtime_failures(rows: Sequence[Row]) -> str | None:
    """Whose running guests find no memory."""
    parts = [f"{row.policy.name} {_part(row, 'runtime_failures')}" for row in rows if _most(row, "runtime_failures")]
    return f"Operations of running guests that find no memory: {', '.join(parts)}." if parts else None


def _coverage(rows: Sequence[Row]) -> str:
    """Who keeps the most mapped at 2M over time, and who is not ranked, as a share of fewer guests is no merit.

    Policies that failed launches are ranked only if there is nothing else to rank: fewer than two policies without
    failures, or none of them with anything mapped at 2M.
    """
    known = [row for row in rows if row.figures[COVERAGE] is not None]
    if not known:
        return "No guest mapped any private memory."
    ranked = [row for row in known if not _most(row, "launches_failed")]
    if len(ranked) < 2 or not any(_median(row, COVERAGE) for row in ranked):
        ranked = known
    unranked = [row for row in rows if row not in ranked]
    fewer = [row for row in ranked if _most(row, "launches_failed")]
    text = _ranking(ranked, all_rows=not unranked)
    if unranked and not fewer:
        text = f"Of the policies that started all guests, {text}"
    if unranked:
        text += f" Left out: {_list([_not_ranked(row) for row in unranked])}."
    if fewer:
        text += f" Shares of fewer guests: {_list([f'{row.policy.name} ({_failed(row)})' for row in fewer])}."
    return text


def _ranking(known: Sequence[Row], *, all_rows: bool) -> str:
    """Who of these is best, against `4k` or the worst, and against the null model."""
    best = max(known, key=lambda row: _median(row, COVERAGE))
    worst = min(known, key=lambda row: _median(row, COVERAGE))
    share = _median(best, COVERAGE)
    null = best.null[COVERAGE]
    ending = f"; simple arithmetic says {null.median:.1%}" if null else ""
    if len(known) == 1:
        return f"{best.policy.name} keeps {share:.1%} of the private memory that guests map at 2M, over time{ending}."
    if not _apart(best, worst, COVERAGE, SHARE_TOLERANCE):
        who = "All policies" if all_rows else _names(known)
        return f"{who} keep the same share of mapped private memory at 2M, over time: {share:.1%}{ending}."
    leaders = [row for row in known if not _apart(best, row, COVERAGE, SHARE_TOLERANCE)]
    reference = next((row for row in known if row.policy.name == "4k" and row not in leaders), worst)
    verb = "keeps" if len(leaders) == 1 else "keep"
    more = (share - _median(reference, COVERAGE)) * 100
    return (
        f"{_names(leaders)} {verb} the most at 2M: {share:.1%} of the private memory that guests map, over time,"
        f" {more:.1f} points more than {reference.policy.name}{ending}."
    )


def _not_ranked(row: Row) -> str:
    share = row.figures[COVERAGE]
    reached = f"{share.median:.1%}" if share else "nothing mapped"
    return f"{row.policy.name} ({reached}, but {_failed(row)})"


def _memory(rows: Sequence[Row]) -> Finding | None:
    """Who needs the most host memory per byte of guests, and what makes the difference; starved guests are no saving."""
    known = [row for row in rows if row.figures[COST] is not None and not row.starved]
    if len(rows) == 1 and known:
        return _memory_alone(known[0])
    if len(known) < 2:
        return None
    most = max(known, key=lambda row: _median(row, COST))
    least = min(known, key=lambda row: _median(row, COST))
    if not _apart(most, least, COST, RATIO_TOLERANCE):
        return None
    high, low = _median(most, COST), _median(least, COST)
    extra = {name: _per_guest(most, keys) - _per_guest(least, keys) for name, keys in _COMPONENTS.items()}
    cause = max(extra, key=lambda name: extra[name])
    part = "most" if extra[cause] > (high - low) / 2 else "the largest part"
    where = "Where no guest went without memory, " if len(known) < len(rows) else ""
    dearest = [row for row in known if not _apart(most, row, COST, RATIO_TOLERANCE)]
    cheapest = [row for row in known if not _apart(least, row, COST, RATIO_TOLERANCE)]
    return Finding(
        (high - low) / low,
        f"{where}{_names(dearest)} {'costs' if len(dearest) == 1 else 'cost'} the host the most: {high:.2f} bytes per byte of"
        f" guests at the peak, against {low:.2f} with {_names(cheapest)}; {part} of the difference is {cause}"
        f" ({extra[cause]:.2f}).",
    )


def _memory_alone(row: Row) -> Finding:
    high, null = _median(row, COST), row.null[COST]
    expected = null.median if null else 1.0
    text = f"At the peak it costs the host {high:.2f} bytes per byte of guests; simple arithmetic says {expected:.2f}."
    return Finding(abs(high - expected), text)


def _left_behind(rows: Sequence[Row]) -> Finding | None:
    """Who leaves the host with the fewest huge pages after all guests have left, of those it had before any pool.

    That a policy without memory for all guests leaves the most is no merit.
    """
    candidates = []
    served = [row for row in rows if not row.starved] or rows
    for size, least in (("2m", 1), ("1g", LEAST_GIGA_PAGES)):
        at_first, after = _median(rows[0], f"free_{size}_start"), f"free_{size}_after"
        worst = min(rows, key=lambda row: _median(row, after))
        best = max(served, key=lambda row: _median(row, after))
        if at_first < least or (len(rows) > 1 and not _apart(best, worst, after, 0)):
            continue
        text = f"At first {_count(at_first)} pages of {size.upper()} are to be had; after all guests have left"
        text += f" {_left(rows, worst, after)}"
        if worst is not best:
            text += f", {_left(served, best, after)}"
        reach = at_first if len(rows) == 1 else _median(best, after)
        candidates.append(Finding((reach - _median(worst, after)) / at_first, f"{text}."))
    return max(candidates, default=None)


def _left(rows: Sequence[Row], like: Row, after: str) -> str:
    """How many pages are left under all policies that leave as many as this one; what their pools hold is told besides."""
    names = []
    for row in rows:
        if _median(row, after) == _median(like, after):
            held = _median(row, "pool_idle_after")
            names.append(f"{row.policy.name} ({format_size(held)} more in its pool)" if held else row.policy.name)
    return f"{_count(_median(like, after))} under {_list(names)}"


def _refusals(rows: Sequence[Row]) -> Finding | None:
    """Whose conversions are refused most often."""
    worst = max(rows, key=lambda row: _share(row, "conversions_refused", "conversions"))
    weight = _share(worst, "conversions_refused", "conversions")
    refused, tried = _median(worst, "conversions_refused"), _median(worst, "conversions")
    text = f"{worst.policy.name} refuses {_count(refused)} of {_count(tried)} conversions with EAGAIN (pins, references)."
    return Finding(weight, text) if refused else None


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


_TOPICS: Final[tuple[Topic, ...]] = (_memory, _left_behind, _refusals, _shattering)


def _median(row: Row, key: str) -> float:
    spread = row.figures[key]
    return spread.median if spread else 0.0


def _most(row: Row, key: str) -> float:
    spread = row.figures[key]
    return spread.most if spread else 0.0


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


def _failed(row: Row) -> str:
    return _part(row, "launches_failed", "launches", what=" launches failed")


def _count(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def _part(row: Row, key: str, whole: str = "", write: Callable[[float], str] = _count, what: str = "") -> str:
    """A median over the seeds, and what it is a part of; where it is 0, the most that any seed has."""
    if middle := _median(row, key):
        return write(middle) + (f" of {write(_median(row, whole))}" if whole else "") + what
    return f"up to {write(_most(row, key))}{what} with some seeds"


def _names(rows: Sequence[Row]) -> str:
    return _list([row.policy.name for row in rows])


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
