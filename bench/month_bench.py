"""Thirty days of churn on a host of 1 TiB at 85 % load, daemons on: `make bench-month`. Takes a quarter of an hour.

The scenario `day` in two forms. `guests`: they come and go by W2 to W4 (ordinary VMs, censored lifetimes; P3, P4), each boots
as one TDX guest did (W14 to W16, P2: nearly all of the events), and uses its memory as assumed (W8, W18, W20; P5, P8); the
host's own memory stays as it is (P7). `all`: guests that run also share pages (W11; P1, P6, P8, P9, K24), and a part of the
host's memory comes and goes (P7), at rates that no source gives. Both rest on assumptions; what exactly, `compare` prints.
Both are held against the same bars.

Prints pages allocated, events, and the run's CPU time: for base pages also as a multiple of what writing one record per page
takes in the same run (`core_bench.reference`), for others of a million reads that wait for one another (`core_bench.latency`),
as those are much of the time of `all`.

The time is that of a processor that nobody else shares, from several runs in short stretches (`full_speed`).
"""

import sys
import time
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

import core_bench
from full_speed import Stretches, calibrate
from gmemlab.core import layout
from gmemlab.lab.simulate import Simulation, simulate
from gmemlab.model.host import Host
from gmemlab.presets import find
from gmemlab.units import DAY
from gmemlab.workload.scenario import load
from gmemlab.workload.schema import Scenario
from gmemlab.workload.trace import Trace, generate

SCENARIO: Final = Path(__file__).parents[1] / "scenarios" / "day.toml"
SECONDS_BAR: Final = 20  # of policies with huge pages
PAGE_BAR: Final = 150  # ns per base page allocated and freed, of 4K policies
POLICIES: Final = {"thp-inplace": False, "hugetlb-2m": False, "4k": True}  # whether it has base pages only
FORMS: Final = ("guests", "all")
RUNS: Final = 3
STRETCHES: Final = 1500  # of a month


def month(form: str) -> Scenario:
    """The scenario `day` for 30 days in one of the FORMS, with a sample each six hours."""
    day = load(str(SCENARIO))
    longer = day.model_copy(update={"duration": 30 * DAY, "sample_interval": DAY // 4})
    if form == "all":
        return longer
    assert day.background is not None
    still = day.background.model_copy(update={"churn_per_hour": 0.0})
    return longer.model_copy(update={"runtime": None, "pins": None, "references": None, "background": still})


def run_once(name: str, trace: Trace, times: Stretches) -> NDArray[np.int64]:
    """A month under one policy, from an empty host until all guests have left. Returns TALLY_* counters before these do."""
    host = Host("1T")
    opened: list[Simulation] = []
    times.time(1, lambda: opened.append(Simulation(host, trace, find(name))))
    simulation = opened[0]

    def step_to(end: int) -> None:
        while simulation.event < end:
            simulation.step(end)

    for end in np.linspace(0, len(trace.events), STRETCHES + 1)[1:]:
        times.time(1, step_to, int(end))
    tally = simulation.host.state.tally.copy()
    times.time(1, simulation.leave)
    return tally


def run(name: str, form: str, trace: Trace, write_ns: float, million_reads: float) -> None:
    """One policy: a line of figures, and one against its bar."""
    times = Stretches()
    for number in range(RUNS):
        print(f"{name}, {form}: run {number + 1} of {RUNS}", file=sys.stderr, flush=True)
        tally = run_once(name, trace, times)
    orders = range(layout.NR_FOLIO_ORDERS)
    pages = sum(int(tally[layout.TALLY_ALLOCATED + order]) << order for order in orders)
    base = int(tally[layout.TALLY_ALLOCATED])
    month = times.figure_of_runs(RUNS)
    print(f"{name}, {form}: {pages:,} pages allocated, {base:,} of them in 4K; {len(trace.events):,} events")
    core_bench.show_time(f"{name}, {form}, per event", month.per(len(trace.events)), "ns", None)
    if POLICIES[name]:
        core_bench.show_time(f"{name}, {form}, per page allocated and freed", month.per(base), "ns", PAGE_BAR, write_ns)
    else:
        core_bench.show_time(f"{name}, {form}, 30 days on one core", month, "s", SECONDS_BAR, million_reads)


def main() -> int:
    """Run the policies named on the command line, or all. Returns the exit code."""
    small = Host("16G")
    simulate(small, generate(load("demo"), small.usable_bytes, 0), find("4k"))  # compiles
    calibrate()
    write_ns = core_bench.reference().value * 1e9
    latency = core_bench.latency()
    core_bench.show_time("a read in 512 MiB that waits for the one before", latency, "ns", None)
    for form in FORMS:
        start = time.perf_counter()
        trace = generate(month(form), Host("1T").usable_bytes, 0)
        print(f"{form}: {len(trace.guests):,} guests, drawn in {time.perf_counter() - start:.0f} s", flush=True)
        for name in sys.argv[1:] or POLICIES:
            run(name, form, trace, write_ns, latency.value * 1e6)
    return 0


if __name__ == "__main__":
    sys.exit(main())
