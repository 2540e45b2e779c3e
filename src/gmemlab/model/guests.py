"""What hardware a guest has: names, and the core's codes."""

import errno
import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from gmemlab.core import layout
from gmemlab.core.hardware import counts, places
from gmemlab.core.layout import BLOCK_PAGES, GIGA_BLOCKS
from gmemlab.core.state import State
from gmemlab.errors import UsageError, operation_error

GUESTS: Final[dict[str, int]] = {
    "generic": layout.GUEST_GENERIC,
    "plain": layout.GUEST_PLAIN,
    "sw-protected": layout.GUEST_SW_PROTECTED,
    "pkvm": layout.GUEST_PKVM,
    "snp": layout.GUEST_SNP,
    "tdx": layout.GUEST_TDX,
}
PHASES: Final = ("boot", "running", "tear-down")  # by the core's codes
# What is counted, by the names that cost profiles have for it.
OPERATIONS: Final[dict[str, int]] = {
    name.lower().replace("_", "-"): code
    for name, code in vars(counts).items()
    if name.isupper() and name not in ("NR_PHASES", "TALLY_HARDWARE")
}
MMAP: Final = 1  # GUEST_MEMFD_FLAG_MMAP
INIT_SHARED: Final = 2  # GUEST_MEMFD_FLAG_INIT_SHARED
STATE_ENTRY: Final = 16  # bytes of an entry of the RMP or the PAMT (C19; Linux: `pamt_4k_entry_size`)
PAMT_PAIR: Final = BLOCK_PAGES * STATE_ENTRY  # the two pages that TDH.PHYMEM.PAMT.ADD takes for 2 MiB
RMPOPT_REGIONS: Final = 2048  # RMPOPT covers up to 2 TiB (C20)
RMPOPT_DELAY: Final = 10_000_000_000  # ns (C20)
# What must not happen, and the operations that may lead to it, by the core's codes.
HAZARDS: Final[dict[str, int]] = {
    "host-write": layout.HAZARD_HOST_WRITE,
    "unaccepted": layout.HAZARD_UNACCEPTED,
    "stale": layout.HAZARD_STALE,
    "lost": layout.HAZARD_LOST,
}
LED_BY: Final[dict[int, str]] = {
    layout.OP_ACCESS: "access by the guest",
    layout.OP_PUNCH: "punch by the VMM",
    layout.OP_TO_SHARED: "conversion to shared",
    layout.OP_TO_PRIVATE: "conversion to private",
    layout.OP_DESTROY: "release of the file",
}


