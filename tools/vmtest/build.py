"""A kernel from Debian's source package, configured for software-protected VMs, which no Debian kernel offers."""

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from gmemlab.errors import GmemlabError, UnsupportedError
from tools.vmtest.debian import Kernel, newest
from tools.vmtest.host import kept, key, need, output, timed
from tools.vmtest.packages import RELEASES, Archive, unpack

FRAGMENT: Final = Path(__file__).with_name("sw_protected.config")

_PREFIX: Final = "linux-source-"
_PROGRAMS: Final = ("gcc", "ld", "make", "flex", "bison", "bc", "gzip", "tar", "xz")
_IMAGE: Final = "arch/x86/boot/bzImage"


def build_kernel(prefix: str) -> Kernel:
    """Return a kernel for software-protected VMs, ready to boot; the first time, it is built.

    Args:
        prefix: the series, such as 7.3.

    Raises:
        UsageError: Debian has no source of it.
        UnsupportedError: a program is missing, libelf, or a Debian mirror.
        GmemlabError: the source cannot be loaded, configured or built.
    """
    need(*_PROGRAMS)
    _need_libelf()
    found = {
        name.removeprefix(_PREFIX): archive
        for archive in map(Archive, reversed(RELEASES))
        for name in archive.names(_PREFIX)
    }  # fmt: skip
    series = newest(found, prefix)
    archive = found[series]
    package = archive.package(f"{_PREFIX}{series}")

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            tree, made = Path(scratch, "tree"), Path(scratch, "made")
            files = archive.download([package.name], Path(scratch))
            with timed(f"{package.name}: unpacking"):
                unpack(files, Path(scratch, "root"))
                (tarball,) = Path(scratch).glob("root/usr/src/*.tar.xz")
                tree.mkdir()
                output(["tar", "--extract", "--file", tarball, "--strip-components=1", "--directory", tree])
            made.mkdir()
            _configure(tree, made)
            with timed(f"{package.name}: building, about ten minutes of one processor's time"):
                output(["make", "-s", f"-j{os.cpu_count()}", f"O={made}", "bzImage"], cwd=tree)
            (made / _IMAGE).rename(folder / "vmlinuz")
            (made / ".config").rename(folder / "config")
            (made / "include/config/kernel.release").rename(folder / "release")

    compiler = output(["gcc", "--version"]).splitlines()[0]
    fragment = FRAGMENT.read_text(encoding="utf-8")
    folder = kept(f"kernel-{series}-sw-protected-{key(package.version, compiler, fragment)}", make)
    return Kernel((folder / "release").read_text(encoding="utf-8").strip(), archive.release, folder / "vmlinuz", None)


def _need_libelf() -> None:
    # objtool, which the build of the kernel builds first, reads object files with it.
    check = ["gcc", "-E", "-include", "gelf.h", "-x", "c", os.devnull]
    if subprocess.run(check, capture_output=True, check=False).returncode:
        raise UnsupportedError("gelf.h", "not found; on Debian: apt-get install libelf-dev")


def _configure(tree: Path, made: Path) -> None:
    """Write the configuration.

    Raises:
        GmemlabError: an option of the fragment is not in it.
    """
    output(["make", "-s", f"O={made}", f"KCONFIG_ALLCONFIG={FRAGMENT}", "allnoconfig"], cwd=tree)
    missing = missing_options(FRAGMENT.read_text(encoding="utf-8"), (made / ".config").read_text(encoding="utf-8"))
    if missing:
        raise GmemlabError(f"{FRAGMENT.name}: this kernel cannot have {', '.join(missing)}; what do they depend on?")


def missing_options(fragment: str, config: str) -> list[str]:
    """Return the lines of a configuration's fragment that the configuration does not have.

    Args:
        fragment: what is wanted.
        config: what came of it.
    """
    present = set(config.splitlines())
    return [line for line in fragment.splitlines() if line.startswith("CONFIG_") and line not in present]
