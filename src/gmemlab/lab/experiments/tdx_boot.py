"""The one boot of a TD whose small accepts were counted, replayed: where they fall, and what the one-way mark costs."""

from typing import Final

import numpy as np

from gmemlab.core import layout
from gmemlab.core.layout import BLOCK_PAGES, OP_ACCESS, OP_READY
from gmemlab.lab.experiments.catalogue import AGREES, MISS, NO_TEST, SHOWN, Check, Experiment, Outcome, Progress
from gmemlab.lab.simulate import Simulation
from gmemlab.model.host import Host
from gmemlab.policy import Policy
from gmemlab.presets import find
from gmemlab.units import GIB, format_count
from gmemlab.workload.boot import HOT_PAGES, HOT_RANGE, SWEEPS
from gmemlab.workload.scenario import load, with_hardware
from gmemlab.workload.stream import ARG_ACCEPT_4K
from gmemlab.workload.trace import generate

SMALL_ACCEPTS: Final = 2710  # W14
MAPPED: Final = (1144, 1143)  # W17: 2M mappings at login, without and with the mark
MARKED: Final = 11  # W17: the write lock was taken so often with the early check: for blocks that had no mark
ELSEWHERE: Final = "elsewhere"
POLICIES: Final = ("thp", "hugetlb-2m")
SLIGHT: Final = 1  # mappings; "no significant difference" is what the source itself says of its averages


