"""The uniform path against the single-page path: whole blocks in one call, and page by page, end in the same state.

Two hosts, fragmented alike, take the same operations on ranges of every alignment: one host in one call, the other page by
page. Free lists (with their order), files, mappings, types and counters must agree after each.

Where a part of a folio is punched, the kernel itself tells one call from many: it splits around the ends of each hole (L13).
Policies that do so take operations on whole blocks only. It also frees what it cuts off a folio after those that go as a whole:
page by page, holes are made in that order. Anonymous huge pages are left out: whether a block gets one again depends on whether
one call gave back all of it (L16).
"""

from random import Random
from typing import Final

import numba
import pytest

from core_world import CoreWorld
from gmemlab.core.hardware.counts import CONVERT, CONVERT_PAGE
from gmemlab.core.layout import ACCEPT_2M, ACCEPT_4K, HOST, PHASE_BOOT, PRIVATE, SHARED, TOUCH, ZONE_MOVABLE, ZONE_NORMAL
from players import BACKGROUND, POLICIES, oracle_policy

INTERPRETED: Final = bool(numba.config.DISABLE_JIT)
NR_BLOCKS: Final = 24
ZONES: Final = [(20, 25, ZONE_MOVABLE, 0), (1, 20, ZONE_NORMAL, 300)]
BACKGROUND_PAGES: Final = 4096
GUEST_PAGES: Final = (1536, 1300)
HUGE: Final = ["thp", "thp[split=4k]", "thp-inplace", "thp-inplace[merge=eager]", "ladder"]
BASE: Final = ["4k", "4k-inplace", "anon-thp[sizes=4K]"]
CHOSEN: Final = {**POLICIES, "anon-thp[sizes=4K]": POLICIES["anon-thp"].with_choices({"sizes": "4K"})}
COMPARE_EVERY: Final = 4  # operations
STATES: Final = ("fresh", "holes", "odd pages", "full")
# Where huge folios are split or huge mappings shattered piece by piece, these count it; one call on all of it does neither.
PIECEWISE: Final = ("split_punch", "split_convert", "shattered_punch", "shattered_convert", "healed_mapping")
OPERATIONS: Final = ("allocate", "allocate", "private", "private", "shared", "host", "punch", "to_shared", "to_private")


