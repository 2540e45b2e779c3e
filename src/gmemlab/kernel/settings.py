"""Changes of /proc/sys and /sys that are always put back: on success, exception, Ctrl-C, SIGTERM, and after SIGKILL.

``Settings`` records a value, in memory and in a journal on disk, before it changes it. ``recover`` puts back what a dead
process left; every command that touches the live kernel calls it first. Of a file that offers a choice, such as
``always [madvise] never``, the value is the word in brackets.
"""

import atexit
import errno
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, NoReturn, Self

from gmemlab.errors import GmemlabError, UnsupportedError, UsageError
from gmemlab.kernel.journal import Change, Entry, Journal, Owner, locked, read_journals, state_directory

_LIVE: Final = Path("/")
_PLACES: Final = ("proc/sys/", "sys/")
_CHOICE: Final = re.compile(r"\[([^\[\]\s]+)\]")
_ENDINGS: Final = (signal.SIGTERM, signal.SIGHUP)  # a closed terminal ends a run as well
_BAD_VALUE: Final = (errno.EINVAL, errno.ERANGE)
_POLL_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Restored:
    """A setting that a dead process had left changed.

    Attributes:
        path: such as ``/proc/sys/vm/swappiness``.
        found: the value that was left.
        value: the value from before, which it has again if there is no problem.
        owner: the process that left it.
        problem: why it could not be put back; "" if it was.
    """

    path: str
    found: str
    value: str
    owner: Owner
    problem: str = ""

    def __str__(self) -> str:
        whose = f"left by process {self.owner.pid}, which was killed: {self.owner.command}"
        if self.problem:
            return f"{self.path}: could not be put back from {self.found!r} to {self.value!r}: {self.problem} ({whose})"
        return f"{self.path}: put back from {self.found!r} to {self.value!r} ({whose})"


class Settings:
    """A context in which settings may be changed; leaving it puts them back, the last one first.

    Contexts nest; an inner one puts back what the outer one had set. Another process cannot change a setting that this
    one has changed. While a context is active in the main thread, SIGTERM and SIGHUP raise ``SystemExit(128 + signal)``,
    unless they are ignored, so that everything on the way out is cleaned up. A forked child puts nothing back.

    Args:
        root: the directory that stands for ``/``.
        patience: seconds to wait for another process to put back a setting that is wanted here.
        say: is called with each line that the user must know: what was recovered, and what could not be put back.

    Raises:
        GmemlabError: on leaving, without another exception under way: names settings that could not be put back.
    """

    def __init__(self, root: Path = _LIVE, *, patience: float = 0.0, say: Callable[[str], object] | None = None) -> None:
        self._root = root
        self._state = state_directory(root)
        self._patience = patience
        self._say = say or _say
        self._process = os.getpid()
        self._journal: Journal | None = None
        self._changes: list[Change] = []
        self._handlers: dict[int, Any] = {}
        self._active = False

    def __enter__(self) -> Self:
        self._process = os.getpid()
        self._active = True
        # Python runs __exit__ after every exception but one that arrives just as __exit__ begins: a second line.
        atexit.register(self._leave)
        if threading.current_thread() is threading.main_thread():
            for number in _ENDINGS:
                previous = signal.getsignal(number)
                if previous not in (signal.SIG_IGN, None):
                    self._handlers[number] = previous
                    signal.signal(number, _end)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        lost = self._leave()
        if lost and kind is None:
            raise GmemlabError(f"settings that could not be put back: {', '.join(lost)}")

    def get(self, path: str) -> str:
        """Return the value of a setting: the word in brackets if it offers a choice, else the whole text.

        Args:
            path: below the root directory, such as ``proc/sys/vm/swappiness``.

        Raises:
            UsageError: it is not below /proc/sys or /sys.
            UnsupportedError: it cannot be read.
        """
        _check(path)
        return _value(_text(self._root, path))

    def set(self, path: str, value: str | int) -> str:
        """Change a setting and return the value that it then has, which may differ: a hugetlb pool may grow by less.

        Args:
            path: below the root directory, such as ``sys/kernel/mm/transparent_hugepage/shmem_enabled``.
            value: what to write.

        Raises:
            UsageError: the kernel refuses the value, another process has changed the setting, or it is none.
            UnsupportedError: it is absent, or this user may not change it.
        """
        if not self._active or os.getpid() != self._process:
            raise RuntimeError("settings are changed by the process that entered the context")
        _check(path)
        if os.geteuid() != 0 and (self._root / path).exists() and not os.access(self._root / path, os.W_OK):
            raise UnsupportedError(f"/{path}", f"cannot be set to {str(value)!r}: needs root")
        if all(change.path != path for change in self._changes):
            self._record(path, str(value))
        _write(self._root, path, str(value))
        return self.get(path)

    def _record(self, path: str, value: str) -> None:
        """Write the present value down, once no other process holds the setting."""
        deadline = time.monotonic() + self._patience
        while True:
            # A signal here would leave a journal that nothing closes.
            with _signals_held(), locked(self._state):
                for restored in _recover(self._root, self._state):
                    self._say(str(restored))
                holder = _holder(self._state, path)
                if holder is None:
                    before = self.get(path)
                    self._journal = self._journal or Journal(self._state)
                    change = Change(path, before, value, time.monotonic_ns())
                    self._journal.add(change)
                    self._changes.append(change)
                    return
            if time.monotonic() >= deadline:
                message = f"changed by process {holder.pid}, which still runs: {holder.command}"
                raise UsageError(message, file=f"/{path}", value=value, allowed="one process at a time")
            time.sleep(_POLL_SECONDS)

    def _leave(self) -> list[str]:
        """Put everything back, then let signals come through; return the paths that could not be put back."""
        if not self._active or os.getpid() != self._process:
            return []
        try:
            with _signals_held():
                self._active = False
                return self._put_back()
        finally:
            if not self._active:  # else a signal came first, and what is left to do is done at exit
                for number, handler in self._handlers.items():
                    signal.signal(number, handler)
                self._handlers.clear()
                atexit.unregister(self._leave)

    def _put_back(self) -> list[str]:
        lost = []
        for change in reversed(self._changes):
            found, problem = _restore(self._root, change)
            if problem:
                lost.append(f"/{change.path}")
                self._say(f"/{change.path}: could not be put back from {found!r} to {change.before!r}: {problem}")
        self._changes.clear()
        if self._journal is not None:
            with locked(self._state):
                self._journal.close(keep=bool(lost))
            self._journal = None
        return lost


