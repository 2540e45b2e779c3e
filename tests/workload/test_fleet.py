"""Sizes, lifetimes and load against W2 to W4."""

import numpy as np
import pytest

from gmemlab.errors import UsageError
from gmemlab.units import DAY, GIB, HOUR, MIB, MINUTE
from gmemlab.workload.fleet import (
    FOREVER,
    LIFETIMES,
    Fleet,
    draw_lifetimes,
    draw_residuals,
    lifetime_quantile,
    populate,
    size_table,
)
from gmemlab.workload.schema import Guests

TIB = 1 << 40


def guests(**changes: object) -> Guests:
    base: dict[str, object] = {
        "sizes": "azure-2019",
        "lifetimes": "azure-2019",
        "tail_mean": "22d",
        "longest": "90d",
        "load": 0.8,
        "load_cap": 1.0,
    }
    return Guests.model_validate({key: value for key, value in (base | changes).items() if value is not None})


def generator(seed: int = 1) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@pytest.mark.parametrize("column", list(LIFETIMES))
def test_lifetimes_reproduce_w2(column: str) -> None:
    hours = draw_lifetimes(guests(lifetimes=column), 200_000, generator()) / HOUR
    for hour, percent in LIFETIMES[column]:  # type: ignore[index]
        assert abs(100 * np.mean(hours <= hour) - percent) < 1.5
    assert hours.min() >= 5 / 60 - 1e-6
    assert hours.max() <= 90 * 24


def test_quantiles_by_hand() -> None:
    settings = guests(lifetimes="v1-public")
    shares = np.array([0.0, 0.58, 0.60, 0.93])
    expected = [
        5 * MINUTE,
        HOUR,
        2**0.5 * HOUR,
        200 * HOUR,
    ]  # 60 %: halfway between 1 h and 2 h, on a logarithmic scale
    assert lifetime_quantile(settings, shares) == pytest.approx(expected, rel=1e-9)
    tail = lifetime_quantile(settings, np.array([1 - 0.07 / np.e]))
    assert tail == pytest.approx(200 * HOUR + 22 * DAY)  # one mean excess is left behind by 1/e of the tail


def test_longest_conditions_lifetimes() -> None:
    hours = draw_lifetimes(guests(longest="2h"), 100_000, generator()) / HOUR
    assert hours.max() <= 2
    assert np.mean(hours <= 1) == pytest.approx(68 / 72, abs=0.01)


def test_long_lives_are_met_more_often() -> None:
    settings = guests()
    lives = draw_lifetimes(settings, 400_000, generator(1)).astype(float)
    residuals = draw_residuals(settings, 400_000, generator(2)).astype(float)
    assert residuals.mean() == pytest.approx((lives**2).mean() / (2 * lives.mean()), rel=0.03)  # renewal theory


