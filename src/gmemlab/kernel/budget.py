"""How much memory a command may use on the live machine.

Available is what /proc/meminfo calls so, or less where the limit of a memory cgroup allows less: guest_memfd that hits it
kills the process (L9).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gmemlab.errors import UnsupportedError, UsageError
from gmemlab.kernel.features import read_optional, read_required
from gmemlab.kernel.procfs import parse_meminfo
from gmemlab.units import GIB, format_size, parse_size

_LIVE: Final = Path("/")
_LEAVE: Final = 2 * GIB
# Limit and usage of a cgroup, and the line of its memory.stat that says how much cache it can give up easily.
_VERSION_2: Final = ("memory.max", "memory.current", "inactive_file")
_VERSION_1: Final = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


class Budget:
    """At most half of the memory that is available when this is made, or a limit, and always leaving some.

    Args:
        limit: bytes, or a size such as ``8G``; half of what is available if None.
        leave: bytes that must stay available; 2 GiB.
        root: the directory that stands for ``/``.

    Raises:
        UnsupportedError: /proc/meminfo cannot be read.
        UsageError: not a size.
    """

    def __init__(self, limit: int | str | None = None, *, leave: int = _LEAVE, root: Path = _LIVE) -> None:
        self._root = root
        self._leave = leave
        self._limit = None if limit is None else parse_size(limit)
        self._half = self._available() // 2

    @property
    def size(self) -> int:
        """Bytes that may be used now, beyond what is in use."""
        allowed = self._half if self._limit is None else self._limit
        return max(0, min(allowed, self._available() - self._leave))

    def check(self, size: int, what: str) -> None:
        """Refuse what needs more memory than may be used now.

        Args:
            size: bytes that will be used at the same time, beyond what is in use.
            what: for whom, as the message shall name it.

        Raises:
            UsageError: the limit forbids it.
            UnsupportedError: this machine has too little.
        """
        if self._limit is not None and size > self._limit:
            raise UsageError(f"{what} needs {format_size(size)} of memory, more than the limit", value=format_size(self._limit))
        if size > self.size:
            available = format_size(self._available())
            raise UnsupportedError(
                f"{format_size(size)} of memory for {what}",
                f"{available} are available, of which {format_size(self.size)} may be used",
            )

    def _available(self) -> int:
        return min((parse_meminfo(read_required(self._root, "proc/meminfo")).available, *_cgroup_rooms(self._root)))


def _cgroup_rooms(root: Path) -> Iterator[int]:
    """Yield what the limits of this process's memory cgroup, and of those above it, leave; nothing where there are none."""
    for line in (read_optional(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        places: tuple[str, ...]
        if not controllers:
            places, files = ("sys/fs/cgroup", "sys/fs/cgroup/unified"), _VERSION_2
        elif "memory" in controllers.split(","):
            places, files = ("sys/fs/cgroup/memory",), _VERSION_1
        else:
            continue
        for place in places:
            # A container may be shown the path outside while its own cgroup is mounted on top: then only "." exists.
            own = Path(path.lstrip("/"))
            for folder in (own, *own.parents):
                yield from _room(root / place / folder, *files)


def _room(folder: Path, limit_name: str, usage_name: str, cache_name: str) -> Iterator[int]:
    """Yield limit less usage of one cgroup, not counting cache that is given up first; nothing if there is no limit."""
    limit, usage = ((read_optional(folder / name) or "").strip() for name in (limit_name, usage_name))
    if limit.isdecimal() and usage.isdecimal():
        lines = (line.split() for line in (read_optional(folder / "memory.stat") or "").splitlines())
        cache = sum(int(words[1]) for words in lines if words[0] == cache_name)
        yield max(0, int(limit) - int(usage) + cache)
