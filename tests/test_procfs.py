"""The parsers of /proc and /sys, on a real machine's files, on one with two nodes, and on damaged text."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gmemlab.errors import UnsupportedError, UsageError
from gmemlab.kernel import features
from gmemlab.kernel.procfs import (
    MemInfo,
    Zone,
    parse_buddyinfo,
    parse_meminfo,
    parse_pagetypeinfo,
    parse_zoneinfo,
)
from hosts import LAZY, TWO_NODES


def text_of(host: Path, name: str) -> str:
    return (host / "proc" / name).read_text()


def test_buddyinfo() -> None:
    zones = parse_buddyinfo(text_of(TWO_NODES, "buddyinfo"))
    assert [(zone.node, zone.zone) for zone in zones] == [
        (0, "DMA"),
        (0, "DMA32"),
        (0, "Normal"),
        (1, "Normal"),
        (1, "Movable"),
    ]
    assert zones[1].counts == (14, 7, 1, 0, 0, 0, 0, 0, 0, 0, 700)


def test_pagetypeinfo_marks_lower_bounds() -> None:
    info = parse_pagetypeinfo(text_of(TWO_NODES, "pagetypeinfo"))
    rows = {(row.node, row.zone, row.migratetype): row for row in info.free}
    assert info.block_order == 9
    assert rows[0, "Normal", "Movable"].counts[:3] == (100_000, 100_000, 9000)
    assert rows[0, "Normal", "Movable"].at_least == (0, 1)
    assert rows[0, "Normal", "Unmovable"].at_least == (1,)
    assert rows[0, "Normal", "CMA"].counts[10] == 16
    assert rows[1, "Movable", "Movable"].at_least == ()


def test_pagetypeinfo_block_types_without_the_mixed_table() -> None:
    info = parse_pagetypeinfo(text_of(TWO_NODES, "pagetypeinfo"))
    assert len(info.blocks) == 5
    assert info.blocks[2].blocks == {
        "Unmovable": 800,
        "Movable": 11_997,
        "Reclaimable": 400,
        "HighAtomic": 2,
        "CMA": 32,
        "Isolate": 1,
    }


@pytest.mark.parametrize("host", [LAZY, TWO_NODES])
def test_pagetypeinfo_agrees_with_buddyinfo(host: Path) -> None:
    info = parse_pagetypeinfo(text_of(host, "pagetypeinfo"))
    for zone in parse_buddyinfo(text_of(host, "buddyinfo")):
        rows = [row for row in info.free if (row.node, row.zone) == (zone.node, zone.zone)]
        exact = [order for order in range(11) if not any(order in row.at_least for row in rows)]
        # The two files of the real machine were read one after the other: its smallest chunks move in between.
        assert sum(sum(row.counts[order] for row in rows) for order in exact[9:]) == sum(zone.counts[o] for o in exact[9:])


def test_zoneinfo_of_a_real_machine() -> None:
    zones = parse_zoneinfo(text_of(LAZY, "zoneinfo"))
    assert [zone.name for zone in zones] == ["DMA", "DMA32", "Normal", "Movable", "Device"]
    normal = zones[2]
    assert (normal.start_pfn, normal.spanned, normal.present) == (1_048_576, 5_505_024, 5_505_024)
    assert normal.managed < normal.present
    assert len(normal.pcp_counts) == 2
    assert zones[0].protection[2] > zones[0].managed


def test_zoneinfo_of_two_nodes() -> None:
    zones = parse_zoneinfo(text_of(TWO_NODES, "zoneinfo"))
    assert zones[2] == Zone(
        node=0,
        name="Normal",
        start_pfn=1_048_576,
        spanned=6_774_784,
        present=6_774_784,
        managed=6_600_000,
        free=2_107_358,
        min=26_000,
        low=32_500,
        high=39_000,
        protection=(0, 0, 0, 5000, 5000),
        pcp_counts=(100, 200),
    )
    assert (zones[3].name, zones[3].managed, zones[3].start_pfn, zones[3].pcp_counts) == ("Movable", 0, 0, ())
    assert (zones[8].node, zones[8].name, zones[8].managed) == (1, "Movable", 1_048_576)


def test_meminfo() -> None:
    assert parse_meminfo("MemTotal: 8 kB\nMemFree:  4 kB\nMemAvailable: 5 kB\nHugePages_Total: 0\n") == MemInfo(
        8192, 4096, 5120
    )


BUDDY = "Node 0, zone DMA 1 2 3\n"
TYPES = """Page block order: 9
Pages per block:  512

Free pages count per migrate type at order 0 1
Node 0, zone DMA, type Movable 1 2

