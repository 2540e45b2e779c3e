"""The tables under the headline: what changed, what it cost, what is left. A column of nothing but zeros is left out."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from rich.console import Console

from gmemlab.lab.compare import Row
from gmemlab.report.table import NOTHING, Write, name_of, policy_table, write_count, write_share
from gmemlab.units import format_size


class Detail(NamedTuple):
    """A column: header, how it is written, and one figure, or several that are shown as a sequence."""

    header: str
    write: Write
    keys: tuple[str, ...]


def _moments(name: str) -> tuple[str, ...]:
    return tuple(f"{name}_{moment}" for moment in ("start", "end", "after"))


DETAILS: Final[tuple[tuple[str, tuple[Detail, ...]], ...]] = (
    (
        "What was broken and mended: 2M mappings of guests, and folios",
        (
            Detail("shat-\ntered", write_count, ("shattered",)),
            Detail("by\npunch", write_count, ("shattered_by_punch",)),
            Detail("by con-\nversion", write_count, ("shattered_by_conversion",)),
            Detail("by 4K\naccept", write_count, ("shattered_by_accept",)),
            Detail("\nhealed", write_count, ("mappings_healed",)),
            Detail("split by\npunch", write_count, ("split_by_punch",)),
            Detail("split by\nconv.", write_count, ("split_by_conversion",)),
            Detail("\nmerged", write_count, ("backing_healed",)),
            Detail("split\nfailed", write_count, ("split_failed",)),
            Detail("in 2M+\nfolios", write_share, ("huge_backed_end",)),
        ),
    ),
    (
        "Host memory for guests at the peak",
        (
            Detail("all", format_size, ("peak_host",)),
            Detail("mapped\nprivate", format_size, ("peak_mapped",)),
            Detail("other\nbacked", format_size, ("peak_unmapped",)),
            Detail("shared\nside", format_size, ("peak_shared_side",)),
            Detail("stran-\nded", format_size, ("peak_stranded",)),
            Detail("idle in\npool", format_size, ("peak_pool_idle",)),
            Detail("page\nstructs", format_size, ("peak_structs",)),
            Detail("page\ntables", format_size, ("peak_tables",)),
            Detail("backed\ntwice", format_size, ("peak_backed_twice",)),
        ),
    ),
    (
        "Huge pages to be had: at the start, at the end, after all guests have left",
        (
            Detail("2M, movable", write_count, _moments("free_2m")),
            Detail("2M, unmovable", write_count, _moments("free_2m_unmovable")),
            Detail("2M if compacted", write_count, _moments("clean_2m")),
            Detail("1G", write_count, _moments("free_1g")),
            Detail("in pool", format_size, ("pool_idle_after",)),
        ),
    ),
    (
        "The host's tables of page states, and where these lie at the end",
        (
            Detail("RMP", format_size, ("rmp",)),
            Detail("1G with\nSNP", write_count, ("snp_regions_end",)),
            Detail("1G free\nof SNP", write_share, ("snp_free_end",)),
            Detail("RMPOPT\nanew", write_count, ("rmpopt_rebuilds",)),
            Detail("2M with\nTDs' 4K", write_count, ("tdx_small_2m_end",)),
            Detail("PAMT,\ndynamic", format_size, ("dynamic_pamt_end",)),
            Detail("PAMT,\nstatic", format_size, ("pamt",)),
        ),
    ),
    (
        "Operations that were made",
        (
            Detail("2M entries\nmade", write_count, ("entries_2m",)),
            Detail("4K entries\nmade", write_count, ("entries_4k",)),
            Detail("in smaller\nfolios", write_count, ("fallbacks",)),
            Detail("conver-\nsions", write_count, ("conversions",)),
            Detail("com-\npactions", write_count, ("compactions",)),
            Detail("4K pages\nmoved", write_count, ("compact_moved",)),
        ),
    ),
    (
        "What allocations had done for memory that was not free",
        (
            Detail("times\ncompacted", write_count, ("compact_stall",)),
            Detail("in\nvain", write_count, ("compact_fail",)),
            Detail("4K pages\nnot moved", write_count, ("compact_failed",)),
            Detail("times\nreclaimed", write_count, ("allocstall",)),
            Detail("turns of\nkswapd", write_count, ("pageoutrun",)),
            Detail("folios\nlooked at", write_count, ("slabs_scanned",)),
            Detail("\nsplit", write_count, ("deferred_split",)),
            Detail("4K pages\nfreed so", write_count, ("deferred_freed",)),
        ),
    ),
    (
        "What the daemons did",
        (
            Detail("2M\nscanned", write_count, ("khugepaged_scanned",)),
            Detail("col-\nlapsed", write_count, ("collapsed",)),
            Detail("left:\nholes", write_count, ("collapse_failed_holes",)),
            Detail("left:\nheld", write_count, ("collapse_failed_held",)),
            Detail("left:\nno 2M", write_count, ("collapse_failed_memory",)),
            Detail("left:\nshared", write_count, ("collapse_failed_shared",)),
            Detail("4K pages\ncopied", write_count, ("collapse_copied",)),
            Detail("kcompactd\nruns", write_count, ("kcompactd_runs",)),
            Detail("firmware\ncopies", write_count, ("firmware_copies",)),
        ),
    ),
    (
        "Memory on other NUMA nodes",
        (
            Detail("of guests,\nat the end", format_size, ("remote_end",)),
            Detail("allocations\nthat missed", write_count, ("numa_misses",)),
            Detail("what they\ngot", format_size, ("numa_missed",)),
        ),
    ),
    (
        "Operations that failed, and what they left",
        (
            Detail("refused,\nEAGAIN", write_count, ("conversions_refused",)),
            Detail("punches\nrefused", write_count, ("punches_refused",)),
            Detail("VMM punch\nfailed", write_count, ("vmm_punches_failed",)),
            Detail("ENOMEM\nrunning", write_count, ("runtime_failures",)),
            Detail("ENOMEM\nhost", write_count, ("host_failures",)),
            Detail("\nstale", format_size, ("stale",)),
            Detail("\nlost", format_size, ("lost",)),
        ),
    ),
)


def print_details(console: Console, rows: Sequence[Row]) -> None:
    """Print all detail tables, medians over the seeds."""
    for title, details in DETAILS:
        shown = [detail for detail in details if _tells(rows, detail)]
        if not shown:
            continue
        table = policy_table(rows)
        for detail in shown:
            table.add_column(detail.header, justify="right", vertical="bottom")
        for row in rows:
            table.add_row(name_of(row), *(_cell(row, detail) for detail in shown))
        console.print(f"\n{title}", style="bold")
        console.print(table)


def _tells(rows: Sequence[Row], detail: Detail) -> bool:
    """Whether any policy has something else than zero there; unmovable pages are shown if they are fewer than movable."""
    if detail.keys == _moments("free_2m_unmovable"):
        return any(row.figures[key] != row.figures[key.replace("_unmovable", "")] for row in rows for key in detail.keys)
    return any(spread.median for row in rows for key in detail.keys if (spread := row.figures[key]) is not None)


def _cell(row: Row, detail: Detail) -> str:
    spreads = (row.figures[key] for key in detail.keys)
    return " ".join(detail.write(spread.median).rjust(5 * (len(detail.keys) > 1)) if spread else NOTHING for spread in spreads)
