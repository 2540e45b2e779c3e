"""How much memory live commands may use."""

from pathlib import Path

import pytest

from gmemlab.errors import UnsupportedError, UsageError
from gmemlab.kernel.budget import Budget
from gmemlab.kernel.procfs import parse_meminfo
from gmemlab.units import GIB, KIB, MIB


def machine(root: Path, available: int) -> Path:
    """Make a directory that looks like / of a machine with so much memory available."""
    (root / "proc").mkdir(exist_ok=True)
    text = f"MemTotal: {64 * GIB // KIB} kB\nMemFree: 0 kB\nMemAvailable: {available // KIB} kB\n"
    (root / "proc/meminfo").write_text(text)
    return root


@pytest.mark.parametrize(
    ("available", "limit", "size"),
    [
        (8 * GIB, None, 4 * GIB),
        (3 * GIB, None, 1 * GIB),
        (GIB, None, 0),
        (8 * GIB, "5G", 5 * GIB),
        (8 * GIB, 7 * GIB, 6 * GIB),
        (8 * GIB, 0, 0),
    ],
)
def test_size(tmp_path: Path, available: int, limit: int | str | None, size: int) -> None:
    assert Budget(limit, root=machine(tmp_path, available)).size == size


def test_memory_that_others_take_meanwhile_counts(tmp_path: Path) -> None:
    budget = Budget(root=machine(tmp_path, 8 * GIB))
    machine(tmp_path, 5 * GIB)
    assert budget.size == 3 * GIB
    machine(tmp_path, 20 * GIB)
    assert budget.size == 4 * GIB


def test_leave(tmp_path: Path) -> None:
    assert Budget("8G", leave=6 * GIB, root=machine(tmp_path, 8 * GIB)).size == 2 * GIB


def test_check_names_what_there_is(tmp_path: Path) -> None:
    budget = Budget(root=machine(tmp_path, 8 * GIB))
    budget.check(4 * GIB, "the suite fragmentation")
    with pytest.raises(UnsupportedError) as caught:
        budget.check(4 * GIB + 1, "the suite fragmentation")
    assert str(caught.value) == "4G of memory for the suite fragmentation: 8G are available, of which 4G may be used"


def test_check_names_the_limit(tmp_path: Path) -> None:
    budget = Budget("1G", root=machine(tmp_path, 8 * GIB))
    budget.check(GIB, "calibrate")
    with pytest.raises(UsageError) as caught:
        budget.check(1025 * MIB, "calibrate")
    assert str(caught.value) == "calibrate needs 1G of memory, more than the limit (value '1G')"


@pytest.mark.parametrize(
    ("line", "folder", "files", "cache"),
    [
        ("0::/user/me", "user", ("memory.max", "memory.current"), "inactive_file"),
        ("0::/user/me", "unified/user/me", ("memory.max", "memory.current"), "inactive_file"),
        ("0::/", ".", ("memory.max", "memory.current"), "inactive_file"),
        ("4:cpu,memory:/docker/7", "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_inactive_file"),
    ],
)
def test_the_limit_of_a_cgroup(tmp_path: Path, line: str, folder: str, files: tuple[str, str], cache: str) -> None:
    root = machine(tmp_path, 16 * GIB)
    (root / "proc/self").mkdir()
    (root / "proc/self/cgroup").write_text(f"9:cpuset:/\n{line}\n")
    assert Budget(root=root).size == 8 * GIB
    place = root / "sys/fs/cgroup" / folder
    place.mkdir(parents=True)
    (place / files[1]).write_text(f"{3 * GIB}\n")
    (place / files[0]).write_text("max\n")
    assert Budget(root=root).size == 8 * GIB
    (place / files[0]).write_text(f"{9 * GIB}\n")
    assert Budget(root=root).size == 3 * GIB
    (place / "memory.stat").write_text(f"anon 7\n{cache} {2 * GIB}\n")
    assert Budget(root=root).size == 4 * GIB
    (place / files[0]).write_text(f"{GIB}\n")
    assert Budget(root=root).size == 0


def test_a_limit_that_is_no_size() -> None:
    with pytest.raises(UsageError, match="not a size"):
        Budget("much")


def test_this_machine() -> None:
    available = parse_meminfo(Path("/proc/meminfo").read_text()).available
    size = Budget().size
    assert 0 <= size <= available
    assert size < 0.6 * available
