"""What the running kernel offers to guests: KVM with guest_memfd, transparent huge pages, hugetlb pools.

Files are read below a root directory, ``/`` on a live machine, so that a copy of another machine's files serves as
well.
"""

import fcntl
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gmemlab.errors import UnsupportedError, UsageError
from gmemlab.units import KIB

# include/uapi/linux/kvm.h: _IO(KVMIO, 0x03), and the capabilities of G6.
_KVM_CHECK_EXTENSION: Final = 0xAE03
CAPABILITIES: Final[Mapping[str, int]] = {
    "KVM_CAP_MEMORY_ATTRIBUTES": 233,
    "KVM_CAP_GUEST_MEMFD": 234,
    "KVM_CAP_VM_TYPES": 235,
    "KVM_CAP_PRE_FAULT_MEMORY": 236,
    "KVM_CAP_GUEST_MEMFD_FLAGS": 244,
}
_GUEST_MEMFD_FLAGS: Final = ("MMAP", "INIT_SHARED")  # bits 0 and 1 (G8)
_VM_TYPES: Final = ("default", "SW_PROTECTED", "SEV", "SEV_ES", "SNP", "TDX")  # arch/x86/include/uapi/asm/kvm.h

_THP: Final = "sys/kernel/mm/transparent_hugepage"
_HUGEPAGES: Final = "sys/kernel/mm/hugepages"
_POOL_NAME: Final = re.compile(r"hugepages-(\d+)kB")


@dataclass(frozen=True, slots=True)
class Kvm:
    """KVM as /dev/kvm presents it.

    ``reason`` says why it cannot be asked ("" if it can); ``capabilities`` has KVM_CHECK_EXTENSION's answer for each of
    ``CAPABILITIES`` (0: absent), and is empty if KVM cannot be asked.
    """

    reason: str
    capabilities: Mapping[str, int]

    @property
    def available(self) -> bool:
        """Whether /dev/kvm could be asked."""
        return not self.reason

    @property
    def guest_memfd(self) -> bool:
        """Whether this kernel has guest_memfd (G6, G10)."""
        return self.capabilities.get("KVM_CAP_GUEST_MEMFD", 0) > 0

    @property
    def guest_memfd_flags(self) -> tuple[str, ...]:
        """Names of the flags that creating a guest_memfd accepts (G8)."""
        return _bit_names(self.capabilities.get("KVM_CAP_GUEST_MEMFD_FLAGS", 0), _GUEST_MEMFD_FLAGS)

    @property
    def vm_types(self) -> tuple[str, ...]:
        """Names of the virtual machine types that can be created."""
        return _bit_names(self.capabilities.get("KVM_CAP_VM_TYPES", 0), _VM_TYPES)


@dataclass(frozen=True, slots=True)
class Thp:
    """Transparent huge pages: the chosen word of each setting ("" where the kernel lacks it), PMD size in bytes."""

    enabled: str
    defrag: str
    shmem: str
    pmd_bytes: int


@dataclass(frozen=True, slots=True)
class HugetlbPool:
    """One hugetlb pool: the page size in bytes, and pages in all, free, reserved, surplus."""

    page_bytes: int
    total: int
    free: int
    reserved: int
    surplus: int


def probe_kvm(device: str = "/dev/kvm") -> Kvm:
    """Ask KVM for the capabilities that concern guest memory. A machine without KVM is an answer, not an error."""
    try:
        handle = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return Kvm(error.strerror or "cannot be opened", {})
    try:
        answers = {name: fcntl.ioctl(handle, _KVM_CHECK_EXTENSION, number) for name, number in CAPABILITIES.items()}
    except OSError as error:
        return Kvm(f"KVM_CHECK_EXTENSION: {error.strerror}", {})
    finally:
        os.close(handle)
    return Kvm("", answers)


def read_thp(root: Path = Path("/")) -> Thp | None:
    """Return the settings of transparent huge pages, or None if the kernel has none.

    Raises:
        UsageError: a file is not what it should be.
    """
    folder = root / _THP
    if not folder.is_dir():
        return None
    enabled, defrag, shmem = (_chosen(folder / name) for name in ("enabled", "defrag", "shmem_enabled"))
    return Thp(enabled, defrag, shmem, _number(folder / "hpage_pmd_size"))


def read_hugetlb_pools(root: Path = Path("/")) -> tuple[HugetlbPool, ...]:
    """Return the hugetlb pools, smallest page first; none if the kernel lacks hugetlb.

    Raises:
        UsageError: a file is not what it should be.
    """
    folder = root / _HUGEPAGES
    names = [match for entry in folder.iterdir() if (match := _POOL_NAME.fullmatch(entry.name))] if folder.is_dir() else []
    pools = []
    for match in sorted(names, key=lambda match: int(match[1])):
        pool = folder / match[0]
        total, free, reserved, surplus = (_number(pool / f"{name}_hugepages") for name in ("nr", "free", "resv", "surplus"))
        pools.append(HugetlbPool(int(match[1]) * KIB, total, free, reserved, surplus))
    return tuple(pools)


def read_release(root: Path = Path("/")) -> str:
    """Return the kernel's release, such as ``6.18.44``.

    Raises:
        UnsupportedError: /proc cannot be read.
    """
    return read_required(root, "proc/sys/kernel/osrelease").strip()


def read_cpu_model(root: Path = Path("/")) -> str:
    """Return the processor's name as /proc/cpuinfo has it, or the architecture where it has none."""
    text = read_optional(root / "proc/cpuinfo") or ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.machine()


def read_required(root: Path, name: str) -> str:
    """Return the text of a file that every Linux has.

    Args:
        root: the directory that stands for ``/``.
        name: the file's path below it, without a slash in front.

    Raises:
        UnsupportedError: it cannot be read; the message names it.
    """
    try:
        return (root / name).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UnsupportedError(f"/{name}", f"cannot be read: {error.strerror}") from error


def read_optional(path: Path) -> str | None:
    """Return the text of a file, or None if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _chosen(path: Path) -> str:
    """Return the word in brackets: ``madvise`` of ``always [madvise] never``."""
    text = read_optional(path)
    if text is None:
        return ""
    match = re.search(r"\[([\w+]+)\]", text)
    if match is None:
        raise UsageError("unexpected text", file=path, line=1, value=text, allowed="one word of the line in brackets")
    return match[1]


def _number(path: Path) -> int:
    text = (read_optional(path) or "").strip()
    if not text.isdecimal():
        raise UsageError("not a number", file=path, line=1, value=text)
    return int(text)


def _bit_names(bits: int, names: tuple[str, ...]) -> tuple[str, ...]:
    known = tuple(name for bit, name in enumerate(names) if bits >> bit & 1)
    return known + tuple(f"bit {bit}" for bit in range(len(names), bits.bit_length()) if bits >> bit & 1)
