"""A kernel from Debian packages."""

import lzma
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gmemlab.errors import GmemlabError, UsageError
from tools.vmtest.cpio import Writer
from tools.vmtest.host import kept, key, timed
from tools.vmtest.packages import RELEASES, Archive, Package, unpack

# What the machine needs beyond what every Debian kernel has built in: KVM, and the disk that takes the results.
MODULES: Final = ("kvm_amd", "virtio_pci", "virtio_blk")

# linux-image-7.3.4+deb13-amd64, linux-image-6.1.0-50-amd64; not the flavours cloud and rt, nor unsigned images.
_IMAGE: Final = re.compile(r"linux-image-(\d[^-]*(?:-\d+)?)-amd64")
# What an image package may depend on: its parts; and lists, such as the one of what is built in.
_PARTS: Final = ("linux-binary-", "linux-modules-")
_LISTS: Final = "linux-base-"
_DEPENDS: Final = re.compile(rb"\0depends=([^\0]*)\0")


@dataclass(frozen=True)
class Kernel:
    """A kernel to boot.

    Attributes:
        name: its release, as uname tells it.
        debian: the codename of the Debian release that it is from.
        image: the file to boot.
        modules: an initramfs with the modules to load, or None if all is built in.
    """

    name: str
    debian: str
    image: Path
    modules: Path | None


def find_kernel(prefix: str) -> tuple[Archive, str]:
    """Return the newest Debian kernel of a version: where it is, and its release such as 7.3.4+deb13-amd64.

    Args:
        prefix: the beginning of a version, such as 6.12 or 7.3.4.

    Raises:
        UsageError: there is none.
        UnsupportedError: this machine has no Debian mirror.
    """
    archives = [Archive(release) for release in RELEASES]
    found = {
        match[1]: archive
        for archive in reversed(archives)
        for match in map(_IMAGE.fullmatch, archive.names("linux-image-"))
        if match
    }
    version = newest(found, prefix)
    return found[version], f"{version}-amd64"


def newest(versions: Iterable[str], prefix: str) -> str:
    """Return the newest version that begins with the numbers of ``prefix``.

    Args:
        versions: all that there are.
        prefix: such as 7.3, which 7.3.4 begins with, but 7.30 does not.

    Raises:
        UsageError: none does.
    """
    ordered = sorted(versions, key=_numbers)
    matching = [version for version in ordered if re.match(rf"{re.escape(prefix)}(?!\d)", version)]
    if not matching:
        series = dict.fromkeys(".".join(map(str, _numbers(version)[:2])) for version in ordered)
        raise UsageError("Debian has no such kernel", key="KERNEL", value=prefix, allowed=", ".join(series))
    return matching[-1]


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def fetch_kernel(prefix: str) -> Kernel:
    """Return the newest Debian kernel of a version, ready to boot.

    Args:
        prefix: the beginning of the version, such as 6.12 or 7.3.4.

    Raises:
        UsageError: there is none.
        UnsupportedError: a program is missing, or a Debian mirror.
        GmemlabError: the packages cannot be loaded, or lack something.
    """
    archive, name = find_kernel(prefix)
    package = archive.package(f"linux-image-{name}")
    parts = parts_of(package, set(archive.names("linux-")))

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            root = Path(scratch, "root")
            files = archive.download(parts, Path(scratch))
            with timed(f"{name}: unpacking"):
                unpack(files, root)
                images = list(root.rglob("vmlinuz*"))
                if len(images) != 1:
                    raise GmemlabError(f"{', '.join(parts)}: {len(images)} kernels, not one")
                images[0].rename(folder / "vmlinuz")
                pack_modules(root, folder / "modules.cpio")

    folder = kept(f"kernel-{name}-{key(package.version, *MODULES)}", make)
    return Kernel(name, archive.release, folder / "vmlinuz", folder / "modules.cpio")


def parts_of(image: Package, known: Set[str]) -> list[str]:
    """Return the packages that make up a kernel.

    Args:
        image: its image package; it holds the kernel in some releases (6.18), in others (7.3) it only pulls in the parts.
        known: the names of all packages that there are.

    Raises:
        GmemlabError: a part is no longer there: backports of old versions lose theirs one by one.
    """
    parts = [item for item in image.depends if item.startswith(_PARTS)]
    gone = sorted(set(parts) - known)
    if gone:
        raise GmemlabError(f"{image.name}: Debian no longer has {', '.join(gone)}; choose another version")
    return [image.name, *parts, *(item for item in image.depends if item.startswith(_LISTS) and item in known)]


def pack_modules(root: Path, target: Path) -> None:
    """Write an initramfs with ``MODULES`` and what they depend on, named so that their order is the one to load them in.

    Args:
        root: where the kernel's packages are unpacked.
        target: the file.

    Raises:
        GmemlabError: the kernel has no such module.
    """
    files = {_module_name(path.name): path for path in root.rglob("*.ko*")}
    built_in = {_module_name(Path(line).name) for path in root.rglob("modules.builtin") for line in path.read_text().split()}
    contents: dict[str, bytes] = {}

    def depends(name: str) -> list[str]:
        if name in built_in:
            return []
        if name not in files:
            raise GmemlabError(f"this kernel has no module {name}")
        contents[name] = _module(files[name])
        match = _DEPENDS.search(contents[name])
        if match is None:
            raise GmemlabError(f"{files[name].name} does not say what it depends on")
        return [_module_name(item) for item in match[1].decode().split(",") if item]

    with target.open("wb") as stream:
        archive = Writer(stream)
        for number, name in enumerate(item for item in load_order(MODULES, depends) if item not in built_in):
            archive.file(f"modules/{number:02}-{name}.ko", contents[name])
        archive.close()


def load_order(wanted: Sequence[str], depends: Callable[[str], list[str]]) -> list[str]:
    """Return modules and all that they depend on, each after what it needs.

    Args:
        wanted: the modules.
        depends: tells what one needs itself; asked once for each.
    """
    order: dict[str, None] = {}

    def visit(name: str) -> None:
        if name not in order:
            for item in depends(name):
                visit(item)
            order[name] = None

    for name in wanted:
        visit(name)
    return list(order)


def _module_name(file: str) -> str:
    return file.partition(".")[0].replace("-", "_")


def _module(path: Path) -> bytes:
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".ko":
        return path.read_bytes()
    raise GmemlabError(f"{path.name}: modules compressed like this are not understood")
