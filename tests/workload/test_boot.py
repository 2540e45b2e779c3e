"""One guest's boot: W14 to W16 to the page, swiotlb by W8, and each page accepted once."""

from collections import Counter

import numpy as np
import pytest

from gmemlab.core.layout import OP_ACCESS, OP_CREATE, OP_READY, OP_SAMPLE, OP_TO_PRIVATE, OP_TO_SHARED
from gmemlab.units import GIB, MIB, SECOND
from gmemlab.workload.boot import Booted, boot, place_swiotlb, swiotlb_pages
from gmemlab.workload.memory_layout import flat, q35, total
from gmemlab.workload.schema import Boot, Swiotlb
from gmemlab.workload.stream import ARG_ACCEPT_2M, ARG_ACCEPT_4K, ARG_LAUNCH, ARG_SHARED, Events

GIB_PAGES = 262_144


def settings(**changes: object) -> Boot:
    base: dict[str, object] = {"time": "20s", "touched": 0.5, "touched_final": 1.0, "touch_time": "1h"}
    return Boot.model_validate(base | changes)


def bounce(**changes: object) -> Swiotlb:
    return Swiotlb.model_validate({"place": "below-firmware", "touched": 0.5} | changes)


def booted(gib: int, seed: int = 1, swiotlb: Swiotlb | None = None, **changes: object) -> Booted:
    rng = np.random.Generator(np.random.PCG64(seed))
    return boot(q35(gib * GIB_PAGES), settings(**changes), swiotlb or bounce(), rng)


def accepts(events: Events, arg: int) -> Events:
    chosen: Events = events[(events["op"] == OP_ACCESS) & (events["arg"] == arg)]
    return chosen


def test_counts_of_w14_to_w16() -> None:
    small = accepts(booted(4).events, ARG_ACCEPT_4K)
    once = {(int(event["first"]), int(event["count"])) for event in small[small["count"] > 1]}
    assert {(0x806, 506), (0x7E800, 512)} <= once
    repeats = Counter(small["first"][small["count"] == 1].tolist())
    assert (repeats[0x7D9D7], repeats[0x7D9DA], repeats[0x7D9D9]) == (974, 476, 156)
    assert sum(repeats.values()) == 1692
    assert 506 + 512 + sum(repeats.values()) == 2710
    assert all(0x7D3FF <= page <= 0x7E7FE for page in repeats)


def test_hot_pages_go_back_and_forth_in_order() -> None:
    events = booted(4).events
    own = events[(events["first"] == 0x7D9D7) & (events["count"] == 1)]
    assert own["op"].tolist() == [OP_TO_SHARED, OP_ACCESS, OP_TO_PRIVATE, OP_ACCESS] * 974
    assert own["arg"].tolist() == [0, ARG_SHARED, 0, ARG_ACCEPT_4K] * 974


def test_parts_that_are_not_2m_aligned_are_accepted_at_4k() -> None:
    small = accepts(booted(4, firmware="none").events, ARG_ACCEPT_4K)
    assert list(zip(small["first"].tolist(), small["count"].tolist(), strict=True)) == [(0, 0xA0), (0xC0, 0x140)]


@pytest.mark.parametrize("accept", ["lazy", "eager"])
@pytest.mark.parametrize("low", [True, False])
@pytest.mark.parametrize("gib", [1, 4])
def test_every_page_is_accepted_once_and_then_used(gib: int, low: bool, accept: str) -> None:
    result = booted(gib, accept=accept, firmware_accepts_low=low, touched=1.0)
    pages = np.zeros(gib * GIB_PAGES, np.int64)
    for event in result.events[(result.events["op"] == OP_ACCESS) & (result.events["arg"] != ARG_SHARED)]:
        if event["count"] > 1:
            pages[event["first"] : event["first"] + event["count"]] += 1
    assert np.all(pages[0xA0:0xC0] == 0)
    assert np.all(np.delete(pages, np.s_[0xA0:0xC0]) == 1)
    assert result.untouched == ()


def test_lazy_acceptance_leaves_memory_untouched() -> None:
    result = booted(4)
    assert total(result.untouched) == GIB_PAGES  # half of the 2 GiB above 4 GiB
    assert all(start >= 0x80000 for start, _ in result.untouched)
    whole = accepts(result.events, ARG_ACCEPT_2M)
    assert np.all(whole["first"] % 512 == 0)
    assert np.all(whole["count"] % 512 == 0)
    nothing = booted(4, firmware_accepts_low=False, touched=0.0)
    assert total(nothing.accepted) == 0
    assert accepts(nothing.events, ARG_LAUNCH)["count"].tolist() == [6]


def test_events_run_from_creation_to_ready() -> None:
    events = booted(4, time="20s").events
    assert events["op"][0] == OP_CREATE
    assert events["op"][-2:].tolist() == [OP_READY, OP_SAMPLE]
    assert events["arg"][-1] == 1
    assert events["time"][0] == 0
    assert events["time"][-2:].tolist() == [20 * SECOND] * 2
    assert np.all(np.diff(events["time"]) >= 0)


def test_small_guests_skip_what_lies_beyond_their_memory() -> None:
    result = booted(1)
    assert np.all(result.events["first"] + result.events["count"] <= GIB_PAGES)
    assert accepts(result.events, ARG_ACCEPT_4K)["count"][-1] == 506
    assert not np.any(result.events["op"] == OP_TO_PRIVATE)


def test_swiotlb_size() -> None:
    assert swiotlb_pages(GIB, bounce()) == 64 * MIB // 4096
    assert swiotlb_pages(4 * GIB, bounce()) == 62_915  # 6 % of 1,048,576 pages is 62,914.56
    assert swiotlb_pages(4 * GIB, bounce(aligned=True)) == 62_976  # 123 x 512
    assert swiotlb_pages(64 * GIB, bounce()) == GIB // 4096


@pytest.mark.parametrize("aligned", [True, False])
def test_swiotlb_place(aligned: bool) -> None:
    rng = np.random.Generator(np.random.PCG64(3))
    layout = q35(4 * GIB_PAGES)
    low = place_swiotlb(layout, bounce(aligned=aligned), rng)
    end = low.first + low.count
    assert (end == 0x7D200) if aligned else (0x7D000 < end < 0x7D200)
    assert (low.first % 512 == 0) == aligned
    top = place_swiotlb(layout, bounce(aligned=aligned, place="top"), rng)
    assert (top.first + top.count + 511) // 512 == 0x80000 // 512
    grown = place_swiotlb(flat(128 * MIB // 4096), bounce(growth_limit="1G"), rng)
    assert grown.floor == 0xA00


def test_accepted_memory_is_apart_from_swiotlb_and_its_growth() -> None:
    result = booted(4, swiotlb=bounce(growth_limit="64M"))
    start, end = result.swiotlb.floor, result.swiotlb.first + result.swiotlb.count
    assert result.swiotlb.first - start == 64 * MIB // 4096
    assert all(high <= start or low >= end for low, high in result.accepted)
    shared = result.events[result.events["count"] > 1]
    shared = shared[shared["op"] == OP_TO_SHARED]
    assert shared[["first", "count"]].tolist() == [(result.swiotlb.first, result.swiotlb.count)]
    touched = accepts(result.events, ARG_SHARED)
    assert touched["count"].max() == round(result.swiotlb.count * 0.5)
