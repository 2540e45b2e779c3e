"""A machine under QEMU's software emulation: start it, wait for its end, take its results."""

import subprocess
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from gmemlab.errors import GmemlabError
from tools.vmtest.debian import Kernel
from tools.vmtest.host import need
from tools.vmtest.initramfs import pack_run

_QEMU: Final = "qemu-system-x86_64"
_KERNEL_ARGUMENTS: Final = "console=ttyS0 panic=-1 oops=panic mitigations=off"
_RESULTS_BYTES: Final = 1 << 30  # sparse
_TAIL_LINES: Final = 40


@dataclass(frozen=True)
class Machine:
    """What the machine has.

    Attributes:
        memory: bytes.
        cpus: how many processors.
        timeout: seconds after which it is stopped.
    """

    memory: int
    cpus: int
    timeout: float


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        status: the command's exit status.
        files: those that the command wrote into its working directory, relative to it.
        boot: seconds from the kernel's start to the command's.
        command: seconds that the command took.
        total: seconds in all, with the start of QEMU.
    """

    status: int
    files: tuple[Path, ...]
    boot: float
    command: float
    total: float


def run(kernel: Kernel, python: Path, commands: Sequence[Sequence[str]], machine: Machine, folder: Path) -> Outcome:
    """Boot a kernel, run commands, and take the files that they leave; what they print is printed here.

    Args:
        kernel: what to boot.
        python: the directory of ``fetch_python``.
        commands: each with its arguments; they run one after another, also after one has failed.
        machine: its size.
        folder: where the files go.

    Raises:
        UnsupportedError: there is no QEMU.
        GmemlabError: the machine hung, or ended without results; with the last lines of its console.
    """
    need(_QEMU)
    with tempfile.TemporaryDirectory(prefix="vmtest-") as scratch:
        initramfs, console, disk = (Path(scratch, name) for name in ("initramfs", "console", "disk"))
        pack_run(initramfs, python, commands)
        with initramfs.open("ab") as stream:
            for part in (python / "python.cpio", kernel.modules):
                if part is not None:
                    stream.write(part.read_bytes())
        with disk.open("wb") as stream:
            stream.truncate(_RESULTS_BYTES)
        start = time.monotonic()
        try:
            subprocess.run(
                qemu_arguments(kernel.image, initramfs, console, disk, machine), stdin=subprocess.DEVNULL,
                timeout=machine.timeout, check=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise GmemlabError(f"no end after {machine.timeout:g} s; {_tail(console)}") from None
        except subprocess.CalledProcessError as error:
            raise GmemlabError(f"{_QEMU} failed ({error.returncode}); {_tail(console)}") from None
        total = time.monotonic() - start
        try:
            return take(disk, folder, total)
        except tarfile.TarError:
            raise GmemlabError(f"the machine ended without results; {_tail(console)}") from None


def qemu_arguments(kernel: Path, initramfs: Path, console: Path, disk: Path, machine: Machine) -> list[str]:
    """Return the command line of QEMU.

    Args:
        kernel: the image to boot.
        initramfs: its first file system.
        console: takes the kernel's messages; what the command prints goes to standard output.
        disk: takes the results.
        machine: its size.
    """
    return [
        _QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        # SVM and nested paging, so that KVM works inside; the whole machine is emulated, so that no host decides what it has.
        "-accel", "tcg,thread=multi", "-cpu", "max,+svm,+npt",
        "-m", f"{machine.memory >> 20}M", "-smp", str(machine.cpus),
        "-kernel", str(kernel), "-initrd", str(initramfs), "-append", _KERNEL_ARGUMENTS,
        "-serial", f"file:{console}", "-serial", "stdio",
        "-drive", f"file={disk},format=raw,if=virtio",
    ]  # fmt: skip


def take(disk: Path, folder: Path, total: float) -> Outcome:
    """Take the results off the disk.

    Args:
        disk: begins with the archive that init wrote.
        folder: where the files go.
        total: seconds that the run took.

    Raises:
        TarError: there is no archive, or it is cut off.
    """
    files = []
    told = {}
    with tarfile.open(disk, "r:") as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is None:
                continue
            path = PurePosixPath(member.name)
            if path.is_absolute() or ".." in path.parts:
                raise tarfile.ReadError(f"{path} leaves the directory of the results")
            if path.parts[0] != "files":
                told[path.name] = stream.read().decode().strip()
                continue
            place = folder / path.relative_to("files")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(stream.read())
            files.append(place)
    if "status" not in told:
        raise tarfile.ReadError("no status")
    begin, end = float(told["begin"]), float(told["end"])
    return Outcome(int(told["status"]), tuple(sorted(files)), begin, end - begin, total)


def _tail(console: Path) -> str:
    lines = console.read_text(encoding="utf-8", errors="replace").splitlines() if console.exists() else []
    return "\n  ".join(["the end of its console:", *lines[-_TAIL_LINES:]])
