"""The journal of changed settings, on disk, so that another process can put back what a killed one left.

One file of JSON lines for each ``Settings`` that changed something: first its owner, then a line for each change, on
disk before the change is made. A file whose owner is dead is what SIGKILL leaves behind. Everything that looks at the
files, or adds to them, holds ``locked``.

The files are in /run, which is the machine's, as the settings are: they are found whoever runs gmemlab next, and go
away with the boot that they belong to.
"""

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from gmemlab.errors import UnsupportedError

_PROC: Final = Path("/proc")
_SUFFIX: Final = ".jsonl"
_COMMAND_WIDTH: Final = 200


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, so that another one with the same number is not taken for it.

    Attributes:
        boot: the kernel's boot_id.
        pid: its number.
        start: when it started, in clock ticks since boot.
        command: its command line, for messages.
    """

    boot: str
    pid: int
    start: int
    command: str

    @classmethod
    def current(cls) -> Self:
        """Return this process.

        Raises:
            UnsupportedError: /proc cannot be read.
        """
        start = _start_time(os.getpid())
        if start is None:
            raise UnsupportedError("/proc/self/stat", "cannot be read")
        return cls(_boot_id(), os.getpid(), start, " ".join(sys.argv)[:_COMMAND_WIDTH])

    @property
    def alive(self) -> bool:
        """Whether the process still runs; a zombie does not."""
        return self.boot == _boot_id() and _start_time(self.pid) == self.start


@dataclass(frozen=True, slots=True)
class Change:
    """One setting that was changed.

    Attributes:
        path: below the root directory, such as ``proc/sys/vm/swappiness``.
        before: the value found.
        after: the value asked for.
        time: nanoseconds of CLOCK_MONOTONIC, which orders the changes of all processes of one boot.
    """

    path: str
    before: str
    after: str
    time: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A journal found on disk: its file, its owner, and the changes, oldest first."""

    file: Path
    owner: Owner
    changes: tuple[Change, ...]


class Journal:
    """The journal of one ``Settings``; call everything under ``locked``.

    Args:
        state: the directory of the journals.

    Raises:
        UnsupportedError: the file cannot be created.
    """

    def __init__(self, state: Path) -> None:
        owner = Owner.current()
        self.file = state / f"{owner.pid}-{time.monotonic_ns()}{_SUFFIX}"
        try:
            self._handle = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._append(asdict(owner))
            _sync_directory(state)
        except OSError as error:
            raise UnsupportedError(str(self.file), f"the journal cannot be written: {error.strerror}") from error

    def add(self, change: Change) -> None:
        """Write a change to disk; when this returns, it may be made.

        Raises:
            UnsupportedError: the file cannot be written.
        """
        try:
            self._append(asdict(change))
        except OSError as error:
            raise UnsupportedError(str(self.file), f"the journal cannot be written: {error.strerror}") from error

    def close(self, *, keep: bool) -> None:
        """End the journal.

        Args:
            keep: leave the file to the next gmemlab, because something in it could not be put back.
        """
        os.close(self._handle)
        if not keep:
            self.file.unlink(missing_ok=True)

    def _append(self, record: dict[str, object]) -> None:
        os.write(self._handle, (json.dumps(record) + "\n").encode())
        os.fsync(self._handle)


def state_directory(root: Path) -> Path:
    """Return where the journals are: /run/gmemlab below ``root``, or the user's state directory if /run is read-only."""
    run = root / "run"
    if root != Path("/") or os.access(run, os.W_OK):
        return run / "gmemlab"
    home = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (home if home.is_absolute() else Path.home() / ".local" / "state") / "gmemlab"


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Keep all other gmemlab processes from the journals; creates the directory.

    Raises:
        UnsupportedError: the directory cannot be created or belongs to another user.
    """
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Whoever can write here decides what the next gmemlab, perhaps root's, writes into the kernel.
        if state.stat().st_uid != os.geteuid():
            raise UnsupportedError(str(state), "belongs to another user")
        handle = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UnsupportedError(str(state), f"cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def read_journals(state: Path) -> list[Entry]:
    """Return the journals of this boot; those of earlier ones, whose changes are gone, are removed."""
    entries = []
    for file in sorted(state.glob(f"*{_SUFFIX}")):
        entry = _read(file)
        if entry is None or entry.owner.boot != _boot_id():
            file.unlink(missing_ok=True)
        else:
            entries.append(entry)
    return entries


def _read(file: Path) -> Entry | None:
    """Read one journal; None if it has no owner: it was never finished, so that nothing was changed after it."""
    handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(handle, encoding="utf-8", errors="replace") as stream:
        lines = stream.read().splitlines()
    try:
        owner = Owner(**json.loads(lines[0]))
    except (IndexError, TypeError, json.JSONDecodeError):
        return None
    changes = []
    for line in lines[1:]:
        try:
            changes.append(Change(**json.loads(line)))
        except (TypeError, json.JSONDecodeError):
            break  # cut off while it was written: that change was not made
    return Entry(file, owner, tuple(changes))


def _start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if it does not run (any more)."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # proc_pid_stat(5): the name in parentheses may itself hold any character; field 3 is the state, field 22 the start.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _boot_id() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError as error:
        raise UnsupportedError("/proc/sys/kernel/random/boot_id", f"cannot be read: {error.strerror}") from error


def _sync_directory(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
