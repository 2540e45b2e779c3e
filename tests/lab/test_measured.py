"""Figures beside a null model: distances, what the judge lets pass, and what it does not; no kernel is needed."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import pytest
from rich.console import Console

from gmemlab.capture import capture
from gmemlab.errors import UsageError
from gmemlab.kernel.observe.free_memory import as_counters, from_counters, read_files
from gmemlab.kernel.suites import fragmentation as plans
from gmemlab.kernel.suites import mix as mixes
from gmemlab.kernel.suites.recording import Recording, read
from gmemlab.kernel.suites.steps import Seen, Step, decode, encode
from gmemlab.kernel.suites.table import find
from gmemlab.lab.conform import fragmentation, mix
from gmemlab.lab.conform.fragmentation import ModelMachine
from gmemlab.lab.conform.live_host import free_by_order, host_of, snapshot_of
from gmemlab.lab.conform.measured import Comparison, beats_null, distance, shares
from gmemlab.lab.conform.run import AGREES, DIFFERS, Result, check_recording
from gmemlab.model.guest import GuestMemory
from gmemlab.model.host import Host
from gmemlab.presets import find as find_policy
from gmemlab.report.conform import conformance_as_json, print_conformance
from gmemlab.units import GIB, MIB, signed_size
from hosts import LAZY

STEPS = {step.op: step for step in plans.plan(Random(1), 1 << 18)}  # 2 GiB
FEW = {"fragmentation": 1 << 16, "mix": 500}
SMALL = Step("mix", 0, 300, 16 * MIB, 5)


@pytest.fixture(scope="module", autouse=True)
def pool_takes_part() -> Iterator[None]:
    """Nobody else needs memory here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "LEAST_HOLES", 1 << 30)
        yield


@pytest.fixture(scope="module")
def unmovable() -> Seen:
    return fragmentation.ModelFragmentation().take(STEPS["guest_memfd"], read_files(LAZY))


