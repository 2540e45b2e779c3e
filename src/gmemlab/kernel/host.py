"""The running kernel as a host: the words of `model.host.Host`, for real memory."""

from types import TracebackType
from typing import Self, TypeVar

from gmemlab.kernel import abi
from gmemlab.kernel.anonymous import AnonymousMemory
from gmemlab.kernel.files import HugetlbMemory, ShmemMemory
from gmemlab.kernel.guest_memfd import MAPPABLE, GuestMemfd, TwoSourceGuest
from gmemlab.kernel.kvm import Vm
from gmemlab.kernel.memory import LiveMemory

_Memory = TypeVar("_Memory", bound=LiveMemory)


class LiveHost:
    """Makes memory objects, and closes those that are still open when it is left.

    >>> with LiveHost() as host:
    ...     memory = host.shmem("4M")
    ...     memory.allocate(0, "2M")
    ...     memory.usage().charged >> 20
    2
    """

    def __init__(self) -> None:
        """Nothing is opened before it is asked for."""
        self._machines: dict[int, Vm] = {}
        self._own_machines: list[Vm] = []
        self._made: list[LiveMemory] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def guest_memfd(self, size: int | str, flags: int = MAPPABLE, vm_type: int = abi.VM_DEFAULT) -> GuestMemfd:
        """A guest_memfd, by default of an ordinary machine and one that the host can map (G8); bound to no memslot.

        Args:
            size: bytes.
            flags: of KVM_CREATE_GUEST_MEMFD.
            vm_type: of the machine, which all files of this host with the same type share.

        Raises:
            UnsupportedError: no KVM, no guest_memfd, or no such type of machine.
            InvalidArgument: flags or a size that the kernel does not take.
        """
        return self._keep(GuestMemfd(self.machine(vm_type), size, flags))

    def two_source_guest(self, size: int | str) -> TwoSourceGuest:
        """Private memory beside shared memory, in a machine of its own, of type SW_PROTECTED.

        Raises:
            UnsupportedError: the kernel has no such machines, or no memory attributes.
        """
        vm = Vm(abi.VM_SW_PROTECTED)
        self._own_machines.append(vm)
        return self._keep(TwoSourceGuest(vm, size))

    def shmem(self, size: int | str) -> ShmemMemory:
        """A memfd of shmem."""
        return self._keep(ShmemMemory(size))

    def hugetlb(self, size: int | str, page: int | str = "2M") -> HugetlbMemory:
        """A memfd of hugetlb pages of 2M or 1G.

        Raises:
            UnsupportedError: the kernel has no such pages.
        """
        return self._keep(HugetlbMemory(size, page))

    def anonymous(self, size: int | str) -> AnonymousMemory:
        """An anonymous mapping."""
        return self._keep(AnonymousMemory(size))

    def machine(self, kind: int) -> Vm:
        """The virtual machine of a type, made on first use.

        Raises:
            UnsupportedError: no KVM, no guest_memfd, or no such type.
        """
        if kind not in self._machines:
            self._machines[kind] = Vm(kind)
        return self._machines[kind]

    def close(self) -> None:
        """Close everything that was made here; harmless when done twice."""
        for memory in self._made:
            memory.close()
        for machine in (*self._machines.values(), *self._own_machines):
            machine.close()
        self._made.clear()
        self._machines.clear()
        self._own_machines.clear()

    def _keep(self, memory: _Memory) -> _Memory:
        self._made = [other for other in self._made if not other.closed]
        self._made.append(memory)
        return memory
