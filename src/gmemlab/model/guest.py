"""A file of guest memory in the model: the object API over the core's operations."""

import errno
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final

import numpy as np

from gmemlab.core import execute, layout, measure
from gmemlab.core.layout import PAGE_SIZE
from gmemlab.core.sample import MEASURE_GUESTS
from gmemlab.errors import UsageError, operation_error
from gmemlab.model.nodes import parse_nodes
from gmemlab.model.observe import file_pages
from gmemlab.policy import Policy
from gmemlab.protocol import Extent, Usage
from gmemlab.units import format_size, parse_size

if TYPE_CHECKING:
    from gmemlab.model.host import Host

LARGEST_OFFSET: Final = (1 << 63) - 1  # of a loff_t
_ACCESS: Final = {"guest": layout.PRIVATE, "guest-shared": layout.SHARED, "host": layout.HOST}
_ACCEPT: Final = {
    None: layout.TOUCH,
    "4K": layout.ACCEPT_4K,
    "2M": layout.ACCEPT_2M,
    "launch": layout.ACCEPT_LAUNCH,
    "launch-in-place": layout.ACCEPT_IN_PLACE,
}
TERMS: Final = {
    layout.TERM_NONE: "nothing: 2M",
    layout.TERM_ABSENT: "no backing",
    layout.TERM_FOLIO: "folio smaller than 2M",
    layout.TERM_SLOT: "the aligned 2M range leaves the memslot",
    layout.TERM_CONGRUENCE: "guest address and file offset differ modulo 2M",
    layout.TERM_ATTRIBUTES: "private and shared pages in the 2M",
    layout.TERM_HISTORY: "in 4K entries of RMP or S-EPT before, and never left the guest as a whole since",
    layout.TERM_ACCEPT: "the guest accepts in 4K",
    layout.TERM_INHIBIT: "a 4K accept forbade 2M here",
    layout.TERM_SHARED: "the page is shared",
}


