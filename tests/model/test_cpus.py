"""Hosts whose CPUs keep lists of free pages: limits as this kernel has them, the object API, and the event stream."""

from dataclasses import replace

import numpy as np
import pytest

from gmemlab.capture import capture
from gmemlab.core import layout
from gmemlab.core.run import run
from gmemlab.errors import UsageError
from gmemlab.model.cpus import batch_size, watermarks
from gmemlab.model.host import Host
from gmemlab.presets import find
from hosts import LAZY

MIB = 1 << 20


def test_limits_are_those_of_a_machine_of_24_gib() -> None:
    """/proc/zoneinfo of a 6.18 kernel: zone Normal of 5,394,266 pages, 2 CPUs, low watermark 20,163: 63 pages at once."""
    assert batch_size(5394266) == batch_size(772918) == 63
    assert batch_size(3840) == 1
    assert watermarks([6 << 18])[0][1] == 11 * 512 + (6 << 18) // 1000  # watermark_scale_factor: more than a quarter of min
    host = Host("24G", cpus=2)
    pcp = host.state.pcps[1]
    managed = (24 << 30) // 4096
    assert (pcp.batch, pcp.high_min, pcp.high_max) == (63, watermarks([managed])[0][1] // 2, managed // 8 // 2)


def test_snapshots_bring_their_watermarks() -> None:
    snapshot = capture(LAZY)
    (zone,) = (zone for zone in snapshot.zones if zone.kind == "Normal")
    host = Host.from_snapshot(snapshot, cpus=4)
    assert host.description == "snapshot, 4 CPUs with lists"
    assert host.state.pcps[0].high_min == zone.low_pages // 4 > 4 * 63
    assert (host.state.zones[0].low, host.state.zones[0].high) == (
        zone.low_pages - zone.min_pages,
        zone.high_pages - zone.min_pages,
    )
    assert (host.state.host[0].watermarks, host.state.host[0].nofragment) == (1, 1)
    host.audit()


def test_three_lines_of_a_user() -> None:
    """What one CPU freed, the other does not get; drained, all is in whole blocks again."""
    host = Host("1G", cpus=2)
    before = host.free_2m
    memory = host.guest_memfd("8M", "4k")
    memory.allocate()
    assert host.kept_bytes > 0
    memory.punch_hole(0, "8M")
    kept = host.kept_bytes
    assert kept >= 8 * MIB
    host.run_on(1)
    memory.allocate(0, "4K")
    assert host.kept_bytes > kept  # a batch of its own
    memory.close()
    host.drain_cpus()
    assert (host.kept_bytes, host.free_2m) == (0, before)
    host.audit()


def test_seconds_bring_limits_down() -> None:
    host = Host("1G", cpus=1)
    memory = host.guest_memfd("256M", "4k")
    memory.allocate()
    for offset in range(0, 256 * MIB, 4096):
        memory.punch_hole(offset, 4096)
    kept = host.kept_bytes
    host.tick(0.9)
    assert host.kept_bytes == kept
    host.tick(5)
    assert host.kept_bytes < kept
    other = host.copy()
    other.tick(10)
    for _ in range(20):
        host.tick(0.5)
    assert host.kept_bytes == other.kept_bytes
    host.tick(3600)
    assert host.kept_bytes == int(host.state.pcps[0].high_min) * 4096
    host.audit()


def test_lists_of_another_nodes_zone_empty() -> None:
    """A batch of 63 pages every three seconds, once the limit is down; a CPU keeps what is of its own node."""
    host = Host("2G", nodes=2, cpus=2)
    for node in (0, 1):
        with host.guest_memfd("64M", "4k", nodes=f"bind:{node}") as memory:
            memory.allocate()
    host.tick(60)
    remote = host.state.pcps[layout.MAX_CPUS]
    kept = int(remote.count)
    host.tick(30)
    assert remote.count == kept - 10 * 63
    host.tick(600)
    assert (remote.count, host.state.pcps[0].count) == (0, host.state.pcps[0].high_min)
    host.audit()


def test_events_choose_the_cpu_and_let_lists_decay() -> None:
    """Guest k works on CPU k modulo their number; an hour later what they keep is at its lower limit."""
    host = Host("1G", cpus=2)
    row = host.policy_row(find("4k"))
    guests = np.zeros(2, layout.GUEST).view(np.recarray)
    guests.pages = 1 << 15
    hour = 3600 * 10**9
    rows = [(0, vm, layout.OP_CREATE, 0, 0, 0) for vm in (0, 1)] + [(1, 1, layout.OP_ALLOCATE, 0, 0, 1 << 15)]
    rows += [(2, 1, layout.OP_PUNCH, 0, page, 1) for page in range(1 << 15)]
    events = np.array([*rows, (hour, 0, layout.OP_READY, 0, 0, 0)], layout.EVENT).view(np.recarray)
    vms = np.zeros(2, layout.VM).view(np.recarray)
    cursor = np.zeros(1, layout.CURSOR).view(np.recarray)
    nobody = np.zeros(2, dtype=np.int64)
    run(host.state, events[:-1].view(np.recarray), vms, guests, nobody, row, 0, cursor, 1 << 40)
    assert host.state.pcps[0].count == 0
    kept = int(host.state.pcps[1].count)
    assert kept > host.state.pcps[1].high_min
    run(host.state, events, vms, guests, nobody, row, 0, cursor, 1 << 40)
    assert host.state.pcps[1].count == host.state.pcps[1].high_min < kept


def test_lists_are_as_short_as_the_fraction_says() -> None:
    """vm.percpu_pagelist_high_fraction; /proc/zoneinfo shows 252 pages with 1,000,000 on 6.18.44."""
    host = Host("24G", cpus=2)
    pcp = host.state.pcps[1]
    chosen = (int(pcp.high_min), int(pcp.high_max))
    host.limit_cpu_lists(8)
    assert (pcp.high_min, pcp.high_max) == (chosen[1], chosen[1])
    host.limit_cpu_lists(1_000_000)
    assert (pcp.high_min, pcp.high_max) == (252, 252)
    memory = host.guest_memfd("8M", "4k")
    memory.allocate()
    memory.close()
    assert host.kept_bytes <= 252 << 12
    host.limit_cpu_lists(0)
    assert (pcp.high_min, pcp.high_max) == chosen
    host.audit()


@pytest.mark.parametrize("fraction", [-1, 7, True, 8.0])
def test_bad_fractions(fraction: int) -> None:
    with pytest.raises(UsageError, match=r"not a fraction.*0, or 8 and more"):
        Host("1G", cpus=1).limit_cpu_lists(fraction)


def test_lists_that_are_none_have_no_limits() -> None:
    with pytest.raises(UsageError, match=r"no lists to be limited.*1 to 512"):
        Host("1G").limit_cpu_lists(8)


@pytest.mark.parametrize(("release", "in_batches"), [("6.18.44", 0), ("6.19.0", 1), ("7.3.4+deb13-amd64", 1)])
def test_lists_are_shortened_as_in_the_release_of_the_snapshot(release: str, in_batches: int) -> None:
    host = Host.from_snapshot(replace(capture(LAZY), release=release), cpus=2)
    assert host.state.host[0].in_batches == in_batches


@pytest.mark.parametrize("cpus", [-1, 513, 1.5, True])
def test_bad_numbers_of_cpus(cpus: int) -> None:
    with pytest.raises(UsageError, match=r"not a number of CPUs.*0 \(no lists\) to 512"):
        Host("1G", cpus=cpus)


@pytest.mark.parametrize(("cpus", "cpu", "allowed"), [(2, 2, "0 to 1"), (2, -1, "0 to 1"), (0, 0, "none")])
def test_a_cpu_that_is_none(cpus: int, cpu: int, allowed: str) -> None:
    with pytest.raises(UsageError, match=f"not a CPU of this host.*{allowed}"):
        Host("1G", cpus=cpus).run_on(cpu)
