"""What memory of a guest can do, in the model and on a live kernel alike: a procedure written against it runs in both."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Usage:
    """Where a file's memory is. Bytes throughout.

    Attributes:
        size: of the file.
        charged: frames that it holds.
        shared_side: frames of the ordinary memory beside a two-source guest.
        shared: pages with the attribute shared.
        mapped_2m: private memory that the guest maps with 2M entries.
        mapped_4k: private memory that the guest maps with 4K entries.
        stranded: charged though punched, or holes of shmem that a collapse filled with zeros.
        backed_twice: guest pages that have a frame on both sides.
    """

    size: int
    charged: int
    shared_side: int
    shared: int
    mapped_2m: int
    mapped_4k: int
    stranded: int
    backed_twice: int


@dataclass(frozen=True)
class Extent:
    """A run of pages of one file that are alike, in folios of one size.

    Attributes:
        offset: bytes from the start of the file.
        size: bytes.
        folio: bytes of each folio in the run; 0 for a hole.
        shared: the attribute.
    """

    offset: int
    size: int
    folio: int
    shared: bool


class GuestMemory(Protocol):
    """One guest's memory. Offsets and sizes are bytes, as numbers or as `"64M"`.

    Every operation raises an `OperationError` with the kernel's errno and how far it got.
    """

    def allocate(self, offset: int | str = 0, size: int | str | None = None) -> None:
        """Back a range (fallocate)."""

    def punch_hole(self, offset: int | str, size: int | str) -> None:
        """Give a range back (fallocate with PUNCH_HOLE)."""

    def access(self, offset: int | str, size: int | str, by: str = "guest") -> None:
        """Touch a range for writing: `guest` (private), `guest-shared`, or `host`."""

    def convert(self, offset: int | str, size: int | str, to: str) -> None:
        """Make a range `shared` or `private`."""

    def pin(self, offset: int | str, size: int | str) -> None:
        """Pin a range for long, as passthrough does."""

    def unpin(self, offset: int | str, size: int | str) -> None:
        """Undo one `pin` of exactly this range."""

    def usage(self) -> Usage:
        """Where the memory is."""

    def layout(self) -> list[Extent]:
        """The folios, as runs of alike pages."""

    def close(self) -> None:
        """Give everything back."""
