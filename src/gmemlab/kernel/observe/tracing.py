"""Events of the kernel's page allocator, page cache and others, through a tracefs instance of one's own.

tracefs is mounted for this process alone, detached from the file tree: nothing is left to unmount, even after SIGKILL.
The instance, which does survive, is removed by the next ``Trace`` of any process.
"""

import ctypes
import heapq
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from gmemlab.errors import GmemlabError, UnsupportedError, UsageError
from gmemlab.kernel.journal import Owner
from gmemlab.kernel.observe import PAGE
from gmemlab.kernel.observe.ring_buffer import Layout, lost_events, page_events, parse_format
from gmemlab.units import KIB, MIB, format_size

# One number for all architectures, since 5.2: include/uapi/asm-generic/unistd.h, include/uapi/linux/mount.h.
_SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 430, 431, 432
_FSOPEN_CLOEXEC, _FSCONFIG_CMD_CREATE, _FSMOUNT_CLOEXEC = 1, 6, 1

_PREFIX: Final = "gmemlab"
_BUFFER: Final = 16 * MIB
_MOST_BUFFERS: Final = 512 * MIB  # of all CPUs together
_serial: Final = itertools.count()
_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Record:
    """One event.

    Attributes:
        name: such as ``filemap:mm_filemap_add_to_page_cache``.
        time: nanoseconds of CLOCK_MONOTONIC.
        cpu: where it happened.
        fields: its integers as the kernel stores them: ``pfn``, ``order``, ``i_ino``, ``index`` (pages), ``common_pid``.
    """

    name: str
    time: int
    cpu: int
    fields: Mapping[str, int]


class Trace:
    """A context in which events can be recorded, between ``start`` and ``stop``.

    When the buffer is full the events that follow are lost, and ``records`` says so.

    Args:
        events: names such as ``kmem:mm_page_alloc``.
        filters: for some of the events, which to record: ``{"filemap:mm_filemap_add_to_page_cache": "i_ino == 7"}``.
        buffer: bytes for each CPU, less if all of them would have more than 512 MiB.

    Raises:
        UnsupportedError: no tracefs, not root, or an event that this kernel lacks.
        UsageError: a filter that the kernel refuses.
    """

    def __init__(self, events: Sequence[str], *, filters: Mapping[str, str] | None = None, buffer: int = _BUFFER) -> None:
        self._events = tuple(events)
        self._filters = dict(filters or {})
        self._buffer = min(buffer, _MOST_BUFFERS // (os.cpu_count() or 1))
        self._layouts: dict[int, tuple[str, Layout]] = {}
        self._cleanup = ExitStack()
        self._folder = Path()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            instances = _mount(stack) / "instances"
            _remove_stale(instances)
            self._folder = _make_instance(instances, stack)
            self._configure()
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._cleanup.close()

    def start(self) -> None:
        """Record from now on."""
        self._put("tracing_on", "1")

    def stop(self) -> None:
        """Record no more."""
        self._put("tracing_on", "0")

    @property
    def lost(self) -> int:
        """How many events did not fit into the buffer so far."""
        return sum(lost_events((cpu / "stats").read_text(encoding="ascii").splitlines()) for cpu in self._cpus())

    def records(self, *, partial: bool = False) -> Iterator[Record]:
        """Yield what was recorded, by time, and take it out of the buffer; call it after ``stop``.

        Args:
            partial: be content with the events that fit into the buffer.

        Raises:
            GmemlabError: events were lost, and that is not accepted; says how many.
        """
        lost = self.lost
        if lost and not partial:
            size = format_size(self._buffer)
            raise GmemlabError(f"{lost:,} trace events did not fit into the buffer of {size} for each CPU")
        # All at once, as the instance cannot be removed while one of its files is open.
        pages = [(int(cpu.name.removeprefix("cpu")), _raw_pages(cpu / "trace_pipe_raw")) for cpu in self._cpus()]
        return heapq.merge(*itertools.starmap(self._decode, pages), key=lambda record: record.time)

    def _configure(self) -> None:
        self._put("tracing_on", "0")
        self._put("trace_clock", "mono")
        self._put("options/overwrite", "0")
        self._put("buffer_size_kb", str(max(1, self._buffer // KIB)))
        for event in self._events:
            folder = self._folder / "events" / event.replace(":", "/", 1)
            try:
                number = int((folder / "id").read_text(encoding="ascii"))
                text = (folder / "format").read_text(encoding="utf-8")
            except OSError as error:
                raise UnsupportedError(f"trace event {event}", f"this kernel lacks it: {error.strerror}") from error
            self._layouts[number] = event, parse_format(text)
            condition = self._filters.get(event)
            if condition is not None:
                self._filter(folder, event, condition)
            self._put(str((folder / "enable").relative_to(self._folder)), "1")

    def _filter(self, folder: Path, event: str, condition: str) -> None:
        try:
            (folder / "filter").write_text(condition, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"not a filter of {event}: {error.strerror}", value=condition) from error

    def _put(self, name: str, value: str) -> None:
        try:
            (self._folder / name).write_text(value, encoding="ascii")
        except OSError as error:
            raise UnsupportedError(f"tracefs {name}", f"cannot be set to {value}: {error.strerror}") from error

    def _cpus(self) -> list[Path]:
        return sorted((self._folder / "per_cpu").glob("cpu*"))

    def _decode(self, cpu: int, pages: Sequence[bytes]) -> Iterator[Record]:
        for page in pages:
            for time, data in page_events(page):
                kind = self._layouts.get(int.from_bytes(data[:2], "little"))
                if kind is not None:
                    name, layout = kind
                    yield Record(name, time, cpu, layout.decode(data))


def _raw_pages(file: Path) -> list[bytes]:
    """Take all pages out of one CPU's buffer."""
    pages: list[bytes] = []
    handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while page := os.read(handle, PAGE):
            pages.append(page)
    except BlockingIOError:
        pass  # empty
    finally:
        os.close(handle)
    return pages


def _mount(stack: ExitStack) -> Path:
    """Mount tracefs detached and return a path to it that is good for this process."""
    context = _call(_SYS_FSOPEN, b"tracefs", _FSOPEN_CLOEXEC)
    try:
        _call(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        mount = _call(_SYS_FSMOUNT, context, _FSMOUNT_CLOEXEC, 0)
    finally:
        os.close(context)
    stack.callback(os.close, mount)
    return Path(f"/proc/self/fd/{mount}")


def _call(number: int, *arguments: bytes | int | None) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        raise UnsupportedError("tracefs", f"cannot be mounted: {os.strerror(ctypes.get_errno())} (needs root)")
    return result


def _make_instance(instances: Path, stack: ExitStack) -> Path:
    owner = Owner.current()
    folder = instances / f"{_PREFIX}-{owner.pid}-{owner.start}-{next(_serial)}"
    try:
        folder.mkdir()
    except OSError as error:
        raise UnsupportedError("tracefs instances", f"cannot be created: {error.strerror} (needs root)") from error
    stack.callback(folder.rmdir)
    return folder


def _remove_stale(instances: Path) -> None:
    """Remove the instances of dead processes."""
    for folder in instances.glob(f"{_PREFIX}-*"):
        words = folder.name.split("-")
        if len(words) == 4 and all(word.isdecimal() for word in words[1:]):
            owner = Owner(Owner.current().boot, int(words[1]), int(words[2]), "")
            if not owner.alive:
                with suppress(OSError):  # another process may be removing it as well
                    folder.rmdir()
