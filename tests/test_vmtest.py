"""vmtest without QEMU, apt and compilers: what it decides, packs, and says when something fails."""

import io
import lzma
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from gmemlab.errors import GmemlabError, UnsupportedError, UsageError
from tools.vmtest import host, machine
from tools.vmtest.build import FRAGMENT, missing_options
from tools.vmtest.cpio import Writer
from tools.vmtest.debian import Kernel, load_order, newest, pack_modules, parts_of
from tools.vmtest.initramfs import live_files, script
from tools.vmtest.packages import Package, choose_mirror, parse_stanza

SIZE = machine.Machine(memory=1 << 30, cpus=2, timeout=20)


def unpacked(data: bytes) -> Iterator[tuple[str, int, bytes]]:
    """Names, modes and contents in a cpio archive."""
    place = 0
    while True:
        assert data[place : place + 6] == b"070701"
        fields = [int(data[place + 6 + 8 * field : place + 14 + 8 * field], 16) for field in range(13)]
        mode, length, name_length = fields[1], fields[6], fields[11]
        name = data[place + 110 : place + 109 + name_length].decode()
        begin = (place + 110 + name_length + 3) // 4 * 4
        if name == "TRAILER!!!":
            assert len(data) % 512 == 0
            return
        yield name, mode, data[begin : begin + length]
        place = (begin + length + 3) // 4 * 4


# -- choosing -------------------------------------------------------------------------------------------------------------


def test_newest_compares_numbers_and_whole_ones() -> None:
    versions = ["6.12.95+deb12", "6.12.117+deb13", "6.1.0-50", "7.3.4+deb13", "7.30.1+deb13"]
    assert newest(versions, "6.12") == "6.12.117+deb13"
    assert newest(versions, "6.12.95") == "6.12.95+deb12"
    assert newest(versions, "6.1") == "6.1.0-50"
    assert newest(versions, "7.3") == "7.3.4+deb13"


@pytest.mark.parametrize("prefix", ["5.4", "7.", "", ".*", "6.12.9"])
def test_unknown_version_is_a_usage_error(prefix: str) -> None:
    with pytest.raises(UsageError, match=r"allowed: 6\.12, 7\.3"):
        newest(["7.3.4+deb13", "6.12.95+deb12"], prefix)


TARGETS = """\
Packages|main|http://other/apt/|bookworm|Other|Other
Packages|main|http://security/|bookworm-security|Debian|Debian-Security
DEP-11|main|http://wrong/|bookworm|Debian|Debian
Packages|contrib|http://contrib/|bookworm|Debian|Debian
Packages|main|http://mirror/debian/|stable|Debian|Debian
"""


def test_mirror_is_the_one_that_says_it_is_debian() -> None:
    assert choose_mirror(TARGETS, "bookworm") == "http://mirror/debian/"


def test_mirror_before_lists_were_loaded_is_the_one_of_the_running_release() -> None:
    targets = "Packages|main|http://mirror/debian/|trixie|$(ORIGIN)|$(LABEL)\n"
    assert choose_mirror(targets, "trixie") == "http://mirror/debian/"
    for codename in ("bookworm", None):
        with pytest.raises(UnsupportedError, match="mirror"):
            choose_mirror(targets, codename)


def test_kernel_in_one_package_and_in_parts() -> None:
    stanza = "Package: linux-image-{0}\nVersion: 1\nDepends: kmod, {1}linux-base (>= 4.3~), initramfs-tools (>= 1) | other\n"
    one = parse_stanza(stanza.format("6.1.0-50-amd64", ""))
    assert one == Package("linux-image-6.1.0-50-amd64", "1", ("kmod", "linux-base", "initramfs-tools"))
    assert parts_of(one, set()) == [one.name]
    parts = "linux-base-7.3 (= 1), linux-binary-7.3 (= 1), linux-modules-7.3 (= 1), "
    split = parse_stanza(stanza.format("7.3", parts))
    known = {"linux-binary-7.3", "linux-modules-7.3"}
    assert parts_of(split, known) == ["linux-image-7.3", "linux-binary-7.3", "linux-modules-7.3"]
    assert parts_of(split, known | {"linux-base-7.3"})[-1] == "linux-base-7.3"
    with pytest.raises(GmemlabError, match=r"no longer has linux-modules-7\.3;"):
        parts_of(split, {"linux-binary-7.3"})


