"""Which operations of the hardware are counted: by kind, size and phase of the guest's life."""

from typing import Final

from gmemlab.core import layout
from gmemlab.core.jit import jit
from gmemlab.core.layout import NR_PHASES, TALLY_HARDWARE
from gmemlab.core.state import State

# SNP (AMD64 APM volume 2, "Secure Nested Paging"; Linux: arch/x86/virt/svm/sev.c, arch/x86/kvm/svm/sev.c)
RMPUPDATE_PRIVATE_4K: Final = 0
RMPUPDATE_PRIVATE_2M: Final = 1
RMPUPDATE_SHARED_4K: Final = 2
RMPUPDATE_SHARED_2M: Final = 3
PSMASH: Final = 4
PVALIDATE_4K: Final = 5
PVALIDATE_2M: Final = 6
RESCIND_4K: Final = 7  # PVALIDATE that takes the validation back
RESCIND_2M: Final = 8
SIZE_MISMATCH: Final = 9  # PVALIDATE of 2 MiB that the nested table maps at 4 KiB (W22)
RMP_FAULT: Final = 10  # an access at 4 KiB to a 2 MiB entry (G83)
PSC_REQUEST: Final = 11  # page-state changes that a guest asks for, W21 at a time
PSC_ENTRY: Final = 12
LAUNCH_UPDATE: Final = 13  # 4 KiB pages of the launch image, from a source (G52)
# TDX (Linux: arch/x86/kvm/vmx/tdx.c, and the series TDX3)
PAGE_ADD: Final = 14
AUG_4K: Final = 15
AUG_2M: Final = 16
ACCEPT_4K: Final = 17
ACCEPT_2M: Final = 18
ACCEPT_MISMATCH: Final = 19  # an accept of 2 MiB that the S-EPT maps at 4 KiB: the guest tries again with 4 KiB (G79)
RANGE_BLOCK: Final = 20
TRACK: Final = 21
DEMOTE: Final = 22
REMOVE_4K: Final = 23  # and cleared (K17)
REMOVE_2M: Final = 24
MAP_GPA: Final = 25  # conversions that the guest asks for
# both, and guests of no such hardware
FAULT_4K: Final = 26  # private faults of the guest
FAULT_2M: Final = 27
REFAULT: Final = 28  # pages in use that lost their mapping beside what was punched or converted, and fault back
DIRECT_MAP_2M: Final = 29  # 2 MiB of the kernel's own mapping that a 4 KiB RMPUPDATE split, for good (K11)
DIRECT_MAP_1G: Final = 30
RMPOPT: Final = 33  # 1 GiB of the host that the kernel asks RMPOPT about anew (G84); counted where time is known
HOST_FAULT: Final = 34  # shared pages that the VMM faulted in (`hostmap`)
HOST_UNMAP: Final = 35  # that its mapping lost: to a conversion, to a punch, or as the file went
PAGE_MOVE_4K: Final = 36  # SNP_PAGE_MOVE, TDH.MEM.PAGE.RELOCATE: no kernel does it (K16, G87)
PAGE_MOVE_2M: Final = 37
LAUNCH_IN_PLACE: Final = 38  # 4 KiB pages of an SNP launch image that the VMM wrote where they are (G52)
PAGE_ADD_IN_PLACE: Final = 39  # the same of a TD
CLEAR_4K: Final = 40  # pages of guest_memfd that the kernel clears at their first use (G27)
CLEAR_2M: Final = 41
CONVERT: Final = 42  # calls of KVM_SET_MEMORY_ATTRIBUTES that have something to change, whatever their range
CONVERT_PAGE: Final = 43  # pages of them whose attribute is stored one by one: KVM's own; in place it is a range (C16, G44)
# what must not happen
UNACCEPTED: Final = 31  # pages that the guest touched without accepting them: #VC or #VE
HOST_WRITE: Final = 32  # private pages that the kernel zeroed (K1, T9): RMP fault, or poisoned memory


@jit
def note(state: State, file: int, operation: int, count: int) -> None:
    """Count what was done for a guest, in the phase that it is in."""
    state.tally[TALLY_HARDWARE + operation * NR_PHASES + int(state.files[file].phase)] += count


@jit
def note_hazard(state: State, hazard: int, pages: int) -> None:
    """Count what must not happen (HAZARD_*), for the operation that is carried out."""
    state.tally[layout.TALLY_HAZARD + hazard * layout.NR_OPS + int(state.host[0].operation)] += pages
