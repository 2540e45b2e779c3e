"""Thirty days of churn on a host of 1 TiB at 85 % load, daemons on: `make bench-month`. Takes minutes.

The scenario `day` in two forms. `guests`: they come and go by W2 to W4 (ordinary VMs, censored lifetimes; P3, P4), each boots
as one TDX guest did (W14 to W16, P2: nearly all of the events), and uses its memory as assumed (W8, W18, W20; P5, P8); the
host's own memory stays as it is (P7). `all`: guests that run also share pages (W11; P1, P6, P8, P9, K24), and a part of the
host's memory comes and goes (P7), at rates that no source gives. Both rest on assumptions; what exactly, `compare` prints.

Prints pages allocated, events, and the run's CPU time: for base pages also as a multiple of what writing one record per page
takes in the same run (`core_bench.reference`), for others of a million reads that wait for one another (`core_bench.latency`),
as those are much of the time of `all`.
"""

import sys
import time
from pathlib import Path
from typing import Final

import core_bench

from gmemlab.core import layout
from gmemlab.lab.simulate import simulate
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


def month(form: str) -> Scenario:
    """The scenario `day` for 30 days in one of the FORMS, with a sample each six hours."""
    day = load(str(SCENARIO))
    longer = day.model_copy(update={"duration": 30 * DAY, "sample_interval": DAY // 4})
    if form == "all":
        return longer
    assert day.background is not None
    still = day.background.model_copy(update={"churn_per_hour": 0.0})
    return longer.model_copy(update={"runtime": None, "pins": None, "references": None, "background": still})


def run(name: str, form: str, trace: Trace, reference: float, latency: float) -> None:
    """One policy: a line of figures, and one against its bar."""
    host = Host("1T")
    start = time.process_time()
    tally = simulate(host, trace, find(name)).tally
    seconds = time.process_time() - start
    orders = range(layout.NR_FOLIO_ORDERS)
    pages = sum(int(tally[layout.TALLY_ALLOCATED + order]) << order for order in orders)
    base = int(tally[layout.TALLY_ALLOCATED])
    print(f"{name}, {form}: {pages:,} pages allocated, {base:,} of them in 4K; {len(trace.events):,} events")
    core_bench.show(f"{name}, {form}, per event", seconds / len(trace.events) * 1e9, "ns", None)
    if POLICIES[name]:
        core_bench.show(f"{name}, {form}, per page allocated and freed", seconds / base * 1e9, "ns", PAGE_BAR, reference)
    else:
        core_bench.show(f"{name}, {form}, 30 days on one core", seconds, "s", SECONDS_BAR, latency / 1e3)


def main() -> int:
    """Run the policies named on the command line, or all. Returns the exit code."""
    reference, latency = core_bench.reference(), core_bench.latency()
    core_bench.show("a read in 512 MiB that waits for the one before", latency, "ns", None)
    for form in FORMS:
        start = time.perf_counter()
        trace = generate(month(form), Host("1T").usable_bytes, 0)
        print(f"{form}: {len(trace.guests):,} guests, drawn in {time.perf_counter() - start:.0f} s", flush=True)
        for name in sys.argv[1:] or POLICIES:
            run(name, form, trace, reference, latency)
    return 0


if __name__ == "__main__":
    sys.exit(main())
