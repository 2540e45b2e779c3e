"""Whole streams: order, pairing, placement, reproducibility, size."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gmemlab.core.layout import (
    HOST_MOVABLE,
    HOST_UNMOVABLE,
    OP_ACCESS,
    OP_CREATE,
    OP_DESTROY,
    OP_HOST_ALLOCATE,
    OP_HOST_FREE,
    OP_KCOMPACTD,
    OP_KHUGEPAGED,
    OP_PIN,
    OP_PUNCH,
    OP_READY,
    OP_REFERENCE,
    OP_SAMPLE,
    OP_TO_PRIVATE,
    OP_TO_SHARED,
    OP_UNPIN,
    OP_UNREFERENCE,
)
from gmemlab.errors import UsageError
from gmemlab.units import GIB, HOUR, MINUTE, SECOND
from gmemlab.workload.scenario import load, with_hardware
from gmemlab.workload.schema import Daemons, Scenario
from gmemlab.workload.stream import ARG_ACCEPT_2M, ARG_ACCEPT_4K, ARG_SHARED, NO_VM, Events
from gmemlab.workload.ticks import ticks
from gmemlab.workload.trace import Trace, generate, order_faults

DAY_TOML = (Path(__file__).parents[2] / "scenarios" / "day.toml").read_text(encoding="utf-8")


def changed(tmp_path: Path, *changes: tuple[str, str], more: str = "") -> Scenario:
    text = DAY_TOML
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "changed.toml"
    path.write_text(text + more, encoding="utf-8")
    return load(path)


def one_guest(tmp_path: Path, *changes: tuple[str, str], more: str = "") -> Trace:
    alone = (('sizes = "azure-2019"', 'sizes = "fixed"\nfixed = ["4G"]'), ("load = 0.85", "count = 1"))
    forever = ('lifetimes = "azure-2019"', 'lifetimes = "forever"')
    return generate(changed(tmp_path, *alone, forever, *changes, more=more), 64 * GIB, 1)


def at_run_time(trace: Trace, op: int) -> Events:
    ready = trace.events["time"][trace.events["op"] == OP_READY][0]
    chosen = (trace.events["time"] > ready) & (trace.events["op"] == op) & (trace.events["vm"] == 0)
    events: Events = trace.events[chosen]
    return events


@pytest.mark.parametrize("name", ["boot", "day", "day-reporting", "demo"])
def test_streams_are_in_order_and_reproducible(name: str) -> None:
    scenario = load(name)
    trace = generate(scenario, 64 * GIB, 7)
    assert order_faults(trace) == ()
    again = generate(scenario, 64 * GIB, 7)
    assert trace.events.tobytes() == again.events.tobytes()
    assert trace.guests.tobytes() == again.guests.tobytes()
    other = generate(scenario, 64 * GIB, 8)
    assert trace.events.tobytes() != other.events.tobytes()
    assert len(trace.names) == len(trace.guests)


def test_samples() -> None:
    trace = generate(load("boot"), 8 * GIB, 1)
    samples = trace.events[trace.events["op"] == OP_SAMPLE]
    periodic = samples[samples["arg"] == 0]
    assert (periodic["time"] // 10**9).tolist() == list(range(10, 121, 10))
    assert np.all(periodic["vm"] == NO_VM)
    assert trace.events["op"][-1] == OP_SAMPLE
    ready = samples[samples["arg"] == 1]
    assert ready[["time", "vm"]].tolist() == [(20 * 10**9, 0)]
    assert trace.peak_guest_bytes == 4 * GIB


def test_daemons_ticks() -> None:
    """khugepaged's each time that it wakes, kcompactd's twice a second; in long runs of several times at once."""
    day = ticks(Daemons.model_validate({"scan_sleep": "30s"}), 24 * HOUR)
    for op, interval in ((OP_KHUGEPAGED, 30 * SECOND), (OP_KCOMPACTD, SECOND // 2)):
        own = day[day["op"] == op]
        assert set(own["vm"]) == {NO_VM}
        assert set(own["count"]) == {interval // 10**6}
        assert own["time"].tolist() == list(range(interval, 24 * HOUR + 1, interval))
    year = ticks(Daemons(), 365 * 24 * HOUR)
    assert len(year) < 400_000
    for op in (OP_KHUGEPAGED, OP_KCOMPACTD):
        own = year[year["op"] == op]
        assert 365 * 24 * HOUR - own["count"].sum() * 10**6 < 10**6 * own["count"][0]
    assert len(ticks(Daemons(), SECOND // 4)) == 0


def test_event_budgets() -> None:
    assert len(generate(load("day"), 256 * GIB, 1).events) < 2_000_000
    for free in (3, 64, 2048):
        assert len(generate(load("demo"), free * GIB, 1).events) < 300_000


def test_demo_fills_its_share_of_any_host() -> None:
    for free in (3, 64, 2048):
        trace = generate(load("demo"), free * GIB, 2)
        assert 0.5 < trace.peak_guest_bytes / (free * GIB) <= 0.7


def test_guests_that_leave_are_destroyed_last() -> None:
    trace = generate(load("day"), 256 * GIB, 1)
    ops = Counter(trace.events["op"].tolist())
    assert ops[OP_CREATE] == len(trace.guests)
    assert 0 < ops[OP_DESTROY] < len(trace.guests)
    assert ops[OP_HOST_FREE] > 1000
    assert not np.any(trace.events["op"] == OP_PUNCH)


def test_faults_are_found() -> None:
    trace = generate(load("boot"), 8 * GIB, 1)

    def with_change(index: int, **fields: int) -> Trace:
        events = trace.events.copy()
        for name, value in fields.items():
            events[name][index] = value
        return replace(trace, events=events)

    assert "times do not ascend" in order_faults(with_change(5, time=10**10))
    assert "an event comes after the end" in order_faults(with_change(-1, time=10**15))
    assert "vm 0: creation is not its first event" in order_faults(with_change(0, op=OP_READY))
    assert "vm 0: destruction is not its last event" in order_faults(with_change(5, op=OP_DESTROY))
    assert "vm 0: a range leaves the file" in order_faults(with_change(5, count=1 << 40))
    assert "vm 9: no such vm" in order_faults(with_change(5, vm=9))
    assert f"vm {NO_VM}: not a sample, nor a daemon's" in order_faults(with_change(5, vm=NO_VM))
    assert "vm -1: not an operation of the host" in order_faults(with_change(5, vm=-1, first=0, count=0))


def test_run_time_rate(tmp_path: Path) -> None:
    shared = at_run_time(one_guest(tmp_path), OP_TO_SHARED)
    expected = (4 * 4 + 20) * 24  # per GiB and per guest
    assert abs(len(shared) - expected) < 5 * expected**0.5
    assert np.all(shared["count"] == 1)
    assert len(np.unique(shared["first"])) == len(shared)
    assert len(np.unique(shared["first"] // 512)) > 0.4 * len(shared)


def test_packed_pages_fill_few_blocks(tmp_path: Path) -> None:
    trace = one_guest(tmp_path, ('placement = "scattered"', 'placement = "packed"'), ("pages = 1 ", "pages = 4 "))
    shared = at_run_time(trace, OP_TO_SHARED)
    assert len(np.unique(shared["first"] // 512)) <= 3
    assert np.all(shared["first"] % 4 == 0)
    assert np.all(shared["count"] == 4)


def state_of_places(trace: Trace) -> Counter[str]:
    """Walk all run-time events of the guest; return how often each kind of step was seen, checking that it may come."""
    seen: Counter[str] = Counter()
    shared: set[int] = set()
    pinned: set[int] = set()
    ready = trace.events["time"][trace.events["op"] == OP_READY][0]
    own = trace.events[(trace.events["vm"] == 0) & (trace.events["time"] > ready)]
    for event in own[own["count"] == 1].tolist():
        _, _, op, arg, first, _ = event
        if op == OP_TO_SHARED:
            assert first not in shared
            shared.add(first)
        elif op == OP_ACCESS:
            assert (first in shared) == (arg == ARG_SHARED)
            seen["accepted"] += arg == ARG_ACCEPT_4K
        elif op == OP_PIN:
            assert first in shared
            pinned.add(first)
        elif op == OP_UNPIN:
            pinned.remove(first)
        elif op == OP_TO_PRIVATE:
            assert first in shared
            seen["again" if first in pinned else "freed"] += 1
            if first not in pinned:
                shared.remove(first)
    seen["pinned"] = len(own[own["op"] == OP_PIN])
    seen["shared"] = len(own[own["op"] == OP_TO_SHARED])
    return seen


@pytest.mark.parametrize("placement", ["scattered", "packed"])
def test_shared_pages_come_back_when_no_pin_holds_them(tmp_path: Path, placement: str) -> None:
    trace = one_guest(tmp_path, ('placement = "scattered"', f'placement = "{placement}"'), ("share = 0.05", "share = 0.3"))
    assert order_faults(trace) == ()
    seen = state_of_places(trace)
    assert seen["pinned"] == pytest.approx(0.3 * seen["shared"], rel=0.25)
    assert seen["freed"] == seen["accepted"] > 0.9 * seen["shared"]
    assert seen["again"] > 0.4 * seen["pinned"]  # pins last an hour, pages are freed after half of one


def test_shared_pages_that_stay(tmp_path: Path) -> None:
    trace = one_guest(tmp_path, ("returns_private = true", "returns_private = false"))
    assert len(at_run_time(trace, OP_TO_PRIVATE)) == 0
    assert len(at_run_time(trace, OP_TO_SHARED)) > 500


def test_transient_references_enclose_their_punch(tmp_path: Path) -> None:
    trace = one_guest(tmp_path, ("per_punch = 0.01", "per_punch = 1.0"))
    own = trace.events[trace.events["vm"] == 0]
    where = np.flatnonzero(own["op"] == OP_REFERENCE)
    assert len(where) == len(at_run_time(trace, OP_TO_SHARED))
    assert np.all(own["op"][where + 1] == OP_TO_SHARED)
    assert np.all(own["op"][where + 2] == OP_UNREFERENCE)
    assert np.array_equal(own["first"][where], own["first"][where + 2])
    assert np.array_equal(own["first"][where] // 512, own["first"][where + 1] // 512)
    assert np.all(own["first"][where] != own["first"][where + 1])


def test_pinned_swiotlb_and_its_growth(tmp_path: Path) -> None:
    growth = ('place = "below-firmware"', 'growth_limit = "8M"\nplace = "below-firmware"')
    trace = one_guest(tmp_path, growth, ("swiotlb = 0.0", "swiotlb = 1.0"), ("share = 0.05", "share = 0.0"))
    own = trace.events[trace.events["vm"] == 0]
    pin = own[own["op"] == OP_PIN]
    buffers = own[(own["op"] == OP_TO_SHARED) & (own["count"] > 1)]
    assert pin[["first", "count"]].tolist() == [(buffers["first"][0], round(buffers["count"][0] * 0.5))]
    assert buffers["count"].tolist()[1:] == [1024, 1024]
    assert np.diff(buffers["first"]).tolist() == [-1024, -1024]


def test_memory_is_touched_after_boot(tmp_path: Path) -> None:
    own = at_run_time(one_guest(tmp_path), OP_ACCESS)
    late = own[own["arg"] == ARG_ACCEPT_2M]
    assert late["count"].sum() == pytest.approx(0.6 * 2 * 262_144, rel=0.01)  # 30 % to 90 % of 2 GiB
    assert late["time"].max() <= 4 * HOUR + MINUTE
    everything = one_guest(tmp_path, ("touched = 0.3", "touched = 1.0"), ("touched_final = 0.9", "touched_final = 1.0"))
    assert not np.any(at_run_time(everything, OP_ACCESS)["arg"] == ARG_ACCEPT_2M)


@pytest.mark.parametrize("order", [9, 5])
def test_reported_memory_is_punched_and_accepted_again(tmp_path: Path, order: int) -> None:
    table = f'\n[reporting]\norder = {order}\nshare_per_hour = 0.1\nhold = "20min"\n'
    trace = one_guest(tmp_path, more=table)
    punched = at_run_time(trace, OP_PUNCH)
    assert len(punched) * 2**order == pytest.approx(0.1 * 24 * 4 * 262_144, rel=0.5 if order == 9 else 0.15)
    assert np.all(punched["count"] == 1 << order)
    assert np.all(punched["first"] % (1 << order) == 0)
    accept = ARG_ACCEPT_2M if order == 9 else ARG_ACCEPT_4K
    free: set[int] = set()
    own = trace.events[(trace.events["vm"] == 0) & (trace.events["count"] == 1 << order)]
    for _, _, op, arg, first, _ in own.tolist():
        if op == OP_PUNCH:
            assert first not in free
            free.add(first)
        elif op == OP_ACCESS and first in free:
            assert arg == accept
            free.remove(first)
    shared = at_run_time(trace, OP_TO_SHARED)["first"]
    assert not np.any(np.isin(shared >> order, punched["first"] >> order))
    assert any("hypothetical" in line for line in trace.assumptions)


def test_background_is_freed_before_it_is_allocated_again() -> None:
    trace = generate(load("day"), 64 * GIB, 3)
    for vm, pages in zip((HOST_UNMOVABLE, HOST_MOVABLE), trace.background_pages, strict=True):
        own = trace.events[trace.events["vm"] == vm]
        assert own[["time", "op", "first", "count"]][0].tolist() == (0, OP_HOST_ALLOCATE, 0, pages)
        allocated = np.ones(pages // 16, np.bool_)
        for _, _, op, _, first, count in own[1:].tolist():
            assert count == 16
            assert allocated[first // 16] == (op == OP_HOST_FREE)
            allocated[first // 16] = op == OP_HOST_ALLOCATE


def test_background_that_is_empty(tmp_path: Path) -> None:
    trace = generate(changed(tmp_path, ("unmovable = 0.01", "unmovable = 0.0")), 64 * GIB, 1)
    assert trace.background_pages[0] == 0
    assert not np.any(trace.events["vm"] == HOST_UNMOVABLE)


def test_flat_guests(tmp_path: Path) -> None:
    trace = one_guest(tmp_path, ('machine = "q35"', 'machine = "flat"'))
    assert order_faults(trace) == ()
    assert trace.guests["slot_count"][0].tolist() == [4 * 262_144, 0, 0, 0]


def test_a_scenario_larger_than_the_host() -> None:
    with pytest.raises(UsageError, match="a guest of 4G against 3G"):
        generate(load("boot"), 3 * GIB, 1)


def test_daemons_of_a_scenario(tmp_path: Path) -> None:
    """Settings that are not Linux's are assumptions."""
    table = '[daemons]\npages_to_scan = 512\nscan_sleep = "1s"\nmax_ptes_none = 0\n'
    trace = one_guest(tmp_path, more=table)
    assert trace.daemons.pages_to_scan == 512
    assert np.count_nonzero(trace.events["op"] == OP_KHUGEPAGED) == 24 * 3600
    assert any("512 pages every 1s" in line and "fills 0 holes" in line for line in trace.assumptions)
    assert not any("khugepaged" in line for line in one_guest(tmp_path).assumptions)
    for wrong in ("pages_to_scan = 0", "max_ptes_none = 512", 'scan_sleep = "1us"', "compaction_proactiveness = 101"):
        with pytest.raises(UsageError, match=rf"daemons\.{wrong.split()[0]}"):
            one_guest(tmp_path, more=f"[daemons]\n{wrong}\n")


def test_snp_guests_borrow_the_boot_of_a_td() -> None:
    """W14 to W17 are of TDX alone; that SNP guests do likewise is an assumption of its own, and said (P2)."""
    for hardware in ("snp", "tdx"):
        lines = generate(with_hardware(load("boot"), hardware), 16 * GIB, 0).assumptions
        assert any(line.startswith("P2 (assumption): SNP guests are given") for line in lines) == (hardware == "snp")


def test_assumptions_name_their_rows() -> None:
    lines = generate(load("day"), 256 * GIB, 1).assumptions
    for row in (
        "W2 (digitised",
        "W4 (digitised",
        "W8 (read)",
        "W14",
        "P1 (assumption)",
        "P9 (assumption)",
        "P7 (assumption)",
    ):
        assert any(line.startswith(row) for line in lines), row
    small = generate(load("day"), 40 * GIB, 1).assumptions
    assert any("too large for this host" in line for line in small)