class Places(NamedTuple):
    """Where in a host page states lie: counts of 1 GiB regions, and of 2 MiB; and what follows in bytes of the host.

    Those bytes belong to no guest, and no other figure has them. Not in them: what Dynamic PAMT has for control pages and
    tables of the S-EPT, whose place is not modelled; 1 GiB mappings, which there are none of (K7).

    Attributes:
        regions: 1 GiB of the host, also in part.
        snp_regions: of these, with a page that the RMP gives to a guest: there RMPOPT cannot skip checks (G84, C20).
        tdx_small_2m: 2 MiB of the host with a page that a TD maps at 4 KiB: Dynamic PAMT has 4 KiB entries for them (C22).
        blocks: 2 MiB of the host.
    """

    regions: int
    snp_regions: int
    tdx_small_2m: int
    blocks: int

    @property
    def snp_free_share(self) -> float:
        """Share of all 1 GiB regions, also beyond what RMPOPT covers, without a page of an SNP guest (Q14)."""
        return 1 - self.snp_regions / self.regions

    @property
    def rmp_bytes(self) -> int:
        """The RMP: an entry for each 4 KiB of the host, whoever has it (C18, C19)."""
        return self.blocks * PAMT_PAIR

    @property
    def pamt_bytes(self) -> int:
        """The PAMT, static: entries for each 4 KiB, 2 MiB and 1 GiB of the host (C21)."""
        return self.blocks * PAMT_PAIR + self._large_entries()

    @property
    def dynamic_pamt_bytes(self) -> int:
        """Dynamic PAMT: entries of 2 MiB and 1 GiB, a bit for each 4 KiB, and two pages for each 2 MiB mapped small (C22)."""
        return self._large_entries() + self.blocks * (BLOCK_PAGES // 8) + self.tdx_small_2m * PAMT_PAIR

    def _large_entries(self) -> int:
        return (self.blocks + self.regions) * STATE_ENTRY


def guest_code(name: str) -> int:
    """The core's code for guests of some hardware. UsageError for an unknown name."""
    if name not in GUESTS:
        raise UsageError("no such guests", key="guests", value=str(name), allowed=", ".join(GUESTS))
    return GUESTS[name]


def parse_flags(flags: int | None) -> tuple[bool, bool]:
    """Whether a guest_memfd of these flags can be mapped, and starts shared. InvalidArgument for flags that do not exist."""
    if flags is None:
        return True, False
    if not isinstance(flags, int):
        raise UsageError("not flags", key="flags", value=flags, allowed="None, MMAP (1), INIT_SHARED (2), or both (3)")
    if flags & ~(MMAP | INIT_SHARED):
        raise operation_error(errno.EINVAL, 0, f"create a guest_memfd with flags {flags:#x}")
    return bool(flags & MMAP), bool(flags & INIT_SHARED)


def places_in(state: State) -> Places:
    """Where page states lie; walks every page of memory that is not contiguous."""
    marks = np.zeros(-(-len(state.blocks) // GIGA_BLOCKS) * GIGA_BLOCKS, dtype=np.int64)
    places.mark_places(state, marks)
    memory = np.zeros_like(marks)
    memory[: len(state.blocks)] = state.blocks.kind != layout.HOLE
    regions, snp = (found.reshape(-1, GIGA_BLOCKS).any(axis=1).sum() for found in (memory, marks & places.SNP))
    small = int(np.count_nonzero(marks & places.TDX_SMALL))
    return Places(int(regions), int(snp), small, int(np.count_nonzero(memory)))


def note_rmpopt(state: State, regions: int, times: Sequence[int]) -> int:
    """Count what RMPOPT is asked once SNP guests have left: 10 s after the last of them, about every 1 GiB (G84, C20).

    Each leave in between puts it off. On how many CPUs it runs is not modelled.

    Args:
        state: of the host.
        regions: 1 GiB of it, of which RMPOPT covers the first 2048.
        times: at which SNP guests left, ascending, ns.

    Returns:
        How often.
    """
    rebuilds = sum(after - time > RMPOPT_DELAY for time, after in zip(times, [*times[1:], math.inf], strict=True))
    place = layout.TALLY_HARDWARE + counts.RMPOPT * layout.NR_PHASES + layout.PHASE_TEAR_DOWN
    state.tally[place] += rebuilds * min(regions, RMPOPT_REGIONS)
    return rebuilds


def operations_in(state: State) -> dict[str, dict[str, int]]:
    """What the hardware of all guests did: by operation, then by phase."""
    counted = state.tally[layout.TALLY_HARDWARE : layout.TALLY_HAZARD].reshape(-1, layout.NR_PHASES)
    return {name: dict(zip(PHASES, counted[code].tolist(), strict=True)) for name, code in OPERATIONS.items()}


def hazards_in(state: State) -> dict[str, dict[str, int]]:
    """What must not happen, and did: pages by kind (`HAZARDS`), then by the operation that led to it (`LED_BY`)."""
    counted = state.tally[layout.TALLY_HAZARD :].reshape(-1, layout.NR_OPS)
    led_by: dict[int, list[int]] = {code: np.flatnonzero(counted[code]).tolist() for code in HAZARDS.values()}
    return {name: {LED_BY[op]: int(counted[code, op]) for op in led_by[code]} for name, code in HAZARDS.items()}
