"""What hardware a guest has: names, and the core's codes."""

from typing import Final, NamedTuple

from gmemlab.core import layout
from gmemlab.core.hardware import counts
from gmemlab.errors import UsageError

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
