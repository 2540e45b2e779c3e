"""Sizes, durations and counts as people write and read them.

Sizes are binary (``2M`` is 2,097,152 bytes), durations are whole nanoseconds, counts are decimal.
"""

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Final

from gmemlab.errors import UsageError

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30
TIB: Final = 1 << 40
PIB: Final = 1 << 50
MICROSECOND: Final = 1_000
MILLISECOND: Final = 1_000_000
SECOND: Final = 1_000_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

SIZE_FORMS: Final = "a number with K, M, G, T or P, or plain bytes: 4096, 2M, 64G, 1.5T"
DURATION_FORMS: Final = "a number with ns, us, ms, s, min, h, d or w: 100ms, 90s, 24h, 30d"
LARGEST: Final = (1 << 63) - 1

_SIZE_SUFFIXES: Final[Mapping[str, int]] = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": TIB, "P": PIB}
_DURATION_SUFFIXES: Final[Mapping[str, int]] = {
    "ns": 1,
    "us": MICROSECOND,
    "ms": MILLISECOND,
    "s": SECOND,
    "m": MINUTE,
    "min": MINUTE,
    "h": HOUR,
    "d": DAY,
    "w": 7 * DAY,
}
_SIZE: Final = re.compile(r"([0-9]{1,40}(?:\.[0-9]{1,40})?) ?([KMGTP]?)(?:i?B)?", re.ASCII | re.IGNORECASE)
_DURATION: Final = re.compile(r"([0-9]{1,40}(?:\.[0-9]{1,40})?) ?([a-z]{0,3})", re.ASCII)

_SIZE_STEPS: Final = (("P", PIB), ("T", TIB), ("G", GIB), ("M", MIB), ("K", KIB), ("B", 1))
_DURATION_STEPS: Final = (
    ("d", DAY),
    ("h", HOUR),
    ("min", MINUTE),
    ("s", SECOND),
    ("ms", MILLISECOND),
    ("us", MICROSECOND),
    ("ns", 1),
)
_COUNT_STEPS: Final = (("P", 10**15), ("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3), ("", 1))
_PLAIN_COUNT: Final = 10_000


def parse_size(text: str | int) -> int:
    """Return the bytes that a size means: ``2M``, ``64G``, ``1.5T``, ``4096``, ``2MiB``, or an int.

    Raises:
        UsageError: not a size, negative, not a whole number of bytes, or 2^63 bytes and more.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        return _in_range(text, text, "size", SIZE_FORMS)
    match = _SIZE.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise UsageError("not a size", value=text, allowed=SIZE_FORMS)
    factor = _SIZE_SUFFIXES[match[2].upper()]
    return _whole(Fraction(match[1]) * factor, text, "size", SIZE_FORMS, "bytes")


def parse_duration(text: str) -> int:
    """Return the nanoseconds that a duration means: ``100ms``, ``90s``, ``1.5h``, ``30d``; ``0`` needs no unit.

    Raises:
        UsageError: not a duration, without a unit, not a whole number of nanoseconds, or 2^63 ns and more.
    """
    match = _DURATION.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None or (match[2] == "" and Fraction(match[1]) != 0):
        raise UsageError("not a duration", value=text, allowed=DURATION_FORMS)
    factor = _DURATION_SUFFIXES.get(match[2] or "ns")
    if factor is None:
        raise UsageError("not a duration", value=text, allowed=DURATION_FORMS)
    return _whole(Fraction(match[1]) * factor, text, "duration", DURATION_FORMS, "nanoseconds")


def format_size(size: float) -> str:
    """Return bytes as a short size of three significant digits (four from 1000 to 1023): ``1.5T``, ``23.4G``."""
    return _scaled(size, _SIZE_STEPS)


def signed_size(size: float) -> str:
    """Return a size that may be negative, with at most three digits and a unit."""
    return f"{'-' if size < 0 else ''}{format_size(abs(size))}"


def format_duration(nanoseconds: float) -> str:
    """Return nanoseconds as a short duration of about three significant digits: ``1.5h``, ``250ms``."""
    return _scaled(nanoseconds, _DURATION_STEPS)


def format_count(count: int) -> str:
    """Return a count in at most five characters (below 10^18): ``9,999``, ``12.3k``, ``1.48M``."""
    return f"{count:,}" if abs(count) < _PLAIN_COUNT else _scaled(count, _COUNT_STEPS)


def _whole(value: Fraction, text: str | int, kind: str, forms: str, unit: str) -> int:
    if value.denominator != 1:
        raise UsageError(f"not a whole number of {unit}", value=text, allowed=forms)
    return _in_range(int(value), text, kind, forms)


def _in_range(number: int, text: str | int, kind: str, forms: str) -> int:
    if not 0 <= number <= LARGEST:
        raise UsageError(f"{kind} out of range", value=text, allowed=f"{forms}; 0 to 2^63 - 1")
    return number


def _scaled(value: float, steps: Sequence[tuple[str, int]]) -> str:
    """Write a value in the largest of the units (descending) of which it is at least one, after rounding."""
    magnitude = abs(value)
    step = next((index for index, (_, factor) in enumerate(steps) if magnitude >= factor), len(steps) - 1)
    suffix, factor = steps[step]
    digits = _three_digits(magnitude / factor)
    if step > 0 and float(digits) * factor >= steps[step - 1][1]:
        suffix, digits = steps[step - 1][0], "1"
    return f"{'-' if value < 0 else ''}{digits}{suffix}"


def _three_digits(value: float) -> str:
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    digits = f"{value:.{decimals}f}"
    return digits.rstrip("0").rstrip(".") if decimals else digits
