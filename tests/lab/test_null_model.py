"""The null model against sums done by hand."""

from typing import Any

import pytest

from gmemlab.core.layout import OP_CREATE, OP_DESTROY, OP_READY, OP_SAMPLE, OP_TO_PRIVATE, OP_TO_SHARED
from gmemlab.lab.null_model import NULL_FIGURES, expect
from gmemlab.presets import find
from gmemlab.workload.stream import NO_VM, SAMPLE_PERIODIC, SAMPLE_READY
from gmemlab.workload.trace import Trace
from lab_world import GIB, make_trace

MIB = 1 << 20


def lives(*guests: tuple[int, int]) -> list[tuple[int, ...]]:
    events: list[tuple[int, ...]] = []
    for vm, (created, destroyed) in enumerate(guests):
        events.append((created, vm, OP_CREATE, 0, 0, 0))
        if destroyed >= 0:
            events.append((destroyed, vm, OP_DESTROY, 0, 0, 0))
    return events


def shared_trace(**changes: Any) -> Trace:
    """One guest of 8 MiB: page 0 is shared twice, then a whole 2 MiB; samples at 50, 80 and 100."""
    events = [
        (0, 0, OP_CREATE, 0, 0, 0),
        (10, 0, OP_READY, 0, 0, 0),
        (10, 0, OP_SAMPLE, SAMPLE_READY, 0, 0),
        (20, 0, OP_TO_SHARED, 0, 0, 1),
        (25, 0, OP_TO_PRIVATE, 0, 0, 1),
        (30, 0, OP_TO_SHARED, 0, 0, 1),
        (50, NO_VM, OP_SAMPLE, SAMPLE_PERIODIC, 0, 0),
        (60, 0, OP_TO_SHARED, 0, 512, 512),
        (80, NO_VM, OP_SAMPLE, SAMPLE_PERIODIC, 0, 0),
        (100, NO_VM, OP_SAMPLE, SAMPLE_PERIODIC, 0, 0),
    ]
    return make_trace(events, [2048], 100, **changes)


def test_every_shared_place_spoils_its_blocks_once() -> None:
    figures = expect(shared_trace(), find("thp"), GIB, GIB, None)
    assert figures.keys() == set(NULL_FIGURES)
    assert figures["mapped_2m_ready"] == 1.0
    assert figures["mapped_2m_end"] == 0.5
    assert figures["mapped_2m_mean"] == pytest.approx(0.5 * 0.75 + 0.3 * 0.5 + 0.2 * 0.5)


def test_without_2m_pages_nothing_is_mapped_at_2m() -> None:
    figures = expect(shared_trace(), find("4k"), GIB, GIB, None)
    assert [figures[key] for key in ("mapped_2m_ready", "mapped_2m_mean", "mapped_2m_end")] == [0.0, 0.0, 0.0]


def test_without_guests_there_are_no_shares() -> None:
    trace = make_trace([(100, NO_VM, OP_SAMPLE, SAMPLE_PERIODIC, 0, 0)], [], 100)
    figures = expect(trace, find("thp"), GIB, GIB, None)
    assert figures["mapped_2m_ready"] is figures["mapped_2m_mean"] is figures["mapped_2m_end"] is None
    assert figures["peak_host_per_guest"] is None
    assert figures["free_2m_end"] == figures["free_2m_after"] == 512
    assert figures["launches_failed"] == 0


def test_a_guest_cannot_lose_more_than_it_has() -> None:
    places = [(10 + page, 0, OP_TO_SHARED, 0, page, 1) for page in range(6)]
    events = [(0, 0, OP_CREATE, 0, 0, 0), *places, (0, 1, OP_CREATE, 0, 0, 0)]
    figures = expect(make_trace(sorted(events), [1024, 1024], 100), find("thp"), GIB, GIB, None)
    assert figures["mapped_2m_end"] == 0.5


def test_places_of_guests_that_left_do_not_count() -> None:
    events = [*lives((0, 50), (0, -1)), (10, 0, OP_TO_SHARED, 0, 0, 1)]
    figures = expect(make_trace(sorted(events), [1024, 1024], 100), find("thp"), GIB, GIB, None)
    assert figures["mapped_2m_end"] == 1.0


@pytest.mark.parametrize(
    ("vmm_punch", "ratio"), [("both", 1.0), ("private", 1.0), ("shared", 1 + 513 / 2048), ("none", 1 + 513 / 2048)]
)
def test_shared_memory_is_backed_twice_if_the_vmm_leaves_it(vmm_punch: str, ratio: float) -> None:
    policy = find("thp").with_choices({"vmm_punch": vmm_punch})
    figures = expect(shared_trace(), policy, GIB, GIB, None)
    assert figures["peak_host_per_guest"] == pytest.approx(ratio)


def test_a_pool_is_there_as_a_whole() -> None:
    figures = expect(shared_trace(background_pages=(512, 512)), find("hugetlb-2m"), GIB, GIB, 16 * MIB)
    assert figures["peak_host_per_guest"] == 2.0
    assert (figures["free_2m_start"], figures["free_2m_end"], figures["free_2m_after"]) == (512, 502, 502)


def test_a_pool_that_is_larger_than_the_host() -> None:
    figures = expect(shared_trace(), find("hugetlb-2m"), GIB, GIB // 2, 4 * GIB)
    assert (figures["free_2m_start"], figures["free_2m_after"]) == (512, 256)


def test_memory_left_is_what_bytes_leave() -> None:
    trace = shared_trace(background_pages=(512, 1024))
    figures = expect(trace, find("thp"), 2 * GIB, GIB, None)
    assert [figures[f"free_2m_{moment}"] for moment in ("start", "end", "after")] == [1024, 1024 - 3 - 4, 1024 - 3]
    assert [figures[f"free_1g_{moment}"] for moment in ("start", "end", "after")] == [2, 1, 1]


def test_guests_fail_that_do_not_fit_when_they_come() -> None:
    # Of three at once only two fit; the fourth takes the place of the first.
    events = lives((0, 50), (10, -1), (20, -1), (60, -1))
    trace = make_trace(sorted(events), [1024] * 4, 100)
    assert expect(trace, find("thp"), GIB, 8 * MIB, None)["launches_failed"] == 1
    assert expect(trace, find("hugetlb-2m"), GIB, GIB, 4 * MIB)["launches_failed"] == 2
    assert expect(trace, find("hugetlb-2m"), GIB, GIB, 0)["launches_failed"] == 4


def test_guests_are_rounded_to_whole_pages_of_the_policy() -> None:
    trace = make_trace(sorted(lives((0, -1), (10, -1))), [1025, 1025], 100)
    assert expect(trace, find("4k"), GIB, 2 * 1025 * 4096, None)["launches_failed"] == 0
    assert expect(trace, find("thp-strict-zero"), GIB, 2 * 1025 * 4096, None)["launches_failed"] == 1
