"""How much longer a guest boots for each GiB that it has: page states, priced by bounds, beside what was published."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import linear_regression
from typing import Final

from gmemlab.core.layout import PAGE_SIZE
from gmemlab.costs import FREE, Costs
from gmemlab.lab.experiments.catalogue import NO_TEST, SHOWN, Check, Experiment, Outcome, Progress, judge
from gmemlab.lab.simulate import simulate
from gmemlab.lab.times import Interval, total
from gmemlab.model.host import Host
from gmemlab.presets import find
from gmemlab.units import GIB, MILLISECOND, format_duration
from gmemlab.workload.scenario import load, with_hardware
from gmemlab.workload.schema import Scenario
from gmemlab.workload.trace import generate

SIZES: Final = (8, 16, 32, 64)  # GiB
PAGES_PER_GIB: Final = GIB // PAGE_SIZE
SECOND: Final = 1000 * MILLISECOND
STRUCTS: Final = 64 / PAGE_SIZE  # C23: a kernel writes at least the page structs of its memory


@dataclass(frozen=True)
class Published:
    """What is known of guests of some hardware; slopes of boot in ns per GiB, from the labels of C4.

    Attributes:
        slope: of all of it.
        before: of this, QEMU's stage, before the guest runs; None where the source does not part it.
        ordinary: what an ordinary guest's boot grows by.
        smallest: GiB of the smallest guest that it is about.
        remark: what else there is to say.
        accept: what first touch of 4 KiB takes more than later ones, ns (C3).
    """

    slope: float
    before: float | None
    ordinary: float
    smallest: int
    remark: str
    accept: int

    @property
    def most(self) -> float:
        """What grows while the guest runs: all that the model may have, and what an ordinary guest does."""
        return self.slope - (self.before or 0.0)

    @property
    def least(self) -> float:
        """The same without what an ordinary guest does, of which these guests need not do all."""
        return max(0.0, self.most - self.ordinary)


def _label_slope(least: float, most: float, gib: int) -> float:
    """Slope between two labels of C4, s, in ns per GiB."""
    return (most - least) / gib * SECOND


ORDINARY: Final = _label_slope(4.27, 5.17, 248)  # of the AMD machine; nothing is published of the Intel one
PUBLISHED: Final[Mapping[str, Published]] = {
    "snp": Published(
        slope=_label_slope(10.33, 30.75, 248),
        before=_label_slope(1.86, 21.42, 248),
        ordinary=ORDINARY,
        smallest=8,
        remark="kernel 6.9, with guest_memfd",
        accept=1520,
    ),
    "tdx": Published(
        slope=_label_slope(13.79, 24.04, 240),
        before=None,
        ordinary=ORDINARY,
        smallest=16,
        remark="from 16 GB up (the step of 3.1s before is unexplained), QEMU's stage and all",
        accept=1920,
    ),
}


def run(progress: Progress) -> Outcome:
    """Boot guests of four sizes that touch little and much of their memory, for both kinds of hardware."""
    checks: list[Check] = []
    sentences: list[str] = []
    for number, (hardware, published) in enumerate(PUBLISHED.items()):
        costs = Costs.load([], hardware)
        scenario = with_hardware(load("boot"), hardware)
        most = scenario.boot.touched
        done = number / len(PUBLISHED)
        slopes = {}
        for policy, touched in (("4k", STRUCTS), ("4k", most), ("thp", most)):
            progress(f"{hardware}, {policy}, {touched:.1%} touched", done)
            slopes[policy, touched] = _slope(scenario, policy, touched, costs, published.smallest)
            done += 1 / len(PUBLISHED) / 3
        checks += _boot_checks(hardware, published, slopes["4k", STRUCTS], slopes["4k", most], most)
        checks += _accept_checks(hardware, published, slopes["4k", most], slopes["thp", most], most)
        sentences += _sentences(hardware, published, slopes["4k", most], most)
    return Outcome(tuple(checks), tuple(sentences))


def _slope(scenario: Scenario, policy: str, touched: float, costs: Costs, least: int) -> Interval:
    """Return what first touch takes in a boot for each GiB of the guest more, from `least` GiB on.

    That is page states, private faults with the allocation that the upper ends of their prices have in them, and clearing.
    """
    sizes = [size for size in SIZES if size >= least]
    counts = [_operations(scenario, policy, touched, size) for size in sizes]
    parts = []
    for name in counts[0]:
        per_gib = linear_regression(sizes, [count[name] for count in counts]).slope
        cost = costs.get(name)
        if name not in FREE and per_gib > 0 and cost is not None:
            parts.append(Interval(cost.low, cost.value, cost.high).scaled(per_gib))
    return total(parts)


def _operations(scenario: Scenario, policy: str, touched: float, size: int) -> dict[str, int]:
    """Return what the hardware of one guest did until it was up, by operation."""
    guests = scenario.guests.model_copy(update={"fixed": (size * GIB,)})
    boot = scenario.boot.model_copy(update={"touched": touched, "touched_final": touched})
    host = Host(f"{size + 8}G")
    trace = generate(scenario.model_copy(update={"guests": guests, "boot": boot}), host.usable_bytes, 0)
    return {name: phases["boot"] for name, phases in simulate(host, trace, find(policy)).operations.items()}


def _boot_checks(hardware: str, published: Published, least: Interval, most: Interval, touched: float) -> list[Check]:
    checks = []
    if published.before is not None:
        whole, remark = f"{hardware}: all of boot per GiB", "C4; QEMU's stage is the most of it"
        checks.append(Check(whole, "", format_duration(published.slope), SHOWN, remark))
        what, remark = f"{hardware}: QEMU's stage per GiB", "what QEMU does there is not said: not modelled"
        checks.append(Check(what, "", format_duration(published.before), SHOWN, remark))
    for share, slope, why in ((STRUCTS, least, "page structs alone (C23)"), (touched, most, "the scenario boot (P5)")):
        what = f"{hardware}: boot per GiB, {share:.1%} touched"
        remark = f"{why}; {_part(published)}"
        verdict = judge(slope, published.least, published.most)
        text = f"{format_duration(published.least)} – {format_duration(published.most)}"
        checks.append(Check(what, _write(slope), text, verdict, remark, _figures(slope)))
    return checks


def _part(published: Published) -> str:
    """What the published figure is, in words."""
    before = f" less {format_duration(published.before)} before the guest runs," if published.before is not None else ""
    whole, ordinary = format_duration(published.slope), format_duration(published.ordinary)
    return f"published: {whole}{before} less {ordinary} of an ordinary guest, or a part of that; {published.remark}"


def _accept_checks(hardware: str, published: Published, small: Interval, huge: Interval, touched: float) -> list[Check]:
    per_page = 1 / (touched * PAGES_PER_GIB)
    small, huge = small.scaled(per_page), huge.scaled(per_page)
    span = Interval(huge.low, small.value, small.high)
    what = f"{hardware}: first touch per 4K"
    verdict, accept = judge(span, published.accept, published.accept), format_duration(published.accept)
    return [
        Check(f"{what}, in 4K pages", _write(small), "", SHOWN, "policy 4k", _figures(small)),
        Check(f"{what}, in 2M pages", _write(huge), "", SHOWN, "policy thp", _figures(huge)),
        Check(what, _write(span), accept, verdict, "C3; C2 does not say in which pages its hosts mapped", _figures(span)),
    ]


def _sentences(hardware: str, published: Published, slope: Interval, touched: float) -> list[str]:
    """Return what the published slope says of the input, and what the bounds say of each other."""
    low, high = (published.most / end * touched for end in (slope.high, slope.low))
    if high < STRUCTS:
        text = (
            f"at most {high:.1%} of the memory above 4 GiB is touched then by a fault for each 4K page, which is less than page"
            f" structs take ({STRUCTS:.1%}): either those pages were there before the guest ran, or they took no such exits."
        )
    else:
        fits = f"; the scenario has {touched:.0%} (P5)" if high >= touched else f": the scenario's {touched:.0%} (P5) is more"
        text = f"if all of that were first touch of 4K pages, boot would touch {low:.1%} to {high:.1%} of that memory{fits}."
    when = "boot" if published.before is None else "while the guest runs, boot"
    sentences = [f"{hardware}: {when} grows by {format_duration(published.most)} per GiB: {text}"]
    least = slope.low / (touched * PAGES_PER_GIB)
    if least > published.accept:
        sentences.append(
            f"{hardware}: 4K pages with an exit each take {format_duration(least)} and more, above C3's"
            f" {format_duration(published.accept)} for all of a first touch: what C2 measured mapped larger pages, or left the"
            " guest for less."
        )
    return sentences


def _write(interval: Interval) -> str:
    """Both ends; where they are too far apart to confirm anything, after the words that say so."""
    ends = f"{format_duration(interval.low)} – {format_duration(interval.high)}"
    return f"({NO_TEST}) {ends}" if interval.useless else ends


def _figures(interval: Interval) -> dict[str, float]:
    return {"low_ns": interval.low, "high_ns": interval.high}


EXPERIMENT: Final = Experiment(
    name="boot-slope",
    title="Boot time for each GiB of a guest with 4K pages only",
    statement=(
        "First touch explains how boot grows with the guest while it runs: 82ms per GiB for SNP with guest_memfd, of which 79ms"
        " pass in QEMU before, and 43ms for TDX, less 4ms of an ordinary guest (C4); and it takes 1.52us and 1.92us per 4K"
        " (C3)."
    ),
    source="C4 (slopes are derived), C3 (derived from C2); never added up: both have allocation, zeroing and faults in them",
    procedure=(
        "The scenario boot, with guests of 8 (TDX: 16) to 64 GiB; operations of hardware and host until the guest is up, their"
        " growth with size, priced by the shipped profiles; allocation is in the upper ends of a fault's price (C30, C31). How"
        " much boot touches is an input: the scenario's share (P5), and page structs alone. An interval all above or all below"
        " what was published is a miss; else it is a test only if its ends are at most three times apart."
    ),
    limits=(
        "QEMU's stage is not modelled; of a TD's boot the source does not part it off: it is in what the model is held to",
        "the growth of an ordinary guest is that of the AMD machine, for both",
        "swiotlb grows with the guest up to 17 GiB (W8), and so do the conversions that are priced",
        "the profiles' entries are bounds, some of them C3 itself, so that only their lower ends can contradict it",
    ),
    run=run,
)