def lying(odd: str) -> dict[str, str]:
    """The files of /proc, and that a file of shmem lies in odd frames ("1"), its holes in even ones; or the reverse ("0")."""
    return {**read_files(LAZY), plans.ODD_FRAMES: odd * (STEPS["shmem"].size // plans.BLOCK)}


@pytest.fixture(scope="module")
def movable() -> Seen:
    return fragmentation.ModelFragmentation().take(STEPS["shmem"], lying("1"))


def showing(seen: Seen, odd: str = "1", /, **figures: int) -> Seen:
    """What was seen, but for some figures, of a file that lies in odd frames ("1") or in even ones ("0")."""
    return replace(seen, counters={**seen.counters, **figures}, texts=lying(odd))


def amiss(step: Step, model: Seen, odd: str = "1", /, **changes: int) -> list[str]:
    """Names of the figures that the judge finds amiss if the kernel shows these instead."""
    kernel = showing(model, odd, **changes)
    return [one.name.split(": ")[1] for one in fragmentation.compare(step, model, kernel) if not one.holds]


def test_distances() -> None:
    assert shares((1, 3)) == (0.25, 0.75)
    assert shares((0, 0)) == (0.0, 0.0)
    assert distance((0.5, 0.5), (0.5, 0.5)) == 0
    assert distance((1, 0), (0, 1)) == 1
    assert distance((0.5, 0.3, 0.2), (0.4, 0.3, 0.3)) == pytest.approx(0.1)


def test_model_must_be_nearer_than_the_null_model() -> None:
    near = Comparison("one", (1,), (1,), (1,), 0.1, 0.3, "", True)
    far = replace(near, distance=0.6, null_distance=0.3)
    assert beats_null([near]).holds
    assert not beats_null([near, far]).holds
    assert not beats_null([replace(near, null_distance=0.1)]).holds


def test_files_of_proc_make_the_same_snapshot_anywhere() -> None:
    """Free memory is what the snapshot has, and so has the model's host; memory not handed out yet is in the largest chunks."""
    texts = read_files(LAZY)
    assert snapshot_of(texts).zones == capture(LAZY).zones
    host = host_of(texts)
    sizes = free_by_order(host)
    assert sum(sizes) == host.free_bytes
    assert sizes[-1] > 20 * GIB * 0.8
    assert [zone.compact_init_free for zone in host.state.zones] == [zone.end * 512 - 1 for zone in host.state.zones]
    with pytest.raises(UsageError, match="lacks a file of /proc"):
        host_of({name: text for name, text in texts.items() if name != "proc/zoneinfo"})


def test_pages_on_the_lists_of_the_kernels_cpus_are_free_in_the_model_too() -> None:
    """As many CPUs as the kernel has, with lists as short as `quiet` makes them; what is on them counts as single pages."""
    texts = read_files(LAZY)
    host, without = host_of(texts, with_lists=True), host_of(texts)
    assert host.description == "snapshot, 2 CPUs with lists"
    before = free_by_order(host)
    assert before == free_by_order(without)
    memory = host.guest_memfd("4M", "4k")
    memory.allocate()
    memory.close()
    assert 0 < host.kept_bytes <= 252 << 12
    after = free_by_order(host)
    assert sum(after) == sum(before)
    assert after[0] >= before[0] + host.kept_bytes


def test_sightings_keep_texts_and_orders() -> None:
    seen = Seen(0, 3, counters=as_counters("end", (5, 0, 7)), texts={"proc/meminfo": "MemTotal: 1 kB\n"})
    assert decode(json.loads(json.dumps(encode(SMALL, seen)))) == (SMALL, seen)
    assert from_counters("end", seen.counters) == (5, 0, 7)
    assert len(encode(SMALL, replace(seen, texts={}))) == 5  # as recordings had it before


def test_unmovable_and_movable_memory_differ_in_the_model(unmovable: Seen, movable: Seen) -> None:
    """L22 to L24: what the null model cannot know."""
    size = STEPS["shmem"].size
    fixed, moved = unmovable.counters, movable.counters
    assert fixed["turned"] > 0.9 * size > 0 == moved["turned"]
    assert fixed["freed"] == moved["freed"] == size // 2
    assert fixed["huge"] == moved["huge"] == 0
    assert fixed["compacted"] < 0.05 * size
    assert moved["pool"] - fixed["pool"] > 0.05 * size  # pools have it compacted
    assert fixed["pool_compacted"] - fixed["pool"] < 0.05 * size
    assert moved["pool_compacted"] - fixed["pool_compacted"] > size // 3


def test_holes_in_odd_frames_are_hard_to_find(movable: Seen) -> None:
    """`isolate_freepages` looks at every second to 32nd frame, once it met a block without holes."""
    odd, even = fragmentation.ModelFragmentation().take(STEPS["shmem"], lying("0")).counters, movable.counters
    assert odd["pool"] < even["pool"] - GIB // 4
    assert odd["pool_compacted"] < even["pool_compacted"] - GIB // 2
    assert odd["freed"] == even["freed"]


def test_model_lies_as_the_kernels_file_did() -> None:
    odd_frames = "0011101000110101"
    machine = ModelMachine(host_of(read_files(LAZY)), odd_frames)
    memory = machine.open(STEPS["shmem"]._replace(size=20 * plans.BLOCK))
    machine.fill(memory, 20 * plans.BLOCK)
    assert isinstance(memory, GuestMemory)
    assert memory.usage().charged == 20 * plans.BLOCK
    found = [fragmentation.lies_odd(machine.host, memory, number * plans.BLOCK) for number in range(len(odd_frames))]
    assert found == [odd == "1" for odd in odd_frames]


def test_recording_without_the_files_place_is_refused() -> None:
    with pytest.raises(UsageError, match="does not say where the file lay"):
        fragmentation.ModelFragmentation().take(STEPS["shmem"], read_files(LAZY))


@pytest.mark.parametrize("kind", ["guest_memfd", "shmem"])
@pytest.mark.parametrize("name", fragmentation.TITLES)
def test_every_figure_can_be_amiss(kind: str, name: str, unmovable: Seen, movable: Seen) -> None:
    """In the kernel and in the model, above and below: none has bounds as wide as what there can be, or one bound only.

    But for huge faults, of which neither can show fewer than none or more than all: theirs are in the next test.
    """
    step, seen = STEPS[kind], unmovable if kind == "guest_memfd" else movable
    assert amiss(step, seen) == []
    if name != "faults":
        for figure in (seen.counters[name] - 2 * step.size, seen.counters[name] + 2 * step.size):
            off = replace(seen, counters={**seen.counters, name: figure}, texts=lying("1"))
            assert [one.name for one in fragmentation.compare(step, seen, off) if not one.holds] == [
                f"{kind}: {fragmentation.TITLES[name]}"
            ]
            found = fragmentation.compare(step, off, showing(seen))
            assert f"{kind}: {fragmentation.TITLES[name]}" in [one.name for one in found if not one.holds]
    assert amiss(step, seen, "1", **{"punched/3": 4 * GIB}) == ["free by order"]


@pytest.mark.parametrize(
    ("kind", "odd", "model", "kernel", "holds"),
    [
        ("guest_memfd", "1", 128, 0, False),  # the model's all succeed, the kernel's fall back: 30 of 32 in L22
        ("guest_memfd", "1", 0, 128, False),
        ("guest_memfd", "1", 0, 6, True),
        ("guest_memfd", "1", 12, 40, True),  # as was seen
        ("shmem", "1", 128, 0, False),  # holes that the scanners find: something is won
        ("shmem", "1", 0, 38, False),
        ("shmem", "1", 128, 38, True),
        ("shmem", "0", 12, 128, False),
        ("shmem", "0", 128, 2, True),  # none has to be won of holes that the scanners do not find
        ("shmem", "0", 12, 2, True),
    ],
)
def test_huge_faults_can_be_amiss(
    kind: str, odd: str, model: int, kernel: int, holds: bool, unmovable: Seen, movable: Seen
) -> None:
    step, seen = STEPS[kind], unmovable if kind == "guest_memfd" else movable
    here, there = showing(seen, odd, faults=kernel * MIB), showing(seen, faults=model * MIB)
    found = [one.name for one in fragmentation.compare(step, there, here) if not one.holds]
    assert found == ([] if holds else [f"{kind}: huge faults get"])


def test_movable_memory_has_bounds_only(movable: Seen) -> None:
    """L23, K22: the pool gets few of the holes or many, compaction wins of the rest or not, but a pool has the model's then."""
    step, holes = STEPS["shmem"], STEPS["shmem"].size // 2
    loose = plans.in_blocks(from_counters("punched", movable.counters))
    assert amiss(step, movable, pool=loose + holes // 2, faults=40 * MIB, compacted=holes // 2) == []
    last, share = movable.counters["pool_compacted"], int(fragmentation.LAST_POOL_SHARE * step.size)
    assert amiss(step, movable, pool=loose, compacted=0, pool_compacted=last - share) == []
    assert amiss(step, movable, pool_compacted=last - share - MIB) == ["pool gets after it"]
    assert amiss(step, movable, pool_compacted=last + share + MIB) == ["pool gets after it"]
    assert amiss(step, movable, turned=-step.size) == []  # it took blocks that others had left unmovable
    assert amiss(step, movable, turned=step.size) == ["turned unmovable"]
    assert amiss(step, movable, pool=loose - GIB) == ["pool gets"]
    assert amiss(step, movable, pool_compacted=loose) == ["pool gets after it"]


def more(fixed: tuple[Seen, Seen], moved: tuple[Seen, Seen]) -> list[bool]:
    """Whether compaction wins enough more of movable memory; none if the kinds are not compared. Each as (model, kernel)."""
    compared = [(STEPS["guest_memfd"], *fixed), (STEPS["shmem"], *moved)]
    return [one.holds for one in fragmentation.compare_kinds(compared)]


def test_compaction_wins_much_more_of_movable_memory(unmovable: Seen, movable: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    """L23 as an inequality, in the kernel and in the model, where a pool has what is won and where there is none."""
    fixed, moved, holes = showing(unmovable), showing(movable), STEPS["shmem"].size // 2
    assert more((fixed, fixed), (moved, moved)) == [True]
    still = showing(moved, pool_compacted=plans.in_blocks(from_counters("punched", moved.counters)))
    lost = showing(fixed, pool_compacted=fixed.counters["pool_compacted"] + holes)
    for here, there in ((still, fixed), (moved, lost)):
        assert more((fixed, there), (moved, here)) == more((there, fixed), (here, moved)) == [False]
    poor = showing(fixed, "0", pool_compacted=plans.in_blocks(from_counters("punched", fixed.counters)))
    assert more((poor, poor), (still, replace(still, texts=lying("0")))) == [True]  # no hole lies where scanners look
    assert more((fixed, fixed), (moved, replace(moved, texts={}))) == []
    assert list(fragmentation.compare_kinds([(STEPS["shmem"], moved, moved)])) == []
    little = [(STEPS[kind]._replace(size=1 << 29), seen, seen) for kind, seen in (("guest_memfd", fixed), ("shmem", moved))]
    assert list(fragmentation.compare_kinds(little)) == []
    monkeypatch.setattr(plans, "LEAST_HOLES", 1 << 40)
    fixed, moved = showing(fixed, compacted=0), showing(moved, compacted=2 * holes // 3)
    assert more((fixed, fixed), (moved, moved)) == [True]
    assert more((fixed, fixed), (moved, showing(moved, compacted=0))) == [False]
    assert more((fixed, showing(fixed, compacted=holes)), (moved, moved)) == [False]
    assert more((fixed, fixed), (showing(moved, compacted=0), moved)) == [False]


def test_compaction_that_moves_nothing_is_told(movable: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by itself nor for a pool, which gets what is free in 2M chunks."""
    monkeypatch.setattr(ModelMachine, "compact", lambda machine: None)
    monkeypatch.setattr(ModelMachine, "fill_pool", lambda machine: plans.in_blocks(free_by_order(machine.host)))
    step = STEPS["shmem"]
    still = fragmentation.ModelFragmentation().take(step, lying("1"))
    assert [one.name for one in fragmentation.compare(step, still, movable) if not one.holds] == ["shmem: pool gets after it"]


def mixed(texts: dict[str, str], run: int = 0) -> tuple[Step, Seen]:
    step = SMALL._replace(file=run)
    return step, mix.ModelMix(find_policy("shmem-thp")).take(step, texts)


def test_mix_is_compared_with_twice_the_distance_of_the_kernels_runs() -> None:
    """A kernel whose runs differ by d; a model that is off by less, and by more than 2 d."""
    texts = read_files(LAZY)
    step, model = mixed(texts)
    total = sum(from_counters("end", model.counters))

    def moved(share: float) -> Seen:
        """The same, but that this share of free memory lies in pages instead of the largest chunks."""
        counters = dict(model.counters)
        for moment in mixes.MOMENTS[1:]:
            counters[f"{moment}/0"] += int(share * total)
            counters[f"{moment}/10"] -= int(share * total)
        return replace(model, counters=counters)

    alike = mix.compare("end", [(step, model, moved(0.01 * run)) for run in range(3)])
    assert alike.holds and alike.spread == pytest.approx(0.01 * 4 / 3, rel=0.02)
    assert alike.distance == pytest.approx(0.01, rel=0.02)
    off = mix.compare("end", [(step, moved(0.1), moved(0.01 * run)) for run in range(3)])
    assert not off.holds and off.distance == pytest.approx(0.09, rel=0.02)
    found = mix.ModelMix(find_policy("shmem-thp")).comparisons([(step, model, moved(0.01 * run)) for run in range(3)])
    assert [one.name for one in found] == [*(f"free by order, {moment}" for moment in mixes.MOMENTS), "all of these"]


def test_seen_as_the_kernel_is_the_model_itself(tmp_path: Path) -> None:
    for name in ("fragmentation", "mix"):
        assert check_recording(recorded_model(name, tmp_path)).status == AGREES


def recorded_model(name: str, folder: Path) -> Recording:
    """A recording for which the model sat as the kernel."""
    suite, path = find(name), folder / f"{name}.jsonl"
    facts = {"split": "pieces", "shmem_ladder": True} if name == "mix" else {}
    model = import_module(f"gmemlab.lab.conform.{suite.module}").world(facts)
    texts = read_files(LAZY)
    head = {"format": 1, "suite": name, "seed": 0, "operations": 0, "release": "6.18", "facts": facts, "skipped": ""}
    steps = list(suite.load().plan(Random(name), FEW[name]))
    lines = [encode(step, replace(model.take(step, texts), texts=texts)) for step in steps]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in (head, *lines, {"steps": len(lines)})))
    return read(path)


def stays(machine: ModelMachine, memory: Any, offsets: Iterator[int]) -> None:
    """A punch frees nothing."""


def as_shmem(machine: ModelMachine, step: Step) -> Any:
    """guest_memfd is movable memory."""
    return OPEN(machine, step._replace(op="shmem"))


def as_guest_memfd(machine: ModelMachine, step: Step) -> Any:
    """shmem is unmovable memory."""
    return OPEN(machine, step._replace(op="guest_memfd"))


OPEN = ModelMachine.open


def no_hole(memory: GuestMemory, offset: Any, size: Any) -> None:
    """A punch frees nothing."""


def small_only(world: mix.ModelMix, host: Host, kind: str, size: int) -> GuestMemory:
    """No memory has huge pages."""
    return host.guest_memfd(size, "4k-inplace", flags=3)


def all_merged(host: Host) -> tuple[int, ...]:
    """Whatever is free is in the largest chunks."""
    return *(0,) * 10, host.free_bytes


FAULTS = {
    "punches-free-nothing": ("fragmentation", ModelMachine, "punch", stays, "guest_memfd: freed by punches"),
    "guest-memfd-is-movable": ("fragmentation", ModelMachine, "open", as_shmem, "guest_memfd: turned unmovable"),
    "shmem-is-unmovable": ("fragmentation", ModelMachine, "open", as_guest_memfd, "shmem: turned unmovable"),
    "mixed-punches-free-nothing": ("mix", GuestMemory, "punch_hole", no_hole, "free by order, end"),
    "mixed-memory-is-small": ("mix", mix.ModelMix, "open", small_only, "free by order, filled"),
    "all-is-merged": ("mix", mix, "free_by_order", all_merged, "free by order, end"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_wrong_model_is_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite, target, method, fault, amiss = FAULTS[name]
    found = recorded_model(suite, tmp_path)
    monkeypatch.setattr(target, method, fault)
    result = check_recording(found)
    assert result.status == DIFFERS
    assert amiss in [one.name for one in result.comparisons if not one.holds], result.comparisons


def test_plans_are_drawn_from_their_seed() -> None:
    first, second = (list(mixes.plan(Random("mix 1"), 100)) for _ in range(2))
    assert first == second and len(first) == mixes.RUNS and len({step.arg for step in first}) == 1
    step = next(mixes.plan(Random(0), 10_000))
    assert 0.99 * 6 * GIB < step.size * len(mixes.KINDS) <= 6 * GIB == find("mix").needs(10_000)
    for operation in (*mixes.fill(step.size), *mixes.churn(step)):
        unit = mixes.HUGE if mixes.KINDS[operation.file] == "hugetlb" else 4096
        assert operation.size > 0 == operation.offset % unit == operation.size % unit
        assert operation.offset + operation.size <= step.size
    assert sum(1 for _ in mixes.churn(step)) == 10_000
    assert find("fragmentation").needs(1 << 20) == 8 * GIB


def test_figures_are_printed_beside_each_other(unmovable: Seen) -> None:
    step = STEPS["guest_memfd"]
    kernel = replace(unmovable, counters={**unmovable.counters, "turned": 0})
    found = tuple(fragmentation.compare(step, unmovable, kernel))
    result = Result(find("fragmentation"), DIFFERS, 9, null_model=fragmentation.NULL_MODEL, comparisons=found)
    screen = io.StringIO()
    print_conformance(Console(file=screen, width=80), [result])
    text = screen.getvalue()
    assert "guest_memfd: turned unmovable" in text
    assert "amiss: guest_memfd: turned unmovable must be " in text
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("order  kernel") == 1
    (suite,) = json.loads(json.dumps(conformance_as_json([result])))["suites"]
    one = next(row for row in suite["comparisons"] if row["name"] == "guest_memfd: turned unmovable")
    assert (one["kernel"], one["holds"], one["spread"]) == ([0], False, None)
    assert one["distance"] > 0.9


def test_signed_sizes() -> None:
    assert [signed_size(size) for size in (-5 * MIB, 0, 3 * GIB)] == ["-5M", "0B", "3G"]
