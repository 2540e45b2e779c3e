"""What keeping page states costs: guests boot and run with them and without, on the same host: part of `make bench`.

Times are the least of several runs, as what disturbs a run only adds to it.
"""

import time
from typing import Final

import core_bench
from gmemlab.lab.simulate import simulate
from gmemlab.model.host import Host
from gmemlab.presets import find
from gmemlab.workload.scenario import load, with_hardware
from gmemlab.workload.trace import generate

BAR: Final = 1.5  # times the run without
SCENARIO: Final = "demo"
SIZE: Final = "16G"
RUNS: Final = 3
POLICIES: Final = ("4k", "thp-inplace", "hugetlb-2m")
WITHOUT: Final = "generic"


def seconds(hardware: str, policy: str) -> float:
    """How long a scenario takes with guests of some hardware, CPU time."""
    guests = with_hardware(load(SCENARIO), hardware)
    best = float("inf")
    for _ in range(RUNS):
        host = Host(SIZE)
        trace = generate(guests, host.usable_bytes, 0)
        start = time.process_time()
        simulate(host, trace, find(policy))
        best = min(best, time.process_time() - start)
    return best


def main() -> None:
    """A line for each policy and hardware."""
    for policy in POLICIES:
        seconds(WITHOUT, policy)  # so that all is compiled
        without = seconds(WITHOUT, policy)
        for hardware in ("snp", "tdx"):
            ratio = seconds(hardware, policy) / without
            core_bench.show(f"page states of {hardware}, {policy}, {without * 1000:.0f} ms without", ratio, "x", BAR)


if __name__ == "__main__":
    main()
