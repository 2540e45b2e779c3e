"""Page and filemap events of the live kernel, and the decoding of the ring buffer."""

import itertools
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from gmemlab.errors import GmemlabError, UnsupportedError, UsageError
from gmemlab.kernel.observe import PAGE, tracing
from gmemlab.kernel.observe.ring_buffer import lost_events, page_events, parse_format
from gmemlab.kernel.observe.tracing import Record, Trace
from gmemlab.units import KIB, MIB
from raw_memory import ALLOCATE, PUNCH, fallocate, guest_memfd

ADD = "filemap:mm_filemap_add_to_page_cache"
DELETE = "filemap:mm_filemap_delete_from_page_cache"
ALLOC = "kmem:mm_page_alloc"
FREE = "kmem:mm_page_free"
SIZE = 64 * MIB

FORMAT = """name: an_event
ID: 600
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:unsigned long pfn;\toffset:8;\tsize:8;\tsigned:0;
\tfield:char comm[16];\toffset:16;\tsize:16;\tsigned:0;
\tfield:__data_loc char[] name;\toffset:32;\tsize:4;\tsigned:0;
\tfield:int change;\toffset:36;\tsize:4;\tsigned:1;
\tfield:bool good;\toffset:40;\tsize:1;\tsigned:0;

print fmt: "pfn=%lx", REC->pfn
"""


def _supported() -> bool:
    try:
        with Trace([ADD, DELETE, ALLOC, FREE]):
            return True
    except UnsupportedError:
        return False


needs_tracefs = pytest.mark.skipif(not _supported(), reason="tracefs with page events, root")


# -- decoding ------------------------------------------------------------------------------------------------------------


def test_layout_of_an_event() -> None:
    layout = parse_format(FORMAT)
    assert layout.names == ("common_pid", "pfn", "change", "good")
    data = struct.pack("<HBBiQ16sIiB3x", 600, 0, 0, 77, 1 << 63, b"python", 0, -5, 1)
    assert layout.decode(data) == {"common_pid": 77, "pfn": 1 << 63, "change": -5, "good": 1}


def test_events_of_a_page() -> None:
    def head(kind: int, delta: int) -> bytes:
        return struct.pack("<I", kind | delta << 5)

    stamp = 1 << 40
    body = b"".join(
        (
            head(2, 10) + b"12345678",
            head(30, 3) + struct.pack("<I", 2),  # the time goes on by 2 * 2^27 + 3
            head(0, 1) + struct.pack("<I", 4 + 12) + b"long payload",
            head(29, 5) + struct.pack("<I", 4 + 4) + b"gone",  # discarded: it takes time, but is no event
            head(31, stamp & (1 << 27) - 1) + struct.pack("<I", stamp >> 27),
            head(1, 0) + b"1234",
            head(29, 0),
        )
    )
    page = struct.pack("<QQ", 1000, len(body) + 64) + body
    assert list(page_events(page.ljust(PAGE, b"\xff"))) == [
        (1010, b"12345678"),
        (1010 + (2 << 27) + 3 + 1, b"long payload"),
        (stamp, b"1234"),
    ]
    missed = struct.pack("<QQ", 1000, 1 << 31 | 12) + body
    assert list(page_events(missed)) == [(1010, b"12345678")]
    assert list(page_events(struct.pack("<QQ", 0, 0))) == []


def test_lost_events_are_counted() -> None:
    text = "entries: 7\noverrun: 1\ncommit overrun: 20\nbytes: 5\nnow ts: 3.5\ndropped events: 300\nread events: 9\n"
    assert lost_events(text.splitlines()) == 321


# -- the live kernel -----------------------------------------------------------------------------------------------------


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """Keep the test on one CPU: the LRU lists of another would hold on to up to 31 pages that it had added there."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    yield
    os.sched_setaffinity(0, cpus)


@needs_tracefs
def test_every_page_of_a_guest_memfd_is_seen(one_cpu: None) -> None:
    with guest_memfd(SIZE) as file:
        inode = f"i_ino == {os.fstat(file).st_ino}"
        filters = {ADD: inode, DELETE: inode, ALLOC: f"common_pid == {threading.get_native_id()}"}
        before = time.monotonic_ns()
        with Trace([ADD, DELETE, ALLOC, FREE], filters=filters) as trace:
            trace.start()
            fallocate(file, ALLOCATE, 0, SIZE)
            fallocate(file, PUNCH, 0, SIZE)
            trace.stop()
            records = list(trace.records())
            assert trace.lost == 0
    lives = _lives(records)
    assert len(lives) == SIZE // PAGE
    assert {tuple(record.name for record in life) for life in lives.values()} == {(ALLOC, ADD, DELETE, FREE)}
    assert Counter(record.name for record in records if record.name in (ADD, DELETE)) == dict.fromkeys(
        (ADD, DELETE), len(lives)
    )
    assert {record.fields["order"] for life in lives.values() for record in life} == {0}  # (L8)
    assert {life[0].fields["migratetype"] for life in lives.values()} == {0}  # unmovable (L8)
    assert [record.fields["index"] for record in records if record.name == ADD] == list(range(SIZE // PAGE))
    assert all(earlier.time <= later.time for earlier, later in itertools.pairwise(records))
    assert before < records[0].time <= records[-1].time < time.monotonic_ns()


def _lives(records: list[Record]) -> dict[int, list[Record]]:
    """Return the four events of each page around its time in the file; interrupts free other pages in this task's name."""
    of_page: dict[int, list[Record]] = {}
    for record in records:
        of_page.setdefault(record.fields["pfn"], []).append(record)
    added = {pfn: next((n for n, event in enumerate(events) if event.name == ADD), 0) for pfn, events in of_page.items()}
    return {pfn: events[added[pfn] - 1 : added[pfn] + 3] for pfn, events in of_page.items() if added[pfn]}


