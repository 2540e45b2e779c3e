"""What can be seen of memory on the running kernel: files' pages, frames and folios, counters, page events."""

from typing import Final

PAGE: Final = 4096
