"""Snapshots: what is taken from a machine's files, what is computed, and that files are whole or refused."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gmemlab.capture import capture
from gmemlab.errors import UnsupportedError, UsageError
from gmemlab.json_lines import json_line
from gmemlab.kernel.procfs import parse_zoneinfo
from gmemlab.records import decode
from gmemlab.snapshot import UNKNOWN, FreeChunks, Snapshot, ZoneSnapshot
from hosts import LAZY, TWO_NODES, changed


def zone(counts: dict[str, tuple[int, ...]], *, kind: str = "Normal", reserve: int = 0, deferred: int = 0) -> ZoneSnapshot:
    """Return a zone of 4 GiB with these free chunks; the counts are for orders 0, 9 and 10."""
    free = {name: FreeChunks((small, *(0,) * 8, nine, ten)) for name, (small, nine, ten) in counts.items()}
    pages = 1 << 20
    return ZoneSnapshot(0, kind, 1 << 20, pages, pages, pages, 0, 0, 0, reserve, free, {}, deferred_pages=deferred)


def host(*zones: ZoneSnapshot) -> Snapshot:
    return Snapshot(release="6.18", date="2026-11-01T00:00:00+00:00", cpu="any", nodes=1, memory_bytes=1 << 32, zones=zones)


def test_machine_that_initialises_memory_on_demand() -> None:
    snapshot = capture(LAZY)
    dma, dma32, normal = snapshot.zones
    assert (dma.kind, dma32.kind, normal.kind) == ("DMA", "DMA32", "Normal")
    assert (dma.deferred_pages, dma32.deferred_pages) == (0, 0)
    assert 3_000_000 < normal.deferred_pages <= normal.present_pages - normal.managed_pages
    assert len(snapshot.notes) == 1
    assert "zone Normal of node 0 on demand" in snapshot.notes[0]
    assert snapshot.deferred_pages == normal.deferred_pages
    assert dma.reserve_pages == 26 + 9419
    assert sum(normal.blocks.values()) == math.ceil(normal.managed_pages / 512)
    assert (snapshot.release, snapshot.nodes) == ("6.18.44", 1)


@pytest.mark.parametrize(("surplus", "deferred"), [(-1000, False), (16_384, False), (16_385, True), (10**7, False)])
def test_deferred_is_what_is_free_beyond_the_lists(tmp_path: Path, surplus: int, deferred: bool) -> None:
    zones = parse_zoneinfo((LAZY / "proc/zoneinfo").read_text())
    listed = sum(zone.free + sum(zone.pcp_counts) for zone in zones)
    line = next(line for line in (LAZY / "proc/meminfo").read_text().splitlines() if line.startswith("MemFree"))
    copy = changed(LAZY, tmp_path / "host", meminfo=(line, f"MemFree: {(listed + surplus) * 4} kB"))
    assert capture(copy).deferred_pages == (surplus if deferred else 0)
    assert bool(capture(copy).notes) is deferred


def test_two_nodes() -> None:
    snapshot = capture(TWO_NODES)
    assert [(zone.node, zone.kind) for zone in snapshot.zones] == [
        (0, "DMA"),
        (0, "DMA32"),
        (0, "Normal"),
        (1, "Normal"),
        (1, "Movable"),
    ]
    assert snapshot.nodes == 2
    assert [zone.reserve_pages for zone in snapshot.zones] == [30_016, 30_000, 26_000, 12_000, 4000]
    assert [zone.pcp_pages for zone in snapshot.zones] == [0, 16, 300, 3, 0]
    assert snapshot.zones[2].free["Isolate"].pages == 8
    assert snapshot.zones[2].blocks["CMA"] == 32
    assert snapshot.deferred_pages == 0
    assert snapshot.thp is None


def test_lower_bounds_are_completed_where_one_type_alone_has_one() -> None:
    snapshot = capture(TWO_NODES)
    movable = snapshot.zones[2].free["Movable"]
    assert movable.counts[0] == 345_678 - 2000 - 500
    assert movable.at_least == (1,)
    assert snapshot.zones[2].free["Unmovable"].at_least == (1,)
    assert snapshot.notes == (
        "node 0 zone Normal, order 0: Movable counted as 343k, the rest of /proc/buddyinfo's total",
        "node 0 zone Normal, order 1: the counts of Unmovable, Movable are lower bounds",
    )


def test_without_pagetypeinfo_totals_remain(tmp_path: Path) -> None:
    snapshot = capture(changed(TWO_NODES, tmp_path / "host", pagetypeinfo=None))
    assert all(list(zone.free) == [UNKNOWN] and not zone.blocks for zone in snapshot.zones)
    assert snapshot.zones[2].free_pages == 2_107_358
    # DMA keeps all it has; DMA32 and node 1's Normal are bound by the reserve, node 0's Normal by its chunks.
    assert snapshot.chunks_of(movable=False) == (716_832 - 30_000) // 512 + 53 + 2 * 1016 + (2_049_023 - 12_000) // 512
    assert len(snapshot.notes) == 1
    assert snapshot.notes[0].startswith("/proc/pagetypeinfo: cannot be read: No such file or directory: free memory by")


@pytest.mark.parametrize("name", ["buddyinfo", "zoneinfo", "meminfo"])
def test_unreadable_proc(tmp_path: Path, name: str) -> None:
    missing: dict[str, tuple[str, str] | None] = {name: None}
    with pytest.raises(UnsupportedError, match=f"^/proc/{name}: cannot be read"):
        capture(changed(TWO_NODES, tmp_path / "host", **missing))


def test_machines_with_other_geometry(tmp_path: Path) -> None:
    first = "Node 0, zone DMA 1 2 3 4\n"
    other = changed(TWO_NODES, tmp_path / "orders", pagetypeinfo=None)
    (other / "proc/buddyinfo").write_text(first)
    with pytest.raises(UnsupportedError, match="orders 0 to 10: /proc/buddyinfo has 4 orders"):
        capture(other)
    with pytest.raises(UnsupportedError, match=r"2 MiB page blocks: .* order 13"):
        capture(changed(TWO_NODES, tmp_path / "blocks", pagetypeinfo=("order: 9", "order: 13")))


def test_unusable_index() -> None:
    assert host(zone({})).unusable_index() is None
    assert host(zone({"Movable": (0, 4, 1)})).unusable_index() == 0
    assert host(zone({"Movable": (1024, 0, 0), "Unmovable": (0, 0, 1)})).unusable_index() == 0.5
    assert host(zone({"Movable": (0, 2, 1)})).unusable_index(10) == 0.5


def test_huge_pages_leave_the_reserve() -> None:
    assert host(zone({"Movable": (0, 3, 2)})).chunks_of(movable=True) == 7
    assert host(zone({"Movable": (0, 3, 2)}, reserve=512)).chunks_of(movable=True) == 6
    assert host(zone({"Movable": (512, 3, 2)}, reserve=512)).chunks_of(movable=True) == 7
    assert host(zone({"Movable": (0, 3, 2)}, reserve=1 << 20)).chunks_of(movable=True) == 0


def test_who_may_take_what() -> None:
    mixed = host(zone({"CMA": (0, 1, 0), "Isolate": (0, 2, 0), "HighAtomic": (0, 4, 0), "Reclaimable": (0, 8, 0)}))
    assert (mixed.chunks_of(movable=True), mixed.chunks_of(movable=False)) == (9, 8)
    movable_zone = host(zone({"Movable": (0, 1, 0)}, kind="Movable"))
    assert (movable_zone.chunks_of(movable=True), movable_zone.chunks_of(movable=False)) == (1, 0)


def test_bound_of_giga_pages_counts_each_zone_alone() -> None:
    assert host(zone({"Movable": (0, 0, 255)}), zone({"Movable": (0, 0, 255)})).giga_at_most() == 0
    assert host(zone({"Movable": (0, 0, 257)}, deferred=1 << 18)).giga_at_most() == 2


@pytest.mark.parametrize("machine", [LAZY, TWO_NODES])
def test_files_keep_everything(tmp_path: Path, machine: Path) -> None:
    snapshot = capture(machine)
    snapshot.save(tmp_path / "host.json")
    assert Snapshot.load(tmp_path / "host.json") == snapshot
    assert [path.name for path in tmp_path.iterdir()] == ["host.json"]


def test_failed_save_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "host.json"
    target.write_text("old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(UsageError, match=r"host\.json: cannot be written: No space left on device"):
        capture(LAZY).save(target)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["host.json"]


def test_save_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written: No such file or directory"):
        capture(LAZY).save(tmp_path / "absent" / "host.json")


def test_truncated_files_at_every_length(tmp_path: Path) -> None:
    path = tmp_path / "host.json"
    capture(TWO_NODES).save(path)
    text = path.read_bytes()
    for length in range(0, len(text.rstrip()), 97):
        path.write_bytes(text[:length])
        with pytest.raises(UsageError, match=r"^\S*host\.json:\d+: not JSON, or truncated: .* at column \d+ \(allowed: "):
            Snapshot.load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "not JSON text"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "wrong type .value \\[\\]; allowed: an object"),
        (b"{}", "format: unknown format .allowed: 1"),
        (b'{"format": 2}', "format: unknown format .value 2; allowed: 1"),
        (b'{"format": 1}', "release: missing"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "host.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"host\.json:[\d: ]*{message}") as caught:
        Snapshot.load(path)
    assert "\n" not in str(caught.value)


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be read: No such file or directory .allowed: a file written by"):
        Snapshot.load(tmp_path / "absent.json")


def _put(*path: str | int, value: object) -> Callable[[Any], None]:
    """Return a change that sets one value inside the file's data."""

    def change(data: Any) -> None:
        for step in path[:-1]:
            data = data[step]
        data[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_put("zones", value=[]), "zones: no zones"),
        (_put("zones", value={}), "zones: wrong type .*a list"),
        (_put("zones", 0, value=3), r"zones\[0\]: wrong type .value 3; allowed: an object"),
        (_put("zones", 1, "pages", value=3), r"zones\[1\]\.pages: unknown key .allowed: node, kind"),
        (_put("zones", 2, "kind", value="High"), r"zones\[2\]\.kind: unknown zone .*DMA, DMA32, Normal, Movable"),
        (_put("zones", 2, "pcp_pages", value=-1), r"zones\[2\]\.pcp_pages: wrong type or value .value -1; .*0 to"),
        (_put("zones", 2, "pcp_pages", value=1 << 63), r"zones\[2\]\.pcp_pages: wrong type or value"),
        (_put("zones", 2, "pcp_pages", value=True), r"zones\[2\]\.pcp_pages: wrong type or value"),
        (_put("zones", 2, "pcp_pages", value=1.0), r"zones\[2\]\.pcp_pages: wrong type or value"),
        (_put("zones", 2, "free", "Sticky", value={"counts": [0] * 11}), r"zones\[2\]\.free\.Sticky: unknown migratetype"),
        (_put("zones", 2, "blocks", "Sticky", value=1), r"zones\[2\]\.blocks\.Sticky: unknown migratetype"),
        (_put("zones", 2, "free", "Movable", "counts", value=[1]), r"zones\[2\]\.free\.Movable\.counts: wrong number"),
        (_put("zones", 2, "free", "Movable", "at_least", value=[11]), r"zones\[2\]\.free\.Movable\.at_least: no s"),
        (_put("zones", 2, "free", "Movable", "counts", 10, value=10**6), r"zones\[2\]\.free: more free pages than"),
        (_put("zones", 2, "start_pfn", value=1 << 40), r"zones\[2\]\.spanned_pages: ends beyond 52-bit"),
        (_put("zones", 2, "blocks", "Unmovable", value=10**12), r"zones\[2\]\.blocks: more page blocks .*0 to 13232"),
        (_put("zones", 2, "managed_pages", value=10**12), r"zones\[2\]\.managed_pages: out of range .*0 to 6774784"),
        (_put("zones", 2, "present_pages", value=10**12), r"zones\[2\]\.present_pages: out of range"),
        (_put("zones", 2, "deferred_pages", value=10**12), r"zones\[2\]\.deferred_pages: out of range"),
        (_put("zones", 2, "pcp_pages", value=10**12), r"zones\[2\]\.pcp_pages: out of range"),
        (_put("zones", 2, "reserve_pages", value=10**12), r"zones\[2\]\.reserve_pages: out of range"),
        (_put("zones", 2, "min_pages", value=10**12), r"zones\[2\]\.min_pages: out of range"),
        (_put("zones", 3, "start_pfn", value=1048577), r"zones\[3\]\.start_pfn: begins inside zones\[2\]; interleaved"),
        (_put("zones", 1, "start_pfn", value=1), r"zones\[1\]\.start_pfn: begins inside zones\[0\]"),
        (_put("thp", value="always"), "thp: wrong type .*an object"),
        (_put("cpu", value=None), "cpu: wrong type or value .*a string"),
    ],
)
def test_damaged_values(tmp_path: Path, change: Callable[[Any], None], message: str) -> None:
    path = tmp_path / "host.json"
    capture(TWO_NODES).save(path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(UsageError, match=rf"host\.json:\d+: {message}"):
        Snapshot.load(path)


def test_the_line_is_that_of_the_key(tmp_path: Path) -> None:
    path = tmp_path / "host.json"
    capture(TWO_NODES).save(path)
    lines = path.read_text().splitlines()
    third = [number for number, line in enumerate(lines) if '"node":' in line][2]
    number = next(number for number in range(third, len(lines)) if "reserve_pages" in lines[number])
    path.write_text("\n".join([*lines[:number], '   "reserve_pages": 1000000000000,', *lines[number + 1 :]]))
    with pytest.raises(UsageError, match=rf"host\.json:{number + 1}: zones\[2\]\.reserve_pages: "):
        Snapshot.load(path)


def test_lines_of_keys() -> None:
    text = '{"a": {"b, [": 1,\n "c": [{},\n [1,\n 2]]},\n "d": []\n}'
    found = {
        key: json_line(text, key) for key in ("a.b, [", "a.c", "a.c[0]", "a.c[1]", "a.c[1][1]", "a.c[7]", "a[0]", "d.x", "e")
    }
    assert found == {"a.b, [": 1, "a.c": 2, "a.c[0]": 2, "a.c[1]": 3, "a.c[1][1]": 4, "a.c[7]": 2, "a[0]": 1, "d.x": 5, "e": 1}


def test_decode_wants_a_dataclass() -> None:
    with pytest.raises(TypeError, match="is not a dataclass"):
        decode(int, 3)


def test_this_machine() -> None:
    snapshot = capture()
    assert snapshot.zones
    assert snapshot.free_pages > 0
    assert all(zone.free_pages + zone.deferred_pages <= zone.present_pages for zone in snapshot.zones)