class GuestMemory:
    """Memory of one guest in the model; satisfies `protocol.GuestMemory`.

    Offsets and sizes are bytes, as numbers or as text (`"64M"`). Operations raise `OperationError` with the errno that the
    kernel would give and the pages that were done.
    """

    def __init__(self, host: "Host", file: int, size: int, policy: Policy) -> None:
        self._host = host
        self._file: int | None = file
        self.size = size
        self.policy = policy
        self.mappable = True

    def __enter__(self) -> "GuestMemory":
        """Use the memory in a `with` block."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Give everything back."""
        self.close()

    @property
    def file(self) -> int:
        """The core's number of this file. UsageError once it is closed."""
        if self._file is None:
            raise UsageError("this memory is closed")
        return self._file

    def allocate(self, offset: int | str = 0, size: int | str | None = None) -> None:
        """Back a range, by default all of it (fallocate; G17 to G21)."""
        self._run(layout.OP_ALLOCATE, offset, self.size if size is None else size)

    def reserve(self, offset: int | str = 0, size: int | str | None = None) -> None:
        """Promise a range, by default all of it: what a shared mmap does to hugetlb memory (L19).

        What is promised already or present costs nothing; the rest is promised as a whole, or OutOfMemory. `close` ends it.

        Args:
            offset: first byte, a multiple of the huge page size.
            size: bytes, rounded up to huge pages. InvalidArgument beyond the end: unlike the kernel's, the file does not grow.
                NotSupported for memory that is not hugetlb.
        """
        self._run(layout.OP_RESERVE, offset, self.size if size is None else size)

    def punch_hole(self, offset: int | str, size: int | str) -> None:
        """Give a range back by the policy's rule (G22, G60, G66, G69)."""
        self._run(layout.OP_PUNCH, offset, size)

    def collapse(self, offset: int | str = 0, size: int | str | None = None) -> None:
        """Make every aligned 2M of a range one folio (MADV_COLLAPSE, L15): ordinary memory only, holes become zero pages.

        Raises:
            InvalidArgument: nothing there, no whole 2M in the range, or memory that has no such operation.
            TryAgain: a page is pinned.
            OutOfMemory: no free 2M page.
        """
        self._run(layout.OP_COLLAPSE, offset, self.size if size is None else size)

    def free_lazily(self, offset: int | str, size: int | str) -> None:
        """Say that the contents of a range are not needed (MADV_FREE, L16): anonymous folios covered in part are split."""
        self._run(layout.OP_FREE_LAZILY, offset, size)

    def split_deferred(self, max_ptes_none: int = 511) -> None:
        """Do what the deferred-split shrinker does: split folios that are mapped in part, and free their rest (L16).

        Of shmem whose policy has `zero_scan`: split huge pages with zeros, and free those (T4). Where memory is short it comes
        by itself, with the host's max_ptes_none; here it is done to this memory alone, all of it at once.

        Args:
            max_ptes_none: of khugepaged. Huge pages that the shrinker sees for the first time are split, too, if more than so
                many of their pages were never written; 511 leaves them alone (L17).

        Raises:
            InvalidArgument: not 0 to 511.
        """
        self._run(layout.OP_SPLIT_DEFERRED, 0, self.size, max_ptes_none)

    def access(self, offset: int | str, size: int | str, by: str = "guest", accept: str | None = None) -> None:
        """Touch a range for writing.

        Args:
            offset: first byte.
            size: bytes.
            by: `guest` (private), `guest-shared` or `host`. MemoryFault if the attribute differs, HostAccessFault (SIGBUS) if
                the host touches private memory or beyond the end, ENODEV if the file was created without MMAP (G25),
                PoolExhausted (SIGBUS) if hugetlb memory finds no page that is promised to it or to nobody (L19).
            accept: `4K` or `2M` if the guest accepts the memory with this size (G79), else it just touches it; `launch` if its
                VMM puts it there before it runs: SNP_LAUNCH_UPDATE, TDH.MEM.PAGE.ADD; `launch-in-place` if it wrote the pages
                while they were shared (a NULL source, G52).
        """
        if by not in _ACCESS:
            raise UsageError("no such kind of access", key="by", value=by, allowed=", ".join(_ACCESS))
        if accept not in _ACCEPT:
            raise UsageError("no such accept size", key="accept", value=str(accept), allowed=", ".join(filter(None, _ACCEPT)))
        if by == "host":
            self._check_mappable()
        self._run(layout.OP_ACCESS, offset, size, _ACCESS[by] + 4 * _ACCEPT[accept])

    def ready(self) -> None:
        """The guest is up: what its hardware does from here on counts as running, no longer as boot."""
        execute.execute(self._host.state, layout.OP_READY, self.file, 0, 0, 0)

    def convert(self, offset: int | str, size: int | str, to: str) -> None:
        """Make a range `shared` or `private`. TryAgain (EAGAIN) where a busy folio is in the way (G45, K4)."""
        if to not in ("shared", "private"):
            raise UsageError("no such attribute", key="to", value=to, allowed="shared, private")
        self._run(layout.OP_TO_SHARED if to == "shared" else layout.OP_TO_PRIVATE, offset, size)

    def pin(self, offset: int | str, size: int | str, long_term: bool = True) -> None:
        """Pin a range, which faults its pages in. MemoryFault for private pages (K3, G25).

        For long, as passthrough (VFIO) and registered buffers do (FOLL_LONGTERM), pages in CMA or ZONE_MOVABLE move elsewhere
        first, and what is faulted in is not movable. OutOfMemory where something there cannot move, as guest_memfd from a pool
        and what others hold; NotSupported for hugetlb memory there, whose move the model has not. Without `long_term`, for the
        time of one I/O, all stays where it is.
        """
        self._check_mappable()
        self._run(layout.OP_PIN, offset, size, 0 if long_term else layout.PIN_SHORT)

    def unpin(self, offset: int | str, size: int | str) -> None:
        """Undo one `pin` of exactly this range, also if its pages left the file since."""
        self._run(layout.OP_UNPIN, offset, size)

    def reference(self, offset: int | str, size: int | str) -> None:
        """Take a transient reference, as isolation or a concurrent fault does (K3, K24)."""
        self._run(layout.OP_REFERENCE, offset, size)

    def unreference(self, offset: int | str, size: int | str) -> None:
        """Undo one `reference` of exactly this range."""
        self._run(layout.OP_UNREFERENCE, offset, size)

    def set_nodes(self, nodes: str) -> None:
        """Give all of the file another NUMA policy (mbind): what is allocated from now on obeys it, nothing moves (G53).

        Raises:
            UsageError: no such policy, or nodes that the host has not.
        """
        state = self._host.state
        mode, allowed = parse_nodes(nodes, self._host.nr_nodes)
        execute.bind_nodes(state, self.file, mode, allowed, int(state.files[self.file].home))

    def nodes(self) -> list[int]:
        """Bytes of this memory on each node, the ordinary memory beside a two-source guest not among them. Walks every page."""
        state = self._host.state
        found = [0] * self._host.nr_nodes
        for page in file_pages(state, self.file):
            if page.pfn:
                found[int(state.zones[int(state.blocks[page.pfn // layout.BLOCK_PAGES].zone)].node)] += PAGE_SIZE
        return found

    def usage(self) -> Usage:
        """Where the memory is."""
        out = np.zeros(1, MEASURE_GUESTS).view(np.recarray)
        measure.measure_one(self._host.state, self.file, out)
        row = out[0]
        return Usage(
            size=self.size,
            charged=int(row.charged) * PAGE_SIZE,
            shared_side=int(row.charged_shared_side) * PAGE_SIZE,
            shared=int(row.shared_pages) * PAGE_SIZE,
            mapped_2m=int(row.private_mapped_2m) * PAGE_SIZE,
            mapped_4k=int(row.private_mapped_4k) * PAGE_SIZE,
            stranded=int(row.stranded) * PAGE_SIZE,
            backed_twice=int(row.backed_twice) * PAGE_SIZE,
        )

    def layout(self) -> list[Extent]:
        """The folios, as runs of alike pages. Walks every page."""
        extents: list[Extent] = []
        for (order, shared), run in groupby(
            file_pages(self._host.state, self.file), key=lambda page: (page.order, page.shared)
        ):
            pages = list(run)
            folio = PAGE_SIZE << order if order >= 0 else 0
            extents.append(Extent(pages[0].page * PAGE_SIZE, len(pages) * PAGE_SIZE, folio, bool(shared)))
        return extents

    def host_mapped(self) -> list[tuple[int, int]]:
        """What the VMM maps of this memory, as (offset, bytes): shared pages that it touched since they became shared.

        A conversion to private takes them away, even one that fails with TryAgain, and the next touch faults them back (G45,
        G46). Of two-source guests nothing: their shared memory is ordinary memory beside this file. Walks every page.
        """
        pages = [page.page for page in file_pages(self._host.state, self.file) if page.host_mapped]
        runs = (list(run) for _, run in groupby(enumerate(pages), key=lambda pair: pair[1] - pair[0]))
        return [(run[0][1] * PAGE_SIZE, len(run) * PAGE_SIZE) for run in runs]

    def limit(self, offset: int | str) -> str:
        """What keeps the page at `offset` from being mapped at 2M as private memory: the first term of K8 that fails."""
        return TERMS[measure.limit(self._host.state, self.file, self._page_at(offset))]

    def limit_of_shared(self, offset: int | str) -> str:
        """The same of shared memory, by what serves it: this file in place, else the memory beside it (K9)."""
        return TERMS[measure.limit_of_shared(self._host.state, self.file, self._page_at(offset))]

    def _page_at(self, offset: int | str) -> int:
        place = _bytes(offset)
        if not 0 <= place < self.size:
            raise UsageError("not an offset in this memory", key="offset", value=str(offset), allowed=f"0 to {self.size - 1}")
        return place // PAGE_SIZE

    def bind(self, slots: Sequence[tuple[int, int, int]]) -> None:
        """Set the memslots: (guest address, size, file offset) in bytes, at most four (K10). UsageError if they overlap."""
        if len(slots) > layout.MAX_SLOTS:
            raise UsageError(f"{len(slots)} memslots", allowed=f"at most {layout.MAX_SLOTS}")
        rows = sorted((offset, size, address) for address, size, offset in slots)
        for (offset, size, _), after in zip(rows, [*rows[1:], (self.size, 0, 0)], strict=True):
            if offset < 0 or size <= 0 or offset % PAGE_SIZE or size % PAGE_SIZE or offset + size > after[0]:
                raise UsageError(
                    f"memslot of {format_size(size)} at file offset {offset}",
                    allowed="page-aligned ranges within the file that do not overlap",
                )
        for k in range(layout.MAX_SLOTS):
            offset, size, address = rows[k] if k < len(rows) else (0, 0, 0)
            execute.bind(self._host.state, self.file, k, address // PAGE_SIZE, size // PAGE_SIZE, offset // PAGE_SIZE)

    def close(self) -> None:
        """Give everything back; harmless when done twice."""
        if self._file is not None:
            execute.execute(self._host.state, layout.OP_DESTROY, self._file, 0, 0, 0)
            self._file = None

    def _check_mappable(self) -> None:
        if not self.mappable:
            raise operation_error(errno.ENODEV, 0, "map a guest_memfd that was created without MMAP")

    def _run(self, op: int, offset: int | str, size: int | str, arg: int = 0) -> None:
        start, length = _bytes(offset), _bytes(size)
        what = f"{_NAMES[op]} {size} at {offset} ({self.policy.name})"
        _check(op, start, length, what)
        first, count = start // PAGE_SIZE, length // PAGE_SIZE
        error, done = execute.execute(self._host.state, op, self.file, first, count, arg)
        self._host.check_capacity()
        if error:
            raise operation_error(error, done, what)


def _bytes(value: int | str) -> int:
    return value if isinstance(value, int) else parse_size(value)


def _check(op: int, offset: int, size: int, what: str) -> None:
    """Refuse a range whose bytes are wrong, in the kernel's order (L2); conversions know EINVAL only (G42)."""
    if offset < 0 or size <= 0:
        raise operation_error(errno.EINVAL, 0, what)
    if offset + size > LARGEST_OFFSET:
        raise operation_error(_TOO_BIG.get(op, errno.EFBIG), 0, what)
    if (offset | size) % PAGE_SIZE:
        raise operation_error(errno.EINVAL, 0, f"{what}: not a multiple of 4K")


_TOO_BIG: Final = {layout.OP_TO_SHARED: errno.EINVAL, layout.OP_TO_PRIVATE: errno.EINVAL, layout.OP_RESERVE: errno.EOVERFLOW}
_NAMES: Final = {
    layout.OP_RESERVE: "reserve",
    layout.OP_COLLAPSE: "collapse",
    layout.OP_FREE_LAZILY: "free lazily",
    layout.OP_SPLIT_DEFERRED: "split deferred",
    layout.OP_ALLOCATE: "allocate",
    layout.OP_PUNCH: "punch",
    layout.OP_ACCESS: "access",
    layout.OP_TO_SHARED: "convert to shared",
    layout.OP_TO_PRIVATE: "convert to private",
    layout.OP_PIN: "pin",
    layout.OP_UNPIN: "unpin",
    layout.OP_REFERENCE: "reference",
    layout.OP_UNREFERENCE: "unreference",
}