# -- packing --------------------------------------------------------------------------------------------------------------


def test_modules_come_after_what_they_need_and_once() -> None:
    needs = {"top": ["left", "right"], "left": ["base"], "right": ["base"], "base": []}
    asked = []

    def depends(name: str) -> list[str]:
        asked.append(name)
        return needs[name]

    assert load_order(["top", "right"], depends) == ["base", "left", "right", "top"]
    assert sorted(asked) == sorted(needs)


def module(depends: str) -> bytes:
    return b"\x7fELF license=GPL\0depends=" + depends.encode() + b"\0retpoline=Y\0"


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A kernel's modules: kvm-amd needs kvm; virtio_pci is built in."""
    folder = tmp_path / "root/usr/lib/modules/7.3"
    (folder / "kernel").mkdir(parents=True)
    (folder / "modules.builtin").write_text("kernel/drivers/virtio/virtio_pci.ko\n")
    (folder / "kernel/kvm-amd.ko.xz").write_bytes(lzma.compress(module("kvm,virtio_pci")))
    (folder / "kernel/kvm.ko.xz").write_bytes(lzma.compress(module("")))
    (folder / "kernel/virtio_blk.ko").write_bytes(module(""))
    return folder


def test_modules_are_unpacked_and_numbered(modules: Path, tmp_path: Path) -> None:
    pack_modules(tmp_path / "root", tmp_path / "cpio")
    entries = [entry for entry in unpacked((tmp_path / "cpio").read_bytes()) if entry[1] & 0o100000]
    assert [(name, data) for name, _, data in entries] == [
        ("modules/00-kvm.ko", module("")),
        ("modules/01-kvm_amd.ko", module("kvm,virtio_pci")),
        ("modules/02-virtio_blk.ko", module("")),
    ]


def test_missing_and_unreadable_modules_are_named(modules: Path, tmp_path: Path) -> None:
    (modules / "kernel/virtio_blk.ko").write_bytes(b"\x7fELF")
    with pytest.raises(GmemlabError, match=r"virtio_blk\.ko does not say"):
        pack_modules(tmp_path / "root", tmp_path / "cpio")
    (modules / "kernel/virtio_blk.ko").rename(modules / "kernel/virtio_blk.ko.lz4")
    with pytest.raises(GmemlabError, match=r"virtio_blk\.ko\.lz4: .*compressed"):
        pack_modules(tmp_path / "root", tmp_path / "cpio")
    (modules / "kernel/virtio_blk.ko.lz4").unlink()
    with pytest.raises(GmemlabError, match="no module virtio_blk"):
        pack_modules(tmp_path / "root", tmp_path / "cpio")


def test_cpio_holds_files_links_and_their_directories(tmp_path: Path) -> None:
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "deep/er/program").write_bytes(b"12345")
    (tmp_path / "deep/er/program").chmod(0o700)
    (tmp_path / "deep/link").symlink_to("er/program")
    stream = io.BytesIO()
    archive = Writer(stream)
    archive.tree(tmp_path)
    archive.file("deep/text", b"")
    archive.close()
    assert list(unpacked(stream.getvalue())) == [
        ("deep", 0o40755, b""),
        ("deep/er", 0o40755, b""),
        ("deep/er/program", 0o100755, b"12345"),
        ("deep/link", 0o120777, b"er/program"),
        ("deep/text", 0o100644, b""),
    ]


