"""Thirty days of churn on a host of 1 TiB at 85 % load, daemons on: `make bench-month`. Takes minutes.

The scenario `day` in two forms: `guests`, who come and go as W2 to W4 say, boot, and use their memory; and `all`, which
also has pages that guests share while they run (P1, P6, P9) and memory of the host's that comes and goes (P7), both as often as
the scenario assumes: no source gives figures for that. Prints pages allocated, events, and the run's CPU time: for base pages
also as a multiple of what writing one record per page takes in the same run (`core_bench.reference`), for others of a million
reads that wait for one another (`core_bench.latency`), as half of the time of `all` is such reads.
"""

import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import core_bench

from gmemlab.core import layout
from gmemlab.lab.simulate import simulate
from gmemlab.model.host import Host
from gmemlab.presets import find
from gmemlab.workload.scenario import load
from gmemlab.workload.schema import Scenario
from gmemlab.workload.trace import Trace, generate

SCENARIO: Final = Path(__file__).parents[1] / "scenarios" / "day.toml"
SECONDS_BAR: Final = 20  # of policies with huge pages
PAGE_BAR: Final = 150  # ns per base page allocated and freed, of 4K policies
POLICIES: Final = {"thp-inplace": False, "hugetlb-2m": False, "4k": True}  # whether it has base pages only
LONGER: Final = {"duration": '"30d"', "sample_interval": '"6h"'}
FORMS: Final = {"guests": {"rate_per_gib_hour": "0.0", "rate_per_guest_hour": "0.0", "churn_per_hour": "0.0"}, "all": {}}


def month(form: str) -> Scenario:
    """The scenario `day` for 30 days in one of the FORMS, with a sample each six hours."""
    text = SCENARIO.read_text()
    for name, value in {**LONGER, **FORMS[form]}.items():
        text, found = re.subn(rf"^{name} = \S+", f"{name} = {value}", text, flags=re.MULTILINE)
        assert found == 1, name
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "month.toml")
        path.write_text(text)
        return load(str(path))


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
