"""Sizes, durations and counts: what is accepted, what is refused, and that short forms read back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmemlab.errors import UsageError
from gmemlab.units import (
    DURATION_FORMS,
    GIB,
    HOUR,
    KIB,
    MIB,
    SIZE_FORMS,
    TIB,
    format_count,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4096B", 4096),
        ("4K", 4 * KIB),
        ("2M", 2 * MIB),
        ("2m", 2 * MIB),
        ("2MiB", 2 * MIB),
        ("2 MB", 2 * MIB),
        (" 64G ", 64 * GIB),
        ("1.5T", 3 * TIB // 2),
        ("1P", 1024 * TIB),
        (2097152, 2 * MIB),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "2Q", "-2M", "2MM", "2iM", "0x10", "1e9", "1.M", "٣M", "2M\n2M", True, None, 1.5])
def test_not_sizes(text: object) -> None:
    with pytest.raises(UsageError) as caught:
        parse_size(text)  # type: ignore[arg-type]  # what a caller without types may pass
    assert caught.value.allowed == SIZE_FORMS
    assert caught.value.message == "not a size"


@pytest.mark.parametrize("text", ["0.3K", "1.00000000000000000000000000000000001K", "1.5"])
def test_sizes_are_whole_bytes(text: str) -> None:
    with pytest.raises(UsageError, match="not a whole number of bytes"):
        parse_size(text)


@pytest.mark.parametrize("text", [-1, 1 << 63, "8192P", "9" * 40])
def test_sizes_fit_in_63_bits(text: str | int) -> None:
    with pytest.raises(UsageError, match="size out of range"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("0", 0),
        ("7ns", 7),
        ("1.5us", 1500),
        ("100ms", 100_000_000),
        ("90s", 90 * 10**9),
        ("2m", 120 * 10**9),
        ("2min", 120 * 10**9),
        ("24h", 24 * HOUR),
        ("30d", 30 * 24 * HOUR),
        ("2w", 14 * 24 * HOUR),
    ],
)
def test_durations(text: str, duration: int) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "5", "h", "1H", "1y", "-1s", "1h30m", None])
def test_not_durations(text: object) -> None:
    with pytest.raises(UsageError) as caught:
        parse_duration(text)  # type: ignore[arg-type]  # what a caller without types may pass
    assert caught.value.allowed == DURATION_FORMS


def test_durations_are_whole_nanoseconds_in_63_bits() -> None:
    with pytest.raises(UsageError, match="not a whole number of nanoseconds"):
        parse_duration("0.5ns")
    with pytest.raises(UsageError, match="duration out of range"):
        parse_duration("106752d")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (512, "512B"),
        (1023, "1023B"),
        (4096, "4K"),
        (2 * MIB, "2M"),
        (3 * TIB // 2, "1.5T"),
        (1019 * KIB, "1019K"),
        (MIB - 1, "1M"),
        (2 * MIB + 1, "2M"),
        (-3 * GIB, "-3G"),
        (25_115_213_824, "23.4G"),
        (0.25, "0.25B"),
    ],
)
def test_short_sizes(size: float, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (0, "0ns"),
        (999, "999ns"),
        (1500, "1.5us"),
        (59_990_000_000, "1min"),
        (90 * 10**9, "1.5min"),
        (30 * 24 * HOUR, "30d"),
    ],
)
def test_short_durations(duration: int, text: str) -> None:
    assert format_duration(duration) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (9999, "9,999"), (10_000, "10k"), (12_345, "12.3k"), (999_999, "1M"), (1_478_000, "1.48M")],
)
def test_short_counts(count: int, text: str) -> None:
    assert format_count(count) == text


@given(st.integers(0, 10**17))
def test_short_counts_have_five_characters(count: int) -> None:
    assert len(format_count(count)) <= 5


@given(st.integers(0, 1 << 50))
def test_short_forms_read_back_within_half_a_percent(value: int) -> None:
    for shown, read in ((format_size(value), parse_size), (format_duration(value), parse_duration)):
        number = shown.rstrip("BKMGTPnsumhdi")
        exact = shown.replace(number, str(round(float(number) * 1000)), 1)
        assert abs(read(exact) / 1000 - value) <= 0.0051 * value
