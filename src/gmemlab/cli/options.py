"""What several sub-commands take: a host, policies with single choices set, numbers; and the progress they show."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from gmemlab.cli.entry import INTERRUPTED
from gmemlab.errors import UsageError
from gmemlab.policy import Policy
from gmemlab.presets import PRESETS, find, for_guest
from gmemlab.units import SIZE_FORMS, parse_size

if TYPE_CHECKING:
    from gmemlab.model.host import Host

LIVE: Final = "live"
HOST_HELP: Final = "live (this machine's free memory), the size of an empty machine, or a file of `gmemlab host --save`."
FRAGMENTATION_HELP: Final = "Fragment a host that is given by its size: share of free memory outside 2M pages, 0 to 0.95."
GUESTS_HELP: Final = "What hardware the guests have: generic, plain, sw-protected, pkvm, snp or tdx; by default the scenario's."
CPUS_HELP: Final = "CPUs that keep lists of free pages of their own; 0: none does, which is faster."
NODES_HELP: Final = "NUMA nodes of a host that is given by its size. Guests are at home on one after the other."
WATERMARKS_HELP: Final = "Whether a host that is given by its size has watermarks: a reserve, kswapd and boosts. On by default."
CMA_HELP: Final = "CMA of a host that is given by its size: 1G at its end, for movable memory only."
SET_HELP: Final = "Set one choice of the policies: choice=value (see `gmemlab policies thp`). May be repeated."
QUIET_SECONDS: Final = 2.0
Handler = Callable[[int, FrameType | None], Any] | int | None


def host_factory(
    host: str, fragmentation: float | None, cpus: int, nodes: int, watermarks: bool | None, cma: str | None
) -> "Callable[[int], Host]":
    """Return what makes fresh hosts from seeds. This machine, or a file, is looked at once.

    Args:
        host: ``live``, a size, or the path of a snapshot.
        fragmentation: of a host that is given by its size.
        cpus: that keep lists of their own.
        nodes: NUMA nodes of a host that is given by its size.
        watermarks: whether that has watermarks; it has by default.
        cma: size of its CMA; none by default.

    Raises:
        UsageError: no such host, a damaged file, or fragmentation, nodes, watermarks or CMA for a host that has its own.
        UnsupportedError: this machine's free memory cannot be read.
    """
    from gmemlab.capture import capture
    from gmemlab.model.host import Host
    from gmemlab.snapshot import Snapshot

    if host != LIVE and _is_size(host):
        return lambda seed: Host(host, fragmentation, seed, cpus, nodes, cma=cma or 0, watermarks=watermarks is not False)
    for key, value in (("watermarks", watermarks), ("cma", cma)):
        if value is not None:
            raise UsageError(f"only a host that is given by its size can be told its {key}", key=f"--{key}", value=value)
    if nodes != 1:
        raise UsageError("only a host that is given by its size can be given nodes", key="--nodes", value=nodes)
    if fragmentation is not None:
        raise UsageError("only a host that is given by its size can be fragmented", key="--fragmentation", value=fragmentation)
    if host == LIVE:
        snapshot = capture()
        description = f"this machine, Linux {snapshot.release}"
    elif Path(host).is_file():
        snapshot = Snapshot.load(host)
        description = f"{Path(host).name}, Linux {snapshot.release}"
    else:
        allowed = f"live, a file written by `gmemlab host --save`, or a size: {SIZE_FORMS}"
        raise UsageError("no such host", key="--host", value=host, allowed=allowed)
    return lambda seed: Host.from_snapshot(snapshot, seed, description, cpus)


def chosen_policies(names: Sequence[str], settings: Sequence[str]) -> list[Policy]:
    """Return presets for confidential guests by name, each once, with single choices set.

    Args:
        names: of presets.
        settings: ``choice=value`` each.

    Raises:
        UsageError: no policy, an unknown one or one for ordinary memory, an unknown choice or value, a choice that is set
            twice, or choices that do not go together.
    """
    if not names:
        raise UsageError("no policy named", key="--policies", allowed=", ".join(PRESETS))
    choices: dict[str, str] = {}
    for choice, value in map(_setting, settings):
        if choice in choices:
            raise UsageError("set more than once", key=f"--set {choice}", value=value, allowed="each choice once")
        choices[choice] = value
    presets = [for_guest(find(name)) for name in dict.fromkeys(names)]
    return [preset.with_choices(choices) if choices else preset for preset in presets]


def listed(text: str) -> list[str]:
    """Return the names in a list with commas."""
    return [name for part in text.split(",") if (name := part.strip())]


def _setting(text: str) -> tuple[str, str]:
    choice, _, value = (part.strip() for part in text.partition("="))
    if not choice or not value:
        raise UsageError("not a choice and its value", key="--set", value=text, allowed="choice=value, such as punch=zero")
    return choice, value


def _is_size(host: str) -> bool:
    try:
        parse_size(host)
    except UsageError:
        return False
    return True


class Ticker:
    """Shows what a long command is doing, and ends it at once on Ctrl-C.

    What it is doing is a line with a progress bar on standard error: if that is a terminal, and after two seconds. While
    it is entered, Ctrl-C leaves the process from the signal handler: a KeyboardInterrupt would be lost inside the
    callbacks of the compiler's libraries. The handler runs only between two steps of the interpreter, so a thread watches
    as well: it leaves while the main thread loads machine code or copies tables. So nothing may be half-written
    meanwhile but the lines of a table.

    Args:
        unwind: let Ctrl-C raise KeyboardInterrupt all the same: for commands that change the machine and must put it back.
    """

    def __init__(self, unwind: bool = False) -> None:
        """Start counting the two seconds when it is entered."""
        self._unwind = unwind
        self._lock = threading.RLock()
        self._doing: tuple[str, float] | None = None
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._due = False
        self._timer = threading.Timer(QUIET_SECONDS, self._open)
        self._timer.daemon = True
        self._previous: Handler = signal.SIG_DFL
        self._wakeup = -1  # where the interpreter's own handler, in C, writes the number of a signal at once

    def __enter__(self) -> Self:
        if not self._unwind:
            self._previous = signal.signal(signal.SIGINT, self._interrupted)
            watched, self._wakeup = os.pipe()
            os.set_blocking(self._wakeup, False)
            signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
            threading.Thread(target=self._watch, args=(watched,), daemon=True).start()
        if sys.stderr.isatty():
            self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._unwind:
            signal.set_wakeup_fd(-1)
            os.close(self._wakeup)
            signal.signal(signal.SIGINT, self._previous)
        self._timer.cancel()
        self.clear()

    def show(self, name: str, share: float) -> None:
        """Show what is being done, and how much of it (0 to 1) is done."""
        with self._lock:
            self._doing = (name, share)
            if self._bar is not None:
                self._bar.update(self._task, description=name, completed=share)
            elif self._due:
                self._open()

    def clear(self) -> None:
        """Take the line away, before something else is printed."""
        with self._lock:
            self._doing = None
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    def _open(self) -> None:
        with self._lock:
            self._due = True
            if self._doing is None:
                return
            name, share = self._doing
            columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
            screen = Console(stderr=True)
            self._bar = Progress(*columns, console=screen, transient=True, redirect_stdout=False, redirect_stderr=False)
            self._task = self._bar.add_task(name, total=1)
            self._bar.update(self._task, completed=share)
            self._bar.start()

    def _watch(self, watched: int) -> None:
        """Leave the process on Ctrl-C, until the other end of the pipe is closed."""
        while numbers := os.read(watched, 64):
            if signal.SIGINT in numbers:
                self._interrupted(signal.SIGINT, None)
        os.close(watched)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        self.clear()
        os._exit(INTERRUPTED)
