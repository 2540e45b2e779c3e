"""How much longer a guest boots for each GiB that it has: page states, priced by bounds, beside what was published."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import linear_regression
from typing import Final

from gmemlab.core.layout import PAGE_SIZE
from gmemlab.costs import FREE, Costs
from gmemlab.lab.experiments.catalogue import SHOWN, Check, Experiment, Outcome, Progress, judge_part
from gmemlab.lab.simulate import simulate
from gmemlab.lab.times import Interval, total
from gmemlab.model.host import Host
from gmemlab.policy import find
from gmemlab.units import GIB, MILLISECOND, format_duration
from gmemlab.workload.scenario import load, with_hardware
from gmemlab.workload.schema import Scenario
from gmemlab.workload.trace import generate

SIZES: Final = (8, 16, 32, 64)  # GiB
PAGES_PER_GIB: Final = GIB // PAGE_SIZE
STRUCTS: Final = 64 / PAGE_SIZE  # C23: a kernel writes at least the page structs of its memory


@dataclass(frozen=True)
class Published:
    """What is known of guests of some hardware.

    Attributes:
        slope: of boot, ns per GiB (C4).
        least: GiB of the smallest guest that it is about.
        has: what of it the model does not price.
        accept: upper bound of what accepting 4 KiB takes, ns (C3).
    """

    slope: int
    least: int
    has: str
    accept: int


PUBLISHED: Final[Mapping[str, Published]] = {
    "snp": Published(82 * MILLISECOND, 8, "79 of the 82ms are QEMU's stage, before the guest runs", 1520),
    "tdx": Published(43 * MILLISECOND, 16, "from 16 GB up; the step of 3.1s from 8 to 16 GB is unexplained", 1920),
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
            slopes[policy, touched] = _slope(scenario, policy, touched, costs, published.least)
            done += 1 / len(PUBLISHED) / 3
        checks += _boot_checks(hardware, published, slopes["4k", STRUCTS], slopes["4k", most], most)
        checks += _accept_checks(hardware, published, slopes["4k", most], slopes["thp", most], most)
        sentences += _sentences(hardware, published, slopes["4k", most], most)
    return Outcome(tuple(checks), tuple(sentences))


def _slope(scenario: Scenario, policy: str, touched: float, costs: Costs, least: int) -> Interval:
    """Return what page states and faults of a boot take for each GiB of the guest more, from `least` GiB on."""
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
    for share, slope, why in ((STRUCTS, least, "page structs alone (C23)"), (touched, most, "the scenario boot (P5)")):
        what = f"{hardware}: boot per GiB, {share:.1%} touched"
        verdict = judge_part(slope, published.slope)
        remark = f"{why}; {published.has}"
        checks.append(Check(what, _write(slope), format_duration(published.slope), verdict, remark, _figures(slope)))
    return checks


def _accept_checks(hardware: str, published: Published, small: Interval, huge: Interval, touched: float) -> list[Check]:
    per_page = 1 / (touched * PAGES_PER_GIB)
    small, huge = small.scaled(per_page), huge.scaled(per_page)
    span = Interval(huge.low, small.value, small.high)
    what = f"{hardware}: first touch per 4K"
    bound = f"≤ {format_duration(published.accept)}"
    verdict = judge_part(span, published.accept)
    return [
        Check(f"{what}, in 4K pages", _write(small), "", SHOWN, "policy 4k", _figures(small)),
        Check(f"{what}, in 2M pages", _write(huge), "", SHOWN, "policy thp; its upper end is C3 itself", _figures(huge)),
        Check(what, _write(span), bound, verdict, "C2 does not say in which pages its hosts mapped", _figures(span)),
    ]


def _sentences(hardware: str, published: Published, slope: Interval, touched: float) -> list[str]:
    """Return what the published slope says of the input, and what the bounds say of each other."""
    low, high = (published.slope / end * touched for end in (slope.high, slope.low))
    least = slope.low / (touched * PAGES_PER_GIB)
    fits = f"; the scenario has {touched:.0%} (P5)" if high >= touched else f": the scenario's {touched:.0%} (P5) is more"
    sentences = [
        (
            f"{hardware}: if all of the published slope were page states and faults, boot would touch {low:.1%} to {high:.1%}"
            f" of the memory above 4 GiB{fits}."
        )
    ]
    if least > published.accept:
        sentences.append(
            f"{hardware}: 4K pages with an exit each take {format_duration(least)} and more, above C3's bound of"
            f" {format_duration(published.accept)} for all of a first touch: what C2 measured mapped larger pages, or left the"
            " guest for less."
        )
    return sentences


def _write(interval: Interval) -> str:
    return f"{format_duration(interval.low)} – {format_duration(interval.high)}"


def _figures(interval: Interval) -> dict[str, float]:
    return {"low_ns": interval.low, "high_ns": interval.high}


EXPERIMENT: Final = Experiment(
    name="boot-slope",
    title="Boot time for each GiB of a guest with 4K pages only",
    statement=(
        "Page states and private faults explain how boot grows with the guest: 82ms per GB for SNP with guest_memfd, 43ms for"
        " TDX (C4); and accepting memory takes no more than 1.52us and 1.92us per 4K (C3)."
    ),
    source="C4 (slopes are derived), C3 (derived from C2); never added up: both have allocation, zeroing and faults in them",
    procedure=(
        "The scenario boot, with guests of 8 (TDX: 16) to 64 GiB; operations of the hardware until the guest is up, their"
        " growth with size, priced by the shipped profiles. How much boot touches is an input: the scenario's share (P5), and"
        " page structs alone. The result may be less than what was published, which has more in it, but not more."
    ),
    limits=(
        (
            "published, and not priced here: QEMU's stage, allocating and clearing the host's pages, what an ordinary guest"
            " needs too (4ms per GB), anything else that the guest does"
        ),
        "swiotlb grows with the guest up to 17 GiB (W8), and so do the conversions that are priced",
        "the profiles' entries are bounds (C1, C3); C3 is an upper end of theirs, so it can contradict lower ends only",
    ),
    run=run,
)