def test_sizes_are_those_of_w4() -> None:
    sizes, chances = size_table(guests(), 0)
    table = dict(zip((sizes // GIB).tolist(), chances.tolist(), strict=True))
    assert list(table) == [1, 2, 4, 8, 16, 32, 64, 128]
    assert table[1] == pytest.approx(0.062)
    assert table[32] == pytest.approx(0.145)
    assert table[128] == pytest.approx(0.028)
    old, parts = size_table(guests(sizes="v1-public"), 0)
    assert (old // GIB).tolist() == [1, 2, 4, 7, 8, 14, 56]
    assert parts[1] == pytest.approx(47.5 / 99.7)


def test_log_uniform_sizes() -> None:
    sizes, chances = size_table(guests(sizes="v2-public", inside="log-uniform"), 0)
    table = dict(zip((sizes // GIB).tolist(), chances.tolist(), strict=True))
    assert list(table) == list(range(1, 65))
    assert sum(table[size] for size in range(5, 9)) == pytest.approx(0.373)
    assert table[5] / table[8] == pytest.approx(np.log(5 / 4) / np.log(8 / 7))
    assert table[1] == table[2] == pytest.approx(0.062)
    largest = size_table(guests(largest="100G"), 0)[0]
    assert largest.max() == 100 * GIB


def test_shares_of_the_load_are_rounded() -> None:
    sizes, _ = size_table(guests(sizes="share", shares=[0.5, 0.1, 0.001]), 10 * GIB + 12345)
    assert sizes.tolist() == [5 * GIB, GIB, 128 * MIB]


def mean_load(fleet: Fleet, begin: int, end: int) -> float:
    spans = np.clip(fleet.destroyed, begin, end) - np.clip(fleet.created, begin, end)
    return float((fleet.sizes * spans.astype(float)).sum() / (end - begin))


def test_littles_law_holds_the_load() -> None:
    settings = guests(longest="3d", load=0.6)  # all guests change many times over in 60 days
    fleet = populate(settings, 8 * TIB, 8 * TIB, 60 * DAY, generator())
    assert fleet.not_admitted == 0
    assert mean_load(fleet, 30 * DAY, 60 * DAY) / (8 * TIB) == pytest.approx(0.6, rel=0.05)
    assert mean_load(fleet, 0, DAY) / (8 * TIB) == pytest.approx(0.6, rel=0.1)


def test_steady_from_the_start_with_long_lives() -> None:
    fleet = populate(guests(load=0.6), 16 * TIB, 16 * TIB, 5 * DAY, generator(5))
    first = mean_load(fleet, 0, DAY)
    assert first / (16 * TIB) == pytest.approx(0.6, rel=0.05)
    assert mean_load(fleet, 4 * DAY, 5 * DAY) == pytest.approx(first, rel=0.1)


def test_guests_beyond_the_cap_are_turned_away_and_counted() -> None:
    fleet = populate(guests(load=0.9, load_cap=0.9, longest="2h"), 256 * GIB, 256 * GIB, 5 * DAY, generator())
    assert fleet.not_admitted > 0
    assert 0.8 * 256 * GIB < fleet.peak_bytes() <= 0.9 * 256 * GIB


def test_guests_larger_than_the_host_are_left_out_of_a_mixture() -> None:
    fleet = populate(guests(), 40 * GIB, 40 * GIB, DAY, generator())
    assert fleet.sizes.max() <= 40 * GIB
    assert fleet.too_large == pytest.approx(0.092)


@pytest.mark.parametrize(
    ("changes", "free", "words"),
    [
        ({}, 512 * MIB, "a guest of 1G against 512M"),
        ({"sizes": "fixed", "fixed": ["4G"]}, 3 * GIB, "a guest of 4G against 3G"),
        ({"sizes": "fixed", "fixed": ["4G"], "load": None, "count": 1}, 3 * GIB, "a guest of 4G against 3G"),
        ({"sizes": "fixed", "fixed": ["4G"], "load": None, "count": 2}, 7 * GIB, "2 guests of 8G in all against 7G"),
        ({"sizes": "share", "shares": [0.1]}, 100 * MIB, "a guest of 128M against 100M"),
    ],
)
def test_scenarios_larger_than_the_host(changes: dict[str, object], free: int, words: str) -> None:
    with pytest.raises(UsageError, match=f"larger than the host: {words} that the host has free"):
        populate(guests(**changes), free, free, DAY, generator())


def test_a_count_of_guests() -> None:
    settings = guests(sizes="fixed", fixed=["1G", "2G"], load=None, count=3, lifetimes="forever", fill_time="3s")
    fleet = populate(settings, TIB, TIB, DAY, generator())
    assert (fleet.sizes // GIB).tolist() == [1, 2, 1]
    assert fleet.created.tolist() == [0, 10**9, 2 * 10**9]
    assert np.all(fleet.destroyed >= FOREVER)
    assert fleet.peak_bytes() == 4 * GIB
    drawn = populate(guests(load=None, count=5), 10 * TIB, 10 * TIB, DAY, generator())
    assert len(drawn.sizes) == 5
