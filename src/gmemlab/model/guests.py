"""What hardware a guest has: names, and the core's codes."""

import errno
from typing import Final, NamedTuple

import numpy as np

from gmemlab.core import layout
from gmemlab.core.hardware import counts, places
from gmemlab.core.layout import GIGA_BLOCKS
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


class Places(NamedTuple):
    """Where in a host page states lie: counts of 1 GiB regions, and of 2 MiB.

    Attributes:
        regions: 1 GiB of the host, also in part.
        snp_regions: of these, with a page that the RMP gives to a guest: there RMPOPT cannot skip checks (G84, C20).
        tdx_small_2m: 2 MiB of the host with a page that a TD maps at 4 KiB: Dynamic PAMT has 4 KiB entries for them (C22).
    """

    regions: int
    snp_regions: int
    tdx_small_2m: int


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
    return Places(int(regions), int(snp), int(np.count_nonzero(marks & places.TDX_SMALL)))


def operations_in(state: State) -> dict[str, dict[str, int]]:
    """What the hardware of all guests did: by operation, then by phase."""
    counted = state.tally[layout.TALLY_HARDWARE :].reshape(-1, layout.NR_PHASES)
    return {name: dict(zip(PHASES, counted[code].tolist(), strict=True)) for name, code in OPERATIONS.items()}
