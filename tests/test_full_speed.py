"""What the benchmarks print on a processor that a neighbour shares part of the time."""

import numpy as np
import pytest

from full_speed import ENOUGH, Stretches

PROBE = 1e-4
NEIGHBOUR = 1.7  # times as long while the processor is shared


@pytest.fixture(autouse=True)
def quickest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stretches, "quickest", PROBE)


def add(times: Stretches, seconds: float, shared: bool) -> None:
    factor = NEIGHBOUR if shared else 1.0
    times.add(seconds * factor, PROBE * factor)


def test_a_figure_is_of_the_stretches_at_full_speed() -> None:
    times = Stretches()
    for number in range(10 * ENOUGH):
        add(times, 20e-9, shared=number % 10 != 0)
    figure = times.figure()
    assert figure.value == pytest.approx(20e-9)
    assert figure.ran == pytest.approx(34e-9)
    assert figure.share == pytest.approx(0.1)


def test_a_slow_stretch_at_full_speed_counts() -> None:
    times = Stretches()
    for number in range(ENOUGH):
        add(times, 20e-9 if number % 5 == 0 else 30e-9, shared=False)
    assert times.figure().value == pytest.approx(30e-9)


def test_with_too_few_stretches_a_figure_is_as_it_ran() -> None:
    times = Stretches()
    for number in range(2 * ENOUGH):
        add(times, 20e-9, shared=number >= ENOUGH - 1)
    assert times.figure().value == times.figure().ran == pytest.approx(34e-9)


def test_a_run_is_put_together_from_its_stretches() -> None:
    random = np.random.default_rng(0)
    costs = random.exponential(1e-3, 2000)  # of one run's stretches, very different ones
    times = Stretches()
    for _ in range(3):
        for cost in costs:
            add(times, cost, shared=random.random() < 0.8)
    figure = times.figure_of_runs(3)
    assert figure.value == pytest.approx(costs.sum(), rel=0.02)
    assert figure.ran == pytest.approx(costs.sum() * (1 + 0.8 * (NEIGHBOUR - 1)), rel=0.02)


def test_long_stretches_that_are_seldom_at_full_speed_do_not_make_a_run_shorter() -> None:
    random = np.random.default_rng(1)
    costs = np.where(np.arange(2000) % 2, 1e-3, 9e-3)
    times = Stretches()
    for _ in range(3):
        for cost in costs:
            add(times, cost, shared=random.random() < (0.6 if cost < 5e-3 else 0.97))
    assert times.figure_of_runs(3).value == pytest.approx(costs.sum(), rel=0.05)


def test_without_stretches_at_full_speed_a_run_is_as_it_ran() -> None:
    times = Stretches()
    for _ in range(3 * 100):
        add(times, 1e-3, shared=True)
    assert times.figure_of_runs(3).value == pytest.approx(0.17)


def test_where_nobody_shares_all_figures_are_as_they_ran() -> None:
    times = Stretches()
    for number in range(3 * ENOUGH):
        add(times, (number % ENOUGH) * 1e-3, shared=False)
    assert times.figure().value == times.figure().ran
    run = times.figure_of_runs(3)
    assert run.value == pytest.approx(run.ran) == pytest.approx(sum(range(ENOUGH)) * 1e-3)
