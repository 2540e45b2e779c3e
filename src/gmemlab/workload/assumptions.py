"""Which public figures and which assumptions a scenario rests on, as lines to print beside its results."""

from gmemlab.units import format_duration, format_size
from gmemlab.workload.schema import Daemons, Guests, Scenario


def assumptions(scenario: Scenario, too_large: float) -> tuple[str, ...]:
    """Return one line per W row used, with its confidence, and one per assumption (P rows and the like).

    Args:
        scenario: what is run.
        too_large: share of the guests of the size column that the host cannot hold at all.
    """
    lines = [*_guests(scenario.guests, too_large), *_boot(scenario), *_hardware(scenario), *_running(scenario)]
    return tuple(lines)


def _guests(guests: Guests, too_large: float) -> list[str]:
    lines = []
    if guests.sizes in ("v1-public", "v2-public", "azure-2019"):
        lines.append(f"W4 (digitised, +-1 point): guest sizes of {guests.sizes}")
        lines.append(f"assumption: {guests.inside} inside a bucket of W4, at most {format_size(guests.largest)}")
    elif guests.sizes == "fixed":
        lines.append(f"P4 (assumption): guest sizes are {', '.join(map(format_size, guests.fixed))}")
    else:
        shares = ", ".join(f"{share:.0%}" for share in guests.shares)
        lines.append(f"P4 (assumption): guest sizes are {shares} of what all guests are to fill")
    if guests.lifetimes != "forever" and guests.tail_mean is not None and guests.longest is not None:
        lines.append(f"W2 (digitised, +-1 point): lifetimes of {guests.lifetimes}, censored at the end of the trace")
        lines.append(
            f"assumption: lifetimes from {format_duration(guests.shortest)} to {format_duration(guests.longest)},"
            f" past W2's last point {format_duration(guests.tail_mean)} more on average"
        )
        lines.append("P4 (assumption): confidential guests have the sizes and lifetimes of ordinary VMs")
    if guests.load is not None:
        lines.append(f"P3 (assumption): guests fill {guests.load:.0%} of the host's free memory")
    if too_large > 0:
        lines.append(f"assumption: {too_large:.1%} of the guests, too large for this host, are left out")
    return lines


def _boot(scenario: Scenario) -> list[str]:
    lines = []
    boot, swiotlb = scenario.boot, scenario.swiotlb
    if boot.firmware == "w14":
        lines.append("W14, W15 (read), W16 (read; split derived): 4K accepts at boot of one TDX guest, a case study")
        lines.append("P2 (assumption): every guest boots like that one")
        if scenario.guests.hardware == "snp":
            lines.append(
                "P2 (assumption): SNP guests are given that TDX firmware's 4K accepts and conversions, page by page: nobody has"
                " counted an SNP guest's"
            )
    if boot.firmware_accepts_low:
        lines.append("W20 (read): firmware accepts memory below 4G")
    lines.append("W18 (read): memory is accepted in 2M units")
    lines.append(
        f"P5 (assumption): of the other memory {boot.touched:.0%} is touched at boot,"
        f" {boot.touched_final:.0%} after {format_duration(boot.touch_time)}"
    )
    lines.append(
        f"W8 (read): swiotlb takes {swiotlb.share:.0%}, {format_size(swiotlb.smallest)} to {format_size(swiotlb.largest)}"
    )
    alignment = "2M aligned" if swiotlb.aligned else "not 2M aligned"
    lines.append(f"P8 (assumption): {swiotlb.touched:.0%} of swiotlb is used; it is {alignment}, at {swiotlb.place}")
    if swiotlb.growth_limit:
        lines.append(f"W10 (read): swiotlb grows; by {format_size(swiotlb.growth_limit)} (assumption)")
    return lines


def _hardware(scenario: Scenario) -> list[str]:
    """What the counts of page states rest on."""
    lines = []
    hardware = scenario.guests.hardware
    if hardware == "snp":
        lines.append("W19, W21 (read): guests accept 4M at a time, and ask for 64 changes of state in a request")
        lines.append("K11 (read): an RMPUPDATE of 4K splits the kernel's mapping of that 2M and 1G, for good")
        lines.append(
            "assumption: 2M that a conversion in place covers leave the RMP by one RMPUPDATE, though their folio was split"
            " before (G47 names the hook, not its range)"
        )
    if hardware == "tdx":
        lines.append("G76 to G79 (posted): 2M mappings of TDs, zaps are exact, nothing is promoted")
    if hardware in ("snp", "tdx") and scenario.boot.firmware == "w14":
        lines.append("P2 (assumption): the launch image is 6 pages: what is priced of it is a sample, not a firmware's size")
    if hardware == "plain":
        lines.append(
            "hypothetical: plain guests convert as SW_PROTECTED ones do; a machine without private memory cannot (G42)"
        )
    if hardware in ("snp", "tdx"):
        lines.append("assumption: nobody maps a guest's memory before it is touched: every accept exits for it (W19)")
    if hardware != "generic":
        lines.append("assumption: a VMM maps of shared memory what devices pin: what it copies through swiotlb is not in it")
    if hardware in ("snp", "plain", "sw-protected", "pkvm"):
        lines.append(
            "assumption: a guest comes back at once to every page that it used and a zap took away (faults beside a zap)"
        )
    return lines


def _running(scenario: Scenario) -> list[str]:
    lines = []
    if (runtime := scenario.runtime) is not None:
        lines.append(
            f"P1 (assumption): {runtime.rate_per_gib_hour:g} conversions per GiB and hour"
            f" + {runtime.rate_per_guest_hour:g} per guest and hour, {runtime.pages} page(s) each"
        )
        returned = "made private again" if runtime.returns_private else "left shared"
        lines.append(
            f"P9 (assumption): shared pages are {runtime.placement},"
            f" freed after {format_duration(runtime.hold)}, then {returned}"
        )
    if (pins := scenario.pins) is not None:
        lines.append(
            f"P6 (assumption): {pins.share:.0%} of run-time shared pages pinned for {format_duration(pins.hold)},"
            f" {pins.swiotlb:.0%} of used swiotlb for good"
        )
    if (references := scenario.references) is not None:
        lines.append(f"K24 (measured), rate (assumption): {references.per_punch:.1%} of punches meet a transient reference")
    if (reporting := scenario.reporting) is not None:
        lines.append("K12: giving back private memory is hypothetical, stock guests do not accept it again")
        lines.append(
            f"W24 (read), W25 (assumption): reported in blocks of order {reporting.order}, {reporting.batch} at a time"
        )
        lines.append(
            f"P5 (assumption): {reporting.share_per_hour:.0%} of a guest reported per hour,"
            f" used again after {format_duration(reporting.hold)}"
        )
    if (host := scenario.background) is not None:
        lines.append(
            f"P7 (assumption): the host itself holds {host.unmovable:.1%} unmovable and {host.movable:.1%} movable,"
            f" {host.churn_per_hour:.0%} renewed per hour in pieces of {format_size(host.chunk)}"
        )
        if host.cache:
            lines.append(
                f"P7 (assumption): clean page cache takes {host.cache:.1%} of what is free at the start, is read once, and is"
                " dropped where memory is short"
            )
    if (daemons := scenario.daemons) != Daemons():
        lines.append(
            f"assumption: khugepaged looks at {daemons.pages_to_scan:,} pages every {format_duration(daemons.scan_sleep)},"
            f" {format_duration(daemons.alloc_sleep)} after it found no memory, and fills {daemons.max_ptes_none} holes of 2M;"
            f" compaction_proactiveness is {daemons.compaction_proactiveness}"
        )
    return lines