def recover(root: Path = _LIVE) -> list[Restored]:
    """Put back what dead processes left changed, and return it, in the order in which it was done.

    What live processes changed is left alone. Whatever cannot be put back is tried again next time, unless the setting
    is gone.

    Args:
        root: the directory that stands for ``/``.

    Raises:
        UnsupportedError: the directory of the journals cannot be used.
    """
    state = state_directory(root)
    # Other users can neither look into root's journals nor change its settings.
    if not os.access(state, os.W_OK | os.X_OK) or not any(state.glob("*.jsonl")):
        return []
    with _signals_held(), locked(state):
        return list(_recover(root, state))


def _recover(root: Path, state: Path) -> Iterator[Restored]:
    """Put back what dead processes left, the last change of all first; call it under ``locked``."""
    dead = [entry for entry in read_journals(state) if not entry.owner.alive]
    failed: set[Path] = set()
    for change, entry in _latest_first(dead):
        found, problem = _restore(root, change)
        if problem and found is not None:
            failed.add(entry.file)
        if problem or found != change.before:
            yield Restored(f"/{change.path}", found or "", change.before, entry.owner, problem)
    for entry in dead:
        if entry.file not in failed:
            entry.file.unlink(missing_ok=True)


def _latest_first(entries: Iterable[Entry]) -> list[tuple[Change, Entry]]:
    changes = [(change, entry) for entry in entries for change in entry.changes]
    return sorted(changes, key=lambda pair: pair[0].time, reverse=True)


def _holder(state: Path, path: str) -> Owner | None:
    """Return the other process whose journal has the setting."""
    for entry in read_journals(state):
        owner = entry.owner
        if owner.pid != os.getpid() and owner.alive and any(change.path == path for change in entry.changes):
            return owner
    return None


def _restore(root: Path, change: Change) -> tuple[str | None, str]:
    """Write the old value, and see that it is there. Return the value found (None: unreadable), and the problem or ""."""
    found = None
    try:
        _check(change.path)
        found = _value(_text(root, change.path))
        if found == change.before:
            return found, ""
        _write(root, change.path, change.before)
        now = _value(_text(root, change.path))
    except UnsupportedError as error:
        return found, error.reason
    except UsageError as error:
        return found, error.message
    return found, "" if now == change.before else f"it has {now!r} after the write"


def _check(path: str) -> None:
    """Refuse whatever is no setting: a journal must not be able to make root write elsewhere."""
    if not path.startswith(_PLACES) or ".." in Path(path).parts:
        raise UsageError("not a setting", value=path, allowed=f"a file below {' or '.join(_PLACES)}")


def _text(root: Path, path: str) -> str:
    try:
        return (root / path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UnsupportedError(f"/{path}", f"cannot be read: {error.strerror}") from error


def _value(text: str) -> str:
    match = _CHOICE.search(text)
    return match[1] if match else text.strip()


def _write(root: Path, path: str, value: str) -> None:
    """Write a value in one call, as sysfs wants it; never creates a file."""
    try:
        handle = os.open(root / path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(handle, f"{value}\n".encode())
        finally:
            os.close(handle)
    except OSError as error:
        reason = f"cannot be set to {value!r}: {error.strerror}"
        if error.errno not in _BAD_VALUE:
            raise UnsupportedError(f"/{path}", reason) from error
        raise UsageError(reason, file=f"/{path}", allowed=_choices(_text(root, path))) from error


def _choices(text: str) -> str | None:
    """Return the words that a file offers, or None if it says none."""
    return text.replace("[", "").replace("]", "").strip() if _CHOICE.search(text) else None


@contextmanager
def _signals_held() -> Iterator[None]:
    """Let Ctrl-C and the signals that end a process wait; in other threads than the main one they do not arrive."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        """Remember a signal, to raise it later."""
        arrived.append(number)

    numbers: list[int] = [number for number in (signal.SIGINT, *_ENDINGS) if signal.getsignal(number) is not None]
    previous = {number: signal.signal(number, note) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for number in arrived:
            signal.raise_signal(number)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _say(line: str) -> None:
    print(f"gmemlab: {line}", file=sys.stderr)
