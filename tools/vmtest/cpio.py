"""Writes cpio archives as an initramfs needs them.

The format is the one of the kernel's driver-api/early-userspace/buffer-format: "newc" headers, everything padded to
4 bytes. The kernel unpacks any number of such archives that follow each other, each padded to 512 bytes here.
"""

import stat
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

_MAGIC: Final = "070701"
_TRAILER: Final = "TRAILER!!!"
_ALIGNMENT: Final = 512


class Writer:
    """An archive being written; directories that a file lies in come by themselves. Everything belongs to root.

    Args:
        stream: where it goes.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._folders: set[PurePosixPath] = {PurePosixPath(".")}
        self._count = 0

    def folder(self, path: str | PurePosixPath) -> None:
        """Add a directory and those above it."""
        place = PurePosixPath(path)
        if place not in self._folders:
            self.folder(place.parent)
            self._folders.add(place)
            self._entry(str(place), stat.S_IFDIR | 0o755)

    def file(self, path: str | PurePosixPath, data: bytes, *, executable: bool = False) -> None:
        """Add a file.

        Args:
            path: relative to the root.
            data: what it holds.
            executable: whether it is a program.
        """
        self.folder(PurePosixPath(path).parent)
        self._entry(str(path), stat.S_IFREG | (0o755 if executable else 0o644), data)

    def link(self, path: str | PurePosixPath, target: str) -> None:
        """Add a symbolic link."""
        self.folder(PurePosixPath(path).parent)
        self._entry(str(path), stat.S_IFLNK | 0o777, target.encode())

    def tree(self, root: Path) -> None:
        """Add all files and symbolic links below a directory of this machine."""
        for path in sorted(root.rglob("*")):
            place = PurePosixPath(path.relative_to(root))
            if path.is_symlink():
                self.link(place, str(path.readlink()))
            elif path.is_file():
                self.file(place, path.read_bytes(), executable=bool(path.stat().st_mode & stat.S_IXUSR))

    def close(self) -> None:
        """Write the end; the stream stays open."""
        self._entry(_TRAILER, 0)
        self._stream.write(bytes(-self._stream.tell() % _ALIGNMENT))

    def _entry(self, name: str, mode: int, data: bytes = b"") -> None:
        self._count += 1
        encoded = name.encode() + b"\0"
        links, root, time, device = 1, 0, 0, 0
        numbers = (self._count, mode, root, root, links, time, len(data), *(device,) * 4, len(encoded), 0)
        self._padded(_MAGIC.encode() + b"".join(b"%08X" % number for number in numbers) + encoded)
        self._padded(data)

    def _padded(self, data: bytes) -> None:
        self._stream.write(data + bytes(-len(data) % 4))