class Pair:
    """Two hosts of one history: `at_once` takes operations whole, `by_page` page by page."""

    def __init__(self, name: str, state: str, random: Random) -> None:
        self.random = random
        policy = CHOSEN[name]
        self.exact = name in BASE
        self.in_pieces = policy.split == "pieces" and policy.orders[0] > 0
        self.two_sources = policy.conversion == "two-sources"
        self.at_once, self.by_page = (CoreWorld(ZONES, {1}, NR_BLOCKS) for _ in range(2))
        self.background = [self.create(BACKGROUND_PAGES, BACKGROUND[movable]) for movable in (False, True)]
        self.fragment(state)
        self.guests = {self.create(pages, oracle_policy(policy)): pages for pages in GUEST_PAGES}

    def create(self, pages: int, policy: object) -> int:
        """A file on both hosts."""
        made = {world.create(pages, policy) for world in (self.at_once, self.by_page)}  # type: ignore[arg-type]
        assert len(made) == 1
        error, file = made.pop()
        assert error == 0
        return file

    def both(self, name: str, *arguments: int) -> None:
        """One call, the same on both hosts."""
        assert getattr(self.at_once, name)(*arguments) == getattr(self.by_page, name)(*arguments)

    def fragment(self, state: str) -> None:
        """Give both hosts the same holes: none, runs of any length, every other page; or leave them only a few pages."""
        if state == "fresh":
            return
        pages = BACKGROUND_PAGES if state == "full" else BACKGROUND_PAGES // 2
        for file in self.background:
            self.both("allocate", file, 0, pages)
        for file in self.background:
            if state == "odd pages":
                for index in range(self.random.randrange(2), 512, 2):
                    self.both("punch", file, index, 1)
            for _ in range(10):
                self.both("punch", file, self.random.randrange(pages), self.random.choice((1, 3, 8, 70, 300)))

    def span(self, pages: int) -> tuple[int, int]:
        """A range with at least one whole block in most cases: aligned to blocks, around them, or anything."""
        block = 512 * self.random.randrange(3)
        first, count = self.random.choice(
            (
                (block, 512),
                (block, 512),
                (0, pages),
                (block, 1024),
                (max(0, block - 1), 514),
                (block + 1, 511),
                (max(0, block - 100), 700),
                (block + self.random.randrange(512), self.random.randint(1, 600)),
            )
        )
        if self.in_pieces:
            first, count = block, self.random.choice((512, 1024, 1536))
        first = min(first, pages - 1)
        return first, min(count, pages - first)

    def step(self) -> str:
        """One operation, and what it was; the two hosts must tell the same outcome."""
        file = self.random.choice(list(self.guests))
        first, count = self.span(self.guests[file])
        name = self.random.choice(OPERATIONS)
        arguments: tuple[int, ...] = ()
        if name in ("private", "shared", "host"):
            kind = {"private": PRIVATE, "shared": SHARED, "host": HOST}[name]
            arguments = (kind, self.random.choice((TOUCH, TOUCH, ACCEPT_4K, ACCEPT_2M)) if name == "private" else TOUCH)
            name = "access"
        elif name in ("to_shared", "to_private"):
            arguments = (int(name == "to_shared"),)
            name = "convert"
            count = self.alike(file, first, count)
            if self.in_pieces and count % 512 and first + count < self.guests[file]:
                return "nothing"
        turn = self.in_turn(name, file, first, first + count, arguments)
        whole = getattr(self.at_once, name)(file, first, count, *arguments)
        assert self.one_by_one(name, file, turn, arguments) == whole
        return f"{name} {first} {count} {arguments} of {file}: {whole}"

    def alike(self, file: int, first: int, count: int) -> int:
        """So many of the pages from `first` on have one attribute; with one source, it does not matter.

        A VMM with two sources punches the whole of what it converts, unless all of it has the attribute already (G43).
        """
        if not self.two_sources:
            return count
        pages = self.at_once.observe_file(self.at_once.pages_of(self.at_once.files[file]))
        shared = [bool(index in pages and pages[index][2]) for index in range(first, first + count)]
        return [*shared, not shared[0]].index(not shared[0])

    def in_turn(self, name: str, file: int, first: int, end: int, arguments: tuple[int, ...]) -> list[int]:
        """The pages of a range as one call goes through them: folios that a hole frees as a whole come first.

        A VMM with two sources punches the side that is no longer used.
        """
        side = self.at_once.files[file]
        if name == "convert" and self.two_sources and not arguments[0]:
            side = int(self.at_once.state.files[side].shared_file)
        elif name != "punch" and not (name == "convert" and self.two_sources):
            return list(range(first, end))
        pages = self.at_once.observe_file(self.at_once.pages_of(side))
        sizes = [1 << max(0, pages[index][1]) if index in pages else 1 for index in (first, end)]
        begin, stop = -(-first // sizes[0]) * sizes[0], end // sizes[1] * sizes[1]
        if begin >= stop:
            return list(range(first, end))
        return [*range(begin, stop), *range(first, begin), *range(stop, end)]

    def one_by_one(self, name: str, file: int, pages: list[int], arguments: tuple[int, ...]) -> tuple[int, int]:
        """The operation on each page, until one fails. Returns what one call would."""
        operation = getattr(self.by_page, name)
        for done, index in enumerate(pages):
            error, _ = operation(file, index, 1, *arguments)
            if error:
                return error, done
        return 0, len(pages)

    def compare(self, log: list[str]) -> None:
        """Everything observable is the same, except how often huge pages were taken apart, and calls that convert."""
        whole, pages = self.at_once.observe(), self.by_page.observe()
        for told in (whole, pages):
            for operation in (CONVERT, CONVERT_PAGE):  # of a range that differs in part all pages are marked
                told["operations"].pop((operation, PHASE_BOOT), None)
        if not self.exact:
            for name in PIECEWISE:
                assert whole["counters"].pop(name) <= pages["counters"].pop(name)
        for part, seen in whole.items():
            assert seen == pages[part], f"{part} after {log[-3:]}"  # type: ignore[literal-required]


def play(name: str, state: str, steps: int) -> None:
    random = Random(f"{name} {state}")
    pair = Pair(name, state, random)
    log: list[str] = []
    for step in range(steps):
        log.append(pair.step())
        if step % COMPARE_EVERY == COMPARE_EVERY - 1:
            pair.compare(log)
    for world in (pair.at_once, pair.by_page):
        world.check()
    for file in [*pair.guests, *pair.background]:
        pair.both("destroy", file)
    pair.compare(log)


@pytest.mark.parametrize("state", STATES[:2] if INTERPRETED else STATES)
@pytest.mark.parametrize("name", ["4k", "thp-inplace", "ladder"] if INTERPRETED else BASE + HUGE)
def test_whole_blocks_at_once_as_page_by_page(name: str, state: str) -> None:
    play(name, state, COMPARE_EVERY if INTERPRETED else 12 * COMPARE_EVERY)