@needs_tracefs
def test_nothing_is_recorded_outside_start_and_stop() -> None:
    with guest_memfd(MIB) as file, Trace([ADD], filters={ADD: f"i_ino == {os.fstat(file).st_ino}"}) as trace:
        fallocate(file, ALLOCATE, 0, 2 * PAGE)
        trace.start()
        fallocate(file, ALLOCATE, 2 * PAGE, 2 * PAGE)
        trace.stop()
        fallocate(file, ALLOCATE, 4 * PAGE, 2 * PAGE)
        assert [record.fields["index"] for record in trace.records()] == [2, 3]
        assert list(trace.records()) == []
        trace.start()
        fallocate(file, ALLOCATE, 6 * PAGE, PAGE)
        trace.stop()
        assert [record.fields["index"] for record in trace.records()] == [6]


@needs_tracefs
def test_lost_events_are_reported() -> None:
    with guest_memfd(SIZE) as file, Trace([ADD], filters={ADD: f"i_ino == {os.fstat(file).st_ino}"}, buffer=64 * KIB) as trace:
        trace.start()
        fallocate(file, ALLOCATE, 0, SIZE)
        trace.stop()
        with pytest.raises(GmemlabError, match=r"trace events did not fit into the buffer of 64K for each CPU"):
            trace.records()
        lost = trace.lost
        kept = list(trace.records(partial=True))
        assert len(kept) + lost == SIZE // PAGE
        assert 0 < len(kept) < SIZE // PAGE
        assert kept[0].fields["index"] == 0  # the first ones are kept


@needs_tracefs
def test_what_the_kernel_lacks_or_refuses() -> None:
    with pytest.raises(UnsupportedError, match="trace event kmem:absent: this kernel lacks it"), Trace(["kmem:absent"]):
        pass
    with pytest.raises(UsageError, match=f"not a filter of {ADD}"), Trace([ADD], filters={ADD: "absent == 1"}):
        pass
    assert not any(name.startswith(f"gmemlab-{os.getpid()}-") for name in _instances())


@needs_tracefs
def test_instances_go_away() -> None:
    mounts = Path("/proc/self/mounts").read_text()
    with Trace([ADD]) as first, Trace([ADD]) as second:
        names = {first._folder.name, second._folder.name}
        assert len(names) == 2
        assert names <= _instances()
    assert not names & _instances()
    assert Path("/proc/self/mounts").read_text().count(" tracefs ") == mounts.count(" tracefs ")


@needs_tracefs
def test_records_may_be_left_unread() -> None:
    with guest_memfd(MIB) as file:
        with Trace([ADD], filters={ADD: f"i_ino == {os.fstat(file).st_ino}"}) as trace:
            trace.start()
            fallocate(file, ALLOCATE, 0, MIB)
            trace.stop()
            records = trace.records()
            assert next(records).fields["index"] == 0
        assert next(records).fields["index"] == 1


@needs_tracefs
def test_the_instance_of_a_killed_process_is_removed_and_that_of_a_live_one_is_not() -> None:
    script = f"""
import sys
from gmemlab.kernel.observe.tracing import Trace
with Trace(["{ADD}"]) as trace:
    print(trace._folder.name, flush=True)
    sys.stdin.readline()
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    name = process.stdout.readline().strip()
    assert name.startswith(f"gmemlab-{process.pid}-")
    with Trace([ADD]):
        assert name in _instances()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with Trace([ADD]):
        assert name not in _instances()


def test_without_tracefs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_SYS_FSOPEN", 100_000)  # no such system call
    with pytest.raises(UnsupportedError, match="tracefs: cannot be mounted: Function not implemented"), Trace([ADD]):
        pass


def _instances() -> set[str]:
    with Trace([]) as trace:
        return {folder.name for folder in trace._folder.parent.iterdir()} - {trace._folder.name}