def test_live_files_need_nothing_but_themselves(tmp_path: Path) -> None:
    files = live_files()
    assert {Path("gmemlab/__init__.py"), Path("gmemlab/kernel/__init__.py"), Path("gmemlab/snapshot.py")} <= set(files)
    assert not any(file.parts[1] in ("cli", "core", "lab", "model") for file in files)
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(host.REPOSITORY / "src" / file, tmp_path / file)
    names = [".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files]
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {', '.join(names)}"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


def test_live_files_follow_imports(tmp_path: Path) -> None:
    package = tmp_path / "house"
    (package / "kernel/deep").mkdir(parents=True)
    for name in ("__init__", "units", "protocol", "policy", "kernel/__init__", "kernel/deep/__init__", "kernel/deep/one"):
        (package / f"{name}.py").touch()
    (package / "units.py").write_text("import os\nfrom house import protocol\n")
    project = tmp_path / "pyproject.toml"
    contract = (
        '[[tool.importlinter.contracts]]\nname = "{}"\nsource_modules = ["house.units", "house.kernel.deep"]\n'
    )  # fmt: skip
    project.write_text(contract.format("The live world needs nothing but the standard library"))
    names = ("__init__", "kernel/__init__", "kernel/deep/__init__", "kernel/deep/one", "protocol", "units")
    assert live_files(project, tmp_path) == [Path(f"house/{name}.py") for name in names]
    (package / "units.py").unlink()
    with pytest.raises(GmemlabError, match=r"do not exist: house\.units$"):
        live_files(project, tmp_path)
    project.write_text(contract.format("Floors"))
    with pytest.raises(GmemlabError, match="no contract"):
        live_files(project, tmp_path)


def test_script_runs_all_commands_and_tells_the_last_failure() -> None:
    commands = [["sh", "-c", "exit 3"], ["printf", "%s.", "it's", "$HOME; a b"], ["true"]]
    result = subprocess.run(["sh", "-c", script(commands)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (3, "it's.$HOME; a b.")


# -- building -------------------------------------------------------------------------------------------------------------


def test_options_that_did_not_come_true_are_named() -> None:
    fragment = '# a comment\nCONFIG_KVM=y\nCONFIG_THP=y\nCONFIG_NR_CPUS=8\n\nCONFIG_NAME="x"\n'
    config = 'CONFIG_KVM=y\n# CONFIG_THP is not set\nCONFIG_NR_CPUS=80\nCONFIG_NAME="x"\n'
    assert missing_options(fragment, config) == ["CONFIG_THP=y", "CONFIG_NR_CPUS=8"]
    lines = FRAGMENT.read_text().splitlines()
    assert "CONFIG_KVM_SW_PROTECTED_VM=y" in lines
    assert all(line.startswith(("CONFIG_", "#")) or not line for line in lines)


# -- this machine ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/gmemlab/vmtest"


def test_what_is_kept_is_complete_or_absent(cache: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise GmemlabError("the mirror is gone")

    def make(folder: Path) -> None:
        (folder / "whole").touch()

    with pytest.raises(GmemlabError, match="mirror"):
        host.kept("thing", fail)
    assert [path.name for path in cache.iterdir()] == ["thing.lock"]
    assert host.kept("thing", make) == cache / "thing"
    assert [path.name for path in host.kept("thing", fail).iterdir()] == ["whole"]


def test_key_tells_parts_apart() -> None:
    assert len({host.key("ab", "c"), host.key("a", "bc"), host.key("abc")}) == 3


def test_missing_programs_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UnsupportedError, match=r"^qemu-system-x86_64, apt-get, apt-cache: .* qemu-system-x86 apt$"):
        host.need("qemu-system-x86_64", "apt-get", "apt-cache")


def test_failed_program_is_told_with_its_last_words() -> None:
    with pytest.raises(GmemlabError, match=r"^sh failed \(4\): E: no such thing$"):
        host.output(["sh", "-c", "echo E: no such thing >&2; exit 4"])


# -- the machine ----------------------------------------------------------------------------------------------------------


def archive_of(files: dict[str, str]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return stream.getvalue()


TOLD = {"begin": "5.25\n", "end": "7.75\n", "status": "3\n"}


def test_results_are_taken_off_the_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(archive_of(TOLD | {"files/thp.jsonl": "{}", "files/sub/status": "99"}) + bytes(1 << 20))
    outcome = machine.take(disk, tmp_path / "out", 9.0)
    files = (tmp_path / "out/sub/status", tmp_path / "out/thp.jsonl")
    assert outcome == machine.Outcome(status=3, files=files, boot=5.25, command=2.5, total=9.0)
    assert [file.read_text() for file in files] == ["99", "{}"]


@pytest.mark.parametrize(
    "data",
    [
        bytes(1 << 20),
        archive_of({"files/thp.jsonl": "x" * 5000})[:3000],
        archive_of({"files/thp.jsonl": "{}"}),
        archive_of(TOLD | {"files/../../escaped": "x"}),
    ],
    ids=["empty", "cut off", "without a status", "escaping"],
)
def test_disk_without_results_is_noticed(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "disk").write_bytes(data)
    with pytest.raises(tarfile.TarError):
        machine.take(tmp_path / "disk", tmp_path / "out", 9.0)
    assert not (tmp_path / "escaped").exists()


FAKE_QEMU = """#!/bin/sh
for argument; do
    case $argument in file:*) console=${argument#file:} ;; file=*) disk=${argument#file=}; disk=${disk%%,*} ;; esac
done
echo "Kernel panic - not syncing" >"$console"
"""


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    (tmp_path / "bin").mkdir()
    (tmp_path / "python.cpio").touch()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setattr(machine, "pack_run", lambda target, _python, _commands: target.write_bytes(b""))
    return Kernel("7.3", "trixie", tmp_path / "vmlinuz", None)


def run_fake(kernel: Kernel, folder: Path, deed: str, timeout: float = 20) -> machine.Outcome:
    program = folder / "bin/qemu-system-x86_64"
    program.write_text(FAKE_QEMU + deed)
    program.chmod(0o755)
    return machine.run(kernel, folder, [["true"]], machine.Machine(1 << 30, 2, timeout), folder / "out")


def test_run_returns_what_the_machine_left(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "results.tar").write_bytes(archive_of(TOLD | {"files/a": "1"}))
    deed = f"dd if={tmp_path}/results.tar of=$disk conv=notrunc status=none"
    outcome = run_fake(kernel, tmp_path, deed)
    assert outcome.status == 3
    assert outcome.files == (tmp_path / "out/a",)


@pytest.mark.parametrize(
    ("deed", "message"),
    [("exec sleep 20", r"no end after 0\.5 s"), ("exit 1", r"failed \(1\)"), ("exit 0", "without results")],
    ids=["hangs", "fails", "says nothing"],
)
def test_failed_machine_is_told_with_the_end_of_its_console(
    kernel: Kernel, tmp_path: Path, deed: str, message: str
) -> None:  # fmt: skip
    with pytest.raises(GmemlabError, match=rf"(?s){message}.*Kernel panic"):
        run_fake(kernel, tmp_path, deed, timeout=0.5)


def test_machine_is_emulated_with_svm_and_has_no_network(tmp_path: Path) -> None:
    arguments = machine.qemu_arguments(tmp_path / "k", tmp_path / "i", tmp_path / "c", tmp_path / "d", SIZE)
    pairs = list(pairwise(arguments))
    assert ("-cpu", "max,+svm,+npt") in pairs
    assert ("-m", "1024M") in pairs
    assert ("-smp", "2") in pairs
    assert "-nodefaults" in arguments
    assert arguments[arguments.index("-accel") + 1].startswith("tcg")
