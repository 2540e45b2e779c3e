"""What `conform` and `calibrate` need of the running kernel: each facility is tried, as no number tells for sure."""

from collections.abc import Callable, Mapping
from typing import Final

from gmemlab.errors import GmemlabError, UnsupportedError
from gmemlab.kernel.abi import PAGE
from gmemlab.kernel.host import LiveHost
from gmemlab.kernel.kvm import has_per_file_attributes
from gmemlab.kernel.observe.thp_stats import thp_sizes
from gmemlab.kernel.observe.tracing import Trace

_ONE_EVENT: Final = ("kmem:mm_page_alloc",)
_BUFFER: Final = 1 << 16  # bytes per CPU


def facilities() -> Mapping[str, str]:
    """By name: "" where the facility works, else why it does not, in one line."""
    found = {}
    for name, attempt in _ATTEMPTS.items():
        try:
            with LiveHost() as host:
                attempt(host)
            found[name] = ""
        except GmemlabError as error:
            found[name] = str(error)
    return found


def _private_memory(host: LiveHost) -> None:
    host.two_source_guest(PAGE)


def _in_place_conversion(host: LiveHost) -> None:
    if not has_per_file_attributes(host.guest_memfd(PAGE, 0).fd):
        raise UnsupportedError("KVM_SET_MEMORY_ATTRIBUTES2", "this kernel lacks it, or kvm.gmem_in_place_conversion is off")


def _pins(host: LiveHost) -> None:
    host.anonymous(PAGE).pin(0, PAGE)


def _page_presence(host: LiveHost) -> None:
    host.shmem(PAGE).present()


def _folios(host: LiveHost) -> None:
    memory = host.anonymous(PAGE)
    memory.access(0, PAGE)
    memory.layout()


def _huge_page_counters(host: LiveHost) -> None:
    if not thp_sizes():
        raise UnsupportedError("/sys/kernel/mm/transparent_hugepage/hugepages-*/stats", "this kernel lacks it (6.9)")


def _traces(host: LiveHost) -> None:
    with Trace(_ONE_EVENT, buffer=_BUFFER):
        pass


_ATTEMPTS: Final[Mapping[str, Callable[[LiveHost], None]]] = {
    "two-source guests": _private_memory,
    "in-place conversion": _in_place_conversion,
    "pins (io_uring)": _pins,
    "page presence (cachestat)": _page_presence,
    "folios (pagemap)": _folios,
    "huge page counters": _huge_page_counters,
    "traces (tracefs)": _traces,
}
