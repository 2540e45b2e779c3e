"""Numbers and layouts of the kernel's interfaces that concern guest memory.

Encoded as `include/uapi/asm-generic/ioctl.h` does, so for x86 and arm64. Rows G1 to G8 are of the facts on guest_memfd.
"""

from struct import Struct
from typing import Final

PAGE: Final = 4096
PMD: Final = 2 << 20  # x86: the size of a huge page that one second-level entry maps
LARGEST_OFFSET: Final = (1 << 63) - 1  # of a loff_t

# -- KVM (include/uapi/linux/kvm.h) ------------------------------------------------------------------------------------------
CREATE_VM: Final = 0xAE01
CHECK_EXTENSION: Final = 0xAE03
CREATE_VCPU: Final = 0xAE41
SET_USER_MEMORY_REGION2: Final = 0x40A0AE49  # G2
SET_MEMORY_ATTRIBUTES: Final = 0x4020AED2  # on the VM (G3)
SET_MEMORY_ATTRIBUTES2: Final = 0xC080AED2  # on the guest_memfd (G5)
CREATE_GUEST_MEMFD: Final = 0xC040AED4  # G1
PRE_FAULT_MEMORY: Final = 0xC040AED5  # on a vCPU (G4)

GUEST_MEMFD: Final = Struct("<Q Q 6Q")  # size, flags, reserved
MEMORY_REGION2: Final = Struct("<I I Q Q Q Q I I 112x")  # slot, flags, guest address, size, user address, file offset, file
MEMORY_ATTRIBUTES: Final = Struct("<Q Q Q Q")  # address, size, attributes, flags
MEMORY_ATTRIBUTES2: Final = Struct("<Q Q Q Q Q 88x")  # offset, size, attributes, flags, error_offset; reserved
PRE_FAULT: Final = Struct("<Q Q Q 40x")  # guest address, size, flags; padding

MEM_LOG_DIRTY_PAGES: Final = 1 << 0
MEM_READONLY: Final = 1 << 1
MEM_GUEST_MEMFD: Final = 1 << 2  # KVM_MEM_GUEST_MEMFD: the slot has private memory
ATTRIBUTE_PRIVATE: Final = 1 << 3  # KVM_MEMORY_ATTRIBUTE_PRIVATE
FLAG_MMAP: Final = 1  # of KVM_CREATE_GUEST_MEMFD (G8)
FLAG_INIT_SHARED: Final = 2
VM_DEFAULT: Final = 0
VM_SW_PROTECTED: Final = 1

# -- fallocate (include/uapi/linux/falloc.h) ---------------------------------------------------------------------------------
KEEP_SIZE: Final = 1
PUNCH_HOLE: Final = 2

# -- madvise (include/uapi/asm-generic/mman-common.h) ------------------------------------------------------------------------
MADV_DONTNEED: Final = 4
MADV_FREE: Final = 8
MADV_REMOVE: Final = 9
MADV_HUGEPAGE: Final = 14
MADV_NOHUGEPAGE: Final = 15
MADV_POPULATE_READ: Final = 22
MADV_POPULATE_WRITE: Final = 23
MADV_COLLAPSE: Final = 25

# -- memfd_create (include/uapi/linux/memfd.h) -------------------------------------------------------------------------------
MFD_CLOEXEC: Final = 1
MFD_HUGETLB: Final = 4
MFD_HUGE_SHIFT: Final = 26  # log2 of the page size goes here

# -- io_uring (include/uapi/linux/io_uring.h) --------------------------------------------------------------------------------
SYS_IO_URING_SETUP: Final = 425
SYS_IO_URING_REGISTER: Final = 427
IO_URING_PARAMS: Final = 120  # bytes of struct io_uring_params
REGISTER_BUFFERS: Final = 0
UNREGISTER_BUFFERS: Final = 1
