"""Random operations for the suites on files: mostly good ones, and every kind of bad one.

A plan depends on nothing but its seed, so that the same steps can be taken in several worlds, left out one by one, and
recorded here to be judged elsewhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from gmemlab.kernel.suites.steps import PAGE, Step

BLOCK: Final = 512  # pages of 2 MiB
FILES: Final = 3
LARGEST: Final = (1 << 63) - 1
LARGEST_PIN: Final = 8  # pages
MODES: Final = (0, 2, 4, 5, 0x10, 0x20, 0x40, -1)  # of fallocate, none of which guest_memfd accepts (G17)


@dataclass
class Plan:
    """What a plan remembers: sizes of its files in pages, and what is pinned.

    Attributes:
        random: where everything is drawn from.
        sizes: of new files, in pages.
        weights: how often each operation is drawn; creating and closing come on top.
        unit: pages of the folios that ranges should start, end and cross.
        grain: pages that ranges of allocate and punch are multiples of.
        create_args: what new files may be created with.
    """

    random: Random
    sizes: Sequence[int]
    weights: dict[str, int]
    unit: int = BLOCK
    grain: int = 1
    create_args: Sequence[int] = (0,)
    past_end: bool = True
    files: dict[int, int] = field(default_factory=dict)
    pins: list[tuple[int, int, int]] = field(default_factory=list)
    tag: int = 0

    def steps(self, count: int) -> Iterator[Step]:
        """So many steps."""
        names, weights = list(self.weights), list(self.weights.values())
        for _ in range(count):
            if len(self.files) < FILES or self.random.randrange(60) == 0:
                yield self.create()
                continue
            op = self.random.choices(names, weights)[0]
            file = self.random.choice(sorted(self.files))
            yield self.step(op, file)

    def create(self) -> Step:
        """A new file, in a free place or in place of another; or one that cannot be."""
        free = [file for file in range(FILES) if file not in self.files]
        file = self.random.choice(free or range(FILES))
        pages = self.random.choice(self.sizes)
        self.files[file] = pages
        self.pins = [pin for pin in self.pins if pin[0] != file]
        return Step("create", file, 0, pages * PAGE, self.random.choice(self.create_args))

    def step(self, op: str, file: int) -> Step:
        """One operation on a file."""
        if op == "unpin":
            return self.unpin(file)
        if op == "close":
            del self.files[file]
            self.pins = [pin for pin in self.pins if pin[0] != file]
            return Step("close", file)
        if op == "fallocate":
            return Step(op, file, *self.range(file), self.random.choice(MODES))
        if op in ("allocate", "punch"):
            return Step(op, file, *(self.bad_range(file) if self.random.randrange(8) == 0 else self.range(file)))
        if op == "pin":
            first, pages = self.pages(file, LARGEST_PIN)
            self.pins.append((file, first * PAGE, pages * PAGE))
            return Step(op, *self.pins[-1])
        if op == "write":
            self.tag = self.tag % 255 + 1
            return Step(op, file, *self.range(file), self.tag)
        return Step(op, file, *self.range(file), self.random.randrange(256))

    def unpin(self, file: int) -> Step:
        """Undo a pin; where there is none, a pin that was never taken."""
        if not self.pins:
            return Step("unpin", file, 0, PAGE)
        return Step("unpin", *self.pins.pop(self.random.randrange(len(self.pins))))

    def pages(self, file: int, most: int) -> tuple[int, int]:
        """A page and a number of pages within a file."""
        size = self.files[file]
        first = self.random.randrange(size)
        return first, self.random.randint(1, min(most, size - first))

    def range(self, file: int) -> tuple[int, int]:
        """A range of a file in bytes: one page, a few, many, up to or across folio borders, all of it."""
        size, shape = self.files[file], self.random.randrange(8)
        if shape == 0:
            first, count = 0, size
        elif shape <= 2 and size > self.unit:
            first = self.random.randrange(size // self.unit) * self.unit
            count = min(self.unit * self.random.randint(1, 2), size - first)
        elif shape == 3 and size > self.unit:
            border = self.random.randrange(1, size // self.unit + 1) * self.unit
            first = max(0, border - self.random.randint(1, self.unit))
            count = min(size, border + self.random.randint(0, self.unit)) - first
        else:
            first, count = self.pages(file, (1, 3, 40, size)[shape % 4])
        return self.rounded(first, count, size)

    def rounded(self, first: int, count: int, size: int) -> tuple[int, int]:
        """The range in bytes, widened to the grain."""
        first -= first % self.grain
        end = min(-(-(first + max(count, 1)) // self.grain) * self.grain, size)
        return first * PAGE, (end - first) * PAGE

    def bad_range(self, file: int) -> tuple[int, int]:
        """A range that the kernel refuses, or that lies beyond the end of the file."""
        size = self.files[file] * PAGE
        offset, length = self.range(file)
        beyond = ((size, PAGE), (size - PAGE, 2 * PAGE), (size + 5 * PAGE, 3 * PAGE), (0, size + PAGE))
        wrong = (
            (offset, 0),
            (offset, -length),
            (-PAGE, length),
            (offset + 1, length),
            (offset, length + 512),
            (LARGEST - PAGE + 1, PAGE),
            (LARGEST, 1),
            (LARGEST - 2 * PAGE + 1, PAGE),
            (1 << 62, 1 << 62),
        )
        if self.past_end:
            return self.random.choice((*wrong, *beyond))
        return self.random.choice((*wrong[:3], *wrong[5:7], wrong[8]))