Number of blocks type Movable Isolate
Node 0, zone DMA 3 0
"""
ZONES = text_of(TWO_NODES, "zoneinfo")


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_buddyinfo, "", "buddyinfo: empty"),
        (parse_buddyinfo, BUDDY + "Node 1, zone DMA 1 2\n", "buddyinfo:2: unexpected line .*allowed: 3 counts"),
        (parse_buddyinfo, BUDDY + "\nnonsense\n", "buddyinfo:3: unexpected line .value 'nonsense'"),
        (parse_buddyinfo, "Node 0, zone DMA\n", "buddyinfo:1: .*at least 1 counts"),
        (parse_buddyinfo, "Node 0, zone DMA 1 >2\n", "buddyinfo:1: .*allowed: counts"),
        (parse_buddyinfo, "Node 0, zone DMA 1 -2\n", "buddyinfo:1: .*allowed: counts"),
        (parse_pagetypeinfo, "", "pagetypeinfo: incomplete"),
        (parse_pagetypeinfo, TYPES[:150], "pagetypeinfo: incomplete"),
        (parse_pagetypeinfo, TYPES.replace("Movable 1 2", "Movable 1"), "pagetypeinfo:5: .*2 counts, as the header"),
        (parse_pagetypeinfo, TYPES.replace("Movable 1 2", "Movable 1 <2"), "pagetypeinfo:5: .*lower bounds"),
        (parse_pagetypeinfo, TYPES.replace("type Movable", "Movable"), "pagetypeinfo:5: .*type TYPE"),
        (parse_pagetypeinfo, TYPES.replace("DMA 3 0", "DMA 3"), "pagetypeinfo:8: .*2 counts, as the header"),
        (parse_pagetypeinfo, TYPES.replace("Node 0, zone DMA 3 0", "zone"), "pagetypeinfo:8: unexpected line"),
        (parse_zoneinfo, "", "zoneinfo: empty"),
        (parse_zoneinfo, "  pages free 3\n" + ZONES, "zoneinfo:1: unexpected line"),
        (parse_zoneinfo, ZONES.replace("managed  782000", ""), "zoneinfo:32: zone DMA32 of node 0 lacks managed"),
        (parse_zoneinfo, ZONES[:100], "zoneinfo:1: zone DMA of node 0 lacks free, min"),
        (parse_meminfo, "MemTotal: 8 kB\nMemFree: 4 MB\n", "meminfo:2: unexpected line"),
        (parse_meminfo, "MemTotal: 8 kB\nMemFree: 4 kB\n", "meminfo: MemAvailable: missing"),
    ],
)
def test_damaged_text(parse: Callable[[str], object], text: str, message: str) -> None:
    with pytest.raises(UsageError, match=rf"^/proc/{message}") as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_messages_name_the_file_that_was_given() -> None:
    with pytest.raises(UsageError, match=r"^copy\.txt: empty"):
        parse_buddyinfo("", "copy.txt")


def test_thp() -> None:
    assert features.read_thp(LAZY) == features.Thp("madvise", "madvise", "never", 2 << 20)
    assert features.read_thp(TWO_NODES) is None


def test_thp_with_settings_missing_or_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "sys/kernel/mm/transparent_hugepage"
    folder.mkdir(parents=True)
    (folder / "enabled").write_text("[always] madvise never\n")
    (folder / "hpage_pmd_size").write_text("2097152\n")
    assert features.read_thp(tmp_path) == features.Thp("always", "", "", 2 << 20)
    (folder / "enabled").write_text("always\n")
    with pytest.raises(UsageError, match="enabled:1: unexpected text"):
        features.read_thp(tmp_path)
    (folder / "enabled").write_text("[always]\n")
    (folder / "hpage_pmd_size").write_text("large\n")
    with pytest.raises(UsageError, match="hpage_pmd_size:1: not a number"):
        features.read_thp(tmp_path)


def test_hugetlb_pools(tmp_path: Path) -> None:
    assert features.read_hugetlb_pools(TWO_NODES) == (features.HugetlbPool(2 << 20, 128, 100, 28, 0),)
    assert [pool.page_bytes for pool in features.read_hugetlb_pools(LAZY)] == [2 << 20, 1 << 30]
    assert features.read_hugetlb_pools(tmp_path) == ()


def test_cpu_and_release(tmp_path: Path) -> None:
    assert features.read_cpu_model(TWO_NODES) == "AMD EPYC 9575F 64-Core Processor"
    assert features.read_cpu_model(tmp_path) == os.uname().machine
    assert features.read_release(TWO_NODES) == "6.18.2"
    with pytest.raises(UnsupportedError, match=r"^/proc/sys/kernel/osrelease: cannot be read: No such file"):
        features.read_release(tmp_path)


def test_kvm_that_is_absent_or_something_else(tmp_path: Path) -> None:
    absent = features.probe_kvm(str(tmp_path / "kvm"))
    assert (absent.available, absent.guest_memfd, absent.vm_types) == (False, False, ())
    assert absent.reason == "No such file or directory"
    other = features.probe_kvm(os.devnull)
    assert other.reason.startswith("KVM_CHECK_EXTENSION: ")


def test_names_of_kvm_capabilities() -> None:
    kvm = features.Kvm("", {"KVM_CAP_GUEST_MEMFD": 1, "KVM_CAP_GUEST_MEMFD_FLAGS": 0b111, "KVM_CAP_VM_TYPES": 0b10001})
    assert kvm.guest_memfd
    assert kvm.guest_memfd_flags == ("MMAP", "INIT_SHARED", "bit 2")
    assert kvm.vm_types == ("default", "SNP")


@pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="/dev/kvm")
def test_kvm_of_this_machine() -> None:
    kvm = features.probe_kvm()
    assert kvm.available
    assert set(kvm.capabilities) == set(features.CAPABILITIES)
    assert all(answer >= 0 for answer in kvm.capabilities.values())
