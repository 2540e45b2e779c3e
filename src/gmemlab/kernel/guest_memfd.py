"""guest_memfd on the running kernel: of an ordinary machine, or with private and shared memory from two sources."""

import errno
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from gmemlab.errors import NotFound, OperationError, UnsupportedError, operation_error
from gmemlab.kernel import abi
from gmemlab.kernel.anonymous import AnonymousMemory
from gmemlab.kernel.calls import MAP_SHARED, PROT_READ_WRITE, mmap_aligned
from gmemlab.kernel.files import LiveFile
from gmemlab.kernel.kvm import Vm, has_per_file_attributes, set_file_attributes
from gmemlab.kernel.memory import check_access, check_attribute, check_range, in_bytes
from gmemlab.protocol import Usage

MAPPABLE: Final = abi.FLAG_MMAP | abi.FLAG_INIT_SHARED


class GuestMemfd(LiveFile):
    """A guest_memfd. With the flag MMAP it is mapped; the host can touch it only where it is shared (G26).

    The kernel does not tell attributes, so they are kept here as the conversions that succeeded left them.

    Args:
        vm: the machine that it belongs to.
        size: bytes; numbers may be wrong on purpose.
        flags: of KVM_CREATE_GUEST_MEMFD.

    Raises:
        InvalidArgument: flags or a size that the kernel does not take (G11).
    """

    kind = "guest_memfd"

    def __init__(self, vm: Vm, size: int | str, flags: int = MAPPABLE) -> None:
        total = in_bytes(size)
        with self.errors(f"create {size} with flags {flags:#x}"):
            fd = vm.create_guest_memfd(total, flags)
        super().__init__(total, fd, 0)
        self.vm = vm
        self.flags = flags
        self._shared = bytearray((1 if flags & abi.FLAG_INIT_SHARED else 0,)) * (total // abi.PAGE)  # (G14)
        self._slots: dict[int, tuple[int, int, int]] = {}  # guest address, offset in the file, size
        if flags & abi.FLAG_MMAP:
            try:
                with self.errors(f"map {size}"):
                    self.address = mmap_aligned(total, abi.PMD, PROT_READ_WRITE, MAP_SHARED, fd)
            except OSError:
                self.close()
                raise

    def used(self) -> list[bool]:
        """As `LiveMemory.used`, of the pages that the host may read."""
        return [there and bool(shared) for there, shared in zip(super().used(), self._shared, strict=True)]

    def folio_sizes(self) -> Sequence[int]:
        """For each page, 4096 if it is there, else 0: folios are 4 KiB in every release so far (G34)."""
        return [abi.PAGE if there else 0 for there in self.present()]

    def shared(self) -> Sequence[int]:
        """For each page, 1 if it is shared."""
        return self._shared

    def bind(self, slot: int, address: int = 0, offset: int = 0, size: int | None = None, user: int = 0) -> None:
        """Make a range of the file, by default all of it, the memory of a memslot.

        Args:
            slot: its number in the machine.
            address: of the guest, bytes.
            offset: in the file, bytes.
            size: bytes, not 0.
            user: address of host memory for shared pages, where the file does not serve them (G31).

        Raises:
            OperationError: with the kernel's errno (G28 to G30).
        """
        length = self.size - offset if size is None else size
        what = f"bind {length} at {offset} to slot {slot}"
        if length == 0:  # would delete the slot
            raise operation_error(errno.EINVAL, 0, f"{what} ({self.kind})")
        with self.errors(what):
            self.vm.set_memory_region(slot, address, length, user, self.fd, offset)
        self._slots[slot] = (address, offset, length)

    def unbind(self, slot: int) -> None:
        """Delete a memslot.

        Raises:
            InvalidArgument: the machine has no such slot.
        """
        with self.errors(f"unbind slot {slot}"):
            self.vm.set_memory_region(slot, 0, 0, 0, -1, 0, 0)
        self._slots.pop(slot, None)

    def access(self, offset: int | str, size: int | str, by: str = "guest") -> None:
        """Touch a range: the host for writing, a guest by KVM_PRE_FAULT_MEMORY through the memslots.

        Args:
            offset: first byte.
            size: bytes.
            by: `guest` (private pages), `guest-shared`, or `host`.

        Raises:
            MemoryFault: a page has the other attribute (G39).
            NotFound: no memslot holds the page (G40).
            UnsupportedError: the kernel lacks KVM_PRE_FAULT_MEMORY.
            OperationError: as `write`, by the host.
        """
        check_access(by)
        start, length = in_bytes(offset), in_bytes(size)
        if by == "host":
            super().access(start, length, by)
            return
        what = f"access {size} at {offset} by {by} ({self.kind})"
        check_range(start, length, what)
        if start + length > self.size:
            raise operation_error(errno.EINVAL, 0, what)
        for first, count, shared in self._attribute_runs(start, length):
            done = first - start // abi.PAGE
            if bool(shared) != (by == "guest-shared"):
                raise operation_error(errno.EFAULT, done, what)
            self._guest_touch(first * abi.PAGE, count * abi.PAGE, done, what)

    def convert(self, offset: int | str, size: int | str, to: str) -> None:
        """Make a range `shared` or `private` in place (KVM_SET_MEMORY_ATTRIBUTES2); any numbers go to the kernel.

        Raises:
            TryAgain: a page is pinned or referenced (G45); `done` counts those before it, though none has changed (G46).
            InvalidArgument: the range, or a machine without private memory (G42).
            UnsupportedError: the kernel cannot convert in place.
        """
        check_attribute(to)
        start, length = in_bytes(offset), in_bytes(size)
        if not has_per_file_attributes(self.fd):
            raise UnsupportedError("KVM_SET_MEMORY_ATTRIBUTES2", "guest_memfd cannot be converted in place")
        number, at = set_file_attributes(self.fd, start, length, 0 if to == "shared" else abi.ATTRIBUTE_PRIVATE)
        if number:
            done = max(0, at - start) // abi.PAGE if number in (errno.EAGAIN, errno.ENOMEM) else 0
            raise operation_error(number, done, f"convert {size} at {offset} to {to} ({self.kind})")
        self._note_attribute(start, length, to)

    def _fault(self, offset: int) -> int:
        private = offset < self.size and not self._shared[offset // abi.PAGE]
        return errno.EACCES if private else super()._fault(offset)

    def _note_attribute(self, offset: int, size: int, to: str) -> None:
        first, end = offset // abi.PAGE, (offset + size) // abi.PAGE
        self._shared[first:end] = (b"\x01" if to == "shared" else b"\x00") * (end - first)

    def _attribute_runs(self, offset: int, size: int) -> Iterator[tuple[int, int, int]]:
        """First page, number of pages, attribute of each run of alike pages in a range."""
        first = offset // abi.PAGE
        for shared, pages in groupby(self._shared[first : first + size // abi.PAGE]):
            count = sum(1 for _ in pages)
            yield first, count, shared
            first += count

    def _guest_touch(self, offset: int, size: int, done: int, what: str) -> None:
        """Pre-fault a range of the file, through one memslot after the other."""
        end = offset + size
        while offset < end:
            slot = next((slot for slot in self._slots.values() if slot[1] <= offset < slot[1] + slot[2]), None)
            if slot is None:
                raise NotFound(errno.ENOENT, done, f"{what}: no memslot")
            address, start, length = slot
            part = min(end, start + length) - offset
            try:
                self.vm.pre_fault(address + offset - start, part)
            except OperationError as error:
                raise operation_error(error.errno or 0, done + error.done, what) from error
            offset += part
            done += part // abi.PAGE


class TwoSourceGuest(GuestMemfd):
    """Private memory in a guest_memfd, shared memory in an anonymous mapping, one memslot at guest address 0.

    All of it starts private. Conversions are KVM_SET_MEMORY_ATTRIBUTES, which frees nothing: discarding the other side is
    left to whoever plays the VMM (K12): `punch_hole` discards private memory, that of `shared_side` the shared one.

    Args:
        vm: a machine of a type that has private memory, and no slot 0 yet.
        size: bytes.

    Raises:
        UnsupportedError: the kernel has no memory attributes for the machine.
        InvalidArgument: a size that the kernel does not take.
    """

    kind = "two sources"

    def __init__(self, vm: Vm, size: int | str) -> None:
        if not vm.capability("KVM_CAP_MEMORY_ATTRIBUTES") & abi.ATTRIBUTE_PRIVATE:
            raise UnsupportedError("KVM_CAP_MEMORY_ATTRIBUTES", f"absent for machines of type {vm.kind}")
        super().__init__(vm, size, 0)
        try:
            self.shared_side = AnonymousMemory(self.size)
            self.bind(0, user=self.shared_side.address)
            self.convert(0, self.size, "private")
        except BaseException:
            self.close()
            raise

    def access(self, offset: int | str, size: int | str, by: str = "guest") -> None:
        """Touch a range: private memory as the guest, shared memory as the guest or the host.

        Args:
            offset: first byte.
            size: bytes.
            by: `guest` (private pages), `guest-shared`, or `host`.

        Raises:
            MemoryFault: the guest finds the other attribute (G39).
            HostAccessFault: the host finds a private page.
            UnsupportedError: the kernel lacks KVM_PRE_FAULT_MEMORY.
        """
        if by != "host":
            super().access(offset, size, by)
            return
        start, length = in_bytes(offset), in_bytes(size)
        what = f"access {size} at {offset} by {by} ({self.kind})"
        check_range(start, length, what)
        done = self._shared_before(start, length)
        if done:
            self.shared_side.access(start, done * abi.PAGE, by)
        if done < length // abi.PAGE:
            raise operation_error(errno.EACCES, done, what)

    def convert(self, offset: int | str, size: int | str, to: str) -> None:
        """Make a range `shared` or `private` (KVM_SET_MEMORY_ATTRIBUTES); any numbers go to the kernel.

        Raises:
            OperationError: with the kernel's errno (G38).
        """
        check_attribute(to)
        start, length = in_bytes(offset), in_bytes(size)
        with self.errors(f"convert {size} at {offset} to {to}"):
            self.vm.set_attributes(start, length, abi.ATTRIBUTE_PRIVATE if to == "private" else 0)
        # The kernel takes ranges without a memslot too (facts on the live kernel, section 7).
        self._note_attribute(start, max(0, min(start + length, self.size) - start), to)

    def pin(self, offset: int | str, size: int | str) -> None:
        """Pin a range of shared memory.

        Raises:
            MemoryFault: a page is private, which nothing can pin (K3); those before it are faulted in.
        """
        start, length = in_bytes(offset), in_bytes(size)
        what = f"pin {size} at {offset} ({self.kind})"
        check_range(start, length, what)
        done = self._shared_before(start, length)
        if done < length // abi.PAGE:
            if done:
                self.shared_side.access(start, done * abi.PAGE)
            raise operation_error(errno.EFAULT, done, what)
        self.shared_side.pin(start, length)

    def unpin(self, offset: int | str, size: int | str) -> None:
        """Undo the newest `pin` of exactly this range.

        Raises:
            InvalidArgument: there is none.
        """
        self.shared_side.unpin(offset, size)

    def usage(self) -> Usage:
        """Where the memory is, on both sides; what the guest maps is not to be seen.

        Raises:
            UnsupportedError: not root, so that folios cannot be seen.
        """
        private, shared = self.present(), self.shared_side.present()
        twice = sum(one and other for one, other in zip(private, shared, strict=True))
        other = self.shared_side.usage()
        attribute = sum(self._shared) * abi.PAGE
        return Usage(self.size, sum(private) * abi.PAGE, other.charged, attribute, 0, 0, 0, twice * abi.PAGE)

    def close_file(self) -> None:
        """Delete the memslot, then close both sides."""
        for slot in list(self._slots):
            self.unbind(slot)
        if hasattr(self, "shared_side"):
            self.shared_side.close()
        super().close_file()

    def _guest_touch(self, offset: int, size: int, done: int, what: str) -> None:
        # A pre-fault reads, which maps shared memory that is not there as zeros without backing it: the guest writes.
        if self._shared[offset // abi.PAGE]:
            self.shared_side.access(offset, size)
        super()._guest_touch(offset, size, done, what)

    def _shared_before(self, offset: int, size: int) -> int:
        """How many pages of a range come before the first private one, or the end."""
        for first, count, shared in self._attribute_runs(offset, size):
            return count if shared and first == offset // abi.PAGE else 0
        return 0