class Boot:
    """One guest that is on its way up."""

    def __init__(self, policy: Policy, size: int = 4, touched: float | None = None) -> None:
        """Take the scenario boot, with a guest of so many GiB that touches so much of the memory above 4 GiB."""
        scenario = with_hardware(load("boot"), "tdx")
        share = scenario.boot.touched if touched is None else touched
        boot = scenario.boot.model_copy(update={"touched": share, "touched_final": share})
        guests = scenario.guests.model_copy(update={"fixed": (size * GIB,)})
        self.touched = share
        self.host = Host(f"{size + 8}G")
        self.trace = generate(scenario.model_copy(update={"guests": guests, "boot": boot}), self.host.usable_bytes, 0)
        self.simulation = Simulation(self.host, self.trace, policy)
        self.end = int(np.flatnonzero(self.trace.events["op"] == OP_READY)[0]) + 1

    def small_accepts(self) -> dict[str, int]:
        """Run to the end; return how many pages the guest accepted at 4K, by place: before and after each such event."""
        found = dict.fromkeys((*(_place(first) for first, _ in (*SWEEPS, *HOT_PAGES)), "other hot pages", ELSEWHERE), 0)
        events = self.trace.events[: self.end]
        for number in np.flatnonzero((events["op"] == OP_ACCESS) & (events["arg"] == ARG_ACCEPT_4K)).tolist():
            self.simulation.run_to(number)
            before = self._accepted()
            self.simulation.run_to(number + 1)
            found[_place(int(events["first"][number]))] += self._accepted() - before
        self.simulation.run_to(self.end)
        return found

    def mapped_2m(self) -> int:
        """Run to the end; return how many 2M of the guest are mapped as a whole."""
        self.simulation.run_to(self.end)
        return int(self.host.measure().private_mapped_2m) // BLOCK_PAGES

    def marked(self) -> int:
        """How many 2M that one memslot holds have been marked."""
        state = self.host.state
        file = int(self.simulation.vms[0].file)
        first = int(state.files[file].first_block)
        marks = state.hardware.marks[first : first + int(state.files[file].pages) // BLOCK_PAGES]
        return int(np.count_nonzero(marks[1:] & layout.ONE_WAY))  # the first has the legacy hole (K10)

    def _accepted(self) -> int:
        return self.host.operations()["accept-4k"]["boot"]


def _place(page: int) -> str:
    """Return the name of the place that a page is in: a sweep, a hot page, the rest of the hot range."""
    for first, end in SWEEPS:
        if first <= page < end:
            return f"{first:#x} to {end - 1:#x}"
    if page in dict(HOT_PAGES):
        return f"{page:#x}"
    return "other hot pages" if HOT_RANGE[0] <= page < HOT_RANGE[1] else ELSEWHERE


def run(progress: Progress) -> Outcome:
    """Replay the boot: place by place, with 8 GiB, and with and without the mark."""
    progress("small accepts, 4 GiB", 0.0)
    boot = Boot(find("thp"))
    places = boot.small_accepts()
    progress("small accepts, 8 GiB", 0.4)
    larger = _counted(Boot(find("thp"), 8).small_accepts())
    progress("2M mappings", 0.8)
    mapped = {
        policy: tuple(Boot(find(policy).with_choices({"accept_mark": mark})).mapped_2m() for mark in ("none", "one-way"))
        for policy in POLICIES
    }
    untouched = Boot(find("thp"), touched=0.0).mapped_2m()
    strict = Boot(find("hugetlb-2m"))
    strict.mapped_2m()
    fits = (MAPPED[0] - untouched) / (mapped["thp"][0] - untouched) * boot.touched
    checks = [*_place_checks(places, larger), *_mapping_checks(mapped, boot.touched, strict.marked())]
    return Outcome(tuple(checks), _sentences(places[ELSEWHERE], fits, boot.touched))


def _counted(places: dict[str, int]) -> int:
    """Return the small accepts that the source counts: where 2M could be mapped."""
    return sum(count for place, count in places.items() if place != ELSEWHERE)


def _place_checks(places: dict[str, int], larger: int) -> list[Check]:
    published = {_place(first): end - first for first, end in SWEEPS} | {_place(page): count for page, count in HOT_PAGES}
    checks = [_exact(f"small accepts at {place}", places[place], count) for place, count in published.items()]
    about = 'the source says "about"'
    checks.append(_exact("small accepts where 2M could be mapped", _counted(places), SMALL_ACCEPTS, about))
    checks.append(_exact("the same with 8 GiB", larger, SMALL_ACCEPTS, f"{about}, and unchanged"))
    return checks


def _exact(what: str, model: int, published: int, remark: str = "") -> Check:
    verdict = AGREES if model == published else MISS
    figures = {"model": model, "published": published}
    return Check(what, format_count(model), format_count(published), verdict, remark, figures)


def _mapping_checks(mapped: dict[str, tuple[int, ...]], touched: float, marked: int) -> list[Check]:
    checks = []
    lost = MAPPED[0] - MAPPED[1]
    for policy, (without, with_mark) in mapped.items():
        text = f"{format_count(without)} / {format_count(with_mark)}"
        figures = {"without": without, "with": with_mark}
        what = f"2M mappings at login without / with the mark, {policy}"
        remark = f"an input: boot touches {touched:.0%} of what lies above 4 GiB (P5)"
        checks.append(Check(what, text, f"{MAPPED[0]:,} / {MAPPED[1]:,}", SHOWN, remark, figures))
        verdict = AGREES if without - with_mark == lost else NO_TEST if abs(without - with_mark) <= SLIGHT else MISS
        remark = "averages of boots; the source: no significant difference, so that one more or less is no test"
        what = f"2M mappings that the mark costs, {policy}"
        checks.append(Check(what, str(without - with_mark), str(lost), verdict, remark, {"model": without - with_mark}))
    remark = "an input: where the other hot pages lie is drawn evenly (W16); 3 to 13 are possible"
    checks.append(Check("2M that get the mark, hugetlb-2m", str(marked), str(MARKED), SHOWN, remark, {"model": marked}))
    return checks


def _sentences(elsewhere: int, fits: float, touched: float) -> tuple[str, ...]:
    mark = (
        "The mark costs the model no mapping: an accept of 4K leaves 4K entries, which nothing promotes (G76), so the mark"
        " matters only for 2M that lose all of them and come back. The one mapping of the source, which it does not call"
        " significant, does not come out."
    )
    login = (
        f"How many 2M are mapped at login is open: {MAPPED[0]:,} come out if boot touches {fits:.1%} of what lies above 4 GiB;"
        f" the scenario has {touched:.0%} (P5)."
    )
    hole = (
        f"{elsewhere} more pages are accepted at 4K where no 2M can be mapped, beside the legacy hole (K10); the source does"
        " not count such."
    )
    return mark, login, hole


EXPERIMENT: Final = Experiment(
    name="tdx-boot",
    title="Small accepts and the one-way mark in the boot of one TD",
    statement=(
        "A TD of 4 GiB accepts about 2710 pages at 4K where 2M could be mapped, in two sweeps and on a few hot pages, no more"
        " with 8 GiB; a mark that forbids 2M there for good makes no significant difference: one 2M mapping of 1144 on"
        " average (W14 to W17, C12)."
    ),
    source="W14 to W17: Yan Zhao, 2025-06-26, aF0Kg8FcHVMvsqSo@yzhao56-desk.sh.intel.com; one guest image, one firmware",
    procedure=(
        "The scenario boot with TDX guests, event by event: the counter of small accepts before and after each. Then 2M"
        " mappings when the guest is up, with the mark and without (accept_mark=none)."
    ),
    limits=(
        (
            "the places and counts of small accepts are what the scenario was made from: that they come out says that the model"
            " makes small accepts of all of these, and of no other event"
        ),
        "the source's guest has no legacy hole; how its memory was backed, and how much of it was touched, is not said",
    ),
    run=run,
)
