"""Python and BusyBox from Debian packages, as an initramfs."""

import re
import tempfile
from pathlib import Path, PurePosixPath
from typing import Final

from tools.vmtest.cpio import Writer
from tools.vmtest.host import kept, key, output, timed
from tools.vmtest.packages import Archive, unpack

_PACKAGES: Final = ("python3", "busybox-static")
_FILES: Final = re.compile(
    r"usr/bin/(python3[.\d]*|busybox)|usr/lib/python3\.\d+/(?!test/|pydoc_data/).*|usr/lib(64)?/(?!.*/gconv/).*\.so[.\d]*"
)
_LIBRARIES: Final = "usr/lib/x86_64-linux-gnu"

# Directories that Debian merges into /usr; packages may still hold files under the old names.
_MERGED: Final = ("bin", "lib", "lib64", "sbin")


def fetch_python(release: str) -> Path:
    """Return a directory with Python of a Debian release: ``python.cpio``, an initramfs, and ``root``, to run it here.

    Args:
        release: the codename.

    Raises:
        GmemlabError: the packages cannot be loaded.
    """
    archive = Archive(release)
    packages = archive.closure(*_PACKAGES)

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            files = archive.download_closure(_PACKAGES, Path(scratch))
            with timed(f"{release}: unpacking and compiling Python"):
                unpack(files, Path(scratch, "root"))
                _merge(Path(scratch, "root"), folder / "root")
                compile_python(folder / "root", folder / "root")
                _pack(folder / "root", folder / "python.cpio")

    return kept(f"python-{release}-{key(*packages, _FILES.pattern)}", make)


def compile_python(root: Path, folder: Path) -> None:
    """Compile the Python files in a directory here: emulated, it takes many times longer.

    Args:
        root: a file system with the Python to compile for.
        folder: the directory; it will be the machine's root directory.
    """
    (python,) = (path for path in root.glob("usr/bin/python3.*") if not path.is_symlink())
    libraries = root / _LIBRARIES
    options = ("-q", "--invalidation-mode", "unchecked-hash", "-s", folder, "-p", "/")
    output(
        [libraries / "ld-linux-x86-64.so.2", "--library-path", libraries, python, "-m", "compileall", *options, folder],
        env={"PYTHONHOME": str(root / "usr")},
    )


def _merge(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        place = PurePosixPath(path.relative_to(source))
        if place.parts[0] in _MERGED:
            place = "usr" / place
        if (path.is_symlink() or path.is_file()) and _FILES.fullmatch(str(place)):
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            path.rename(target / place)


def _pack(root: Path, target: Path) -> None:
    with target.open("wb") as stream:
        archive = Writer(stream)
        for name in _MERGED:
            archive.folder(f"usr/{name}")
            archive.link(name, f"usr/{name}")
        archive.tree(root)
        archive.close()
