"""What the hardware of a guest makes of an access, in the oracle."""

import oracle_snp as snp
import oracle_tdx as tdx
from gmemlab.core.layout import ACCEPT_2M, ACCEPT_4K, GUEST_SNP, GUEST_TDX
from oracle_files import File


def touch_block(file: File, pages: list[int], accept: int, counters: dict[str, int]) -> None:
    """What the hardware makes of an access to pages of one block."""
    if file.guest == GUEST_SNP:
        snp.access(file, pages, accept, counters)
    elif file.guest == GUEST_TDX:
        tdx.access(file, pages, accept, counters)


def ask_for_accepts(file: File, first: int, end: int, accept: int) -> None:
    """Before it accepts pages, an SNP guest asks for their state; those in front of the first shared one."""
    stop = min([index for index in range(first, end) if index in file.shared], default=end)
    if file.guest == GUEST_SNP and accept in (ACCEPT_4K, ACCEPT_2M):
        snp.request_accepts(file, first, stop, accept)
