"""Known answers, worked out by hand, in which guests of several kinds differ (G50, G72, K1, T9)."""

from dataclasses import replace

import pytest

from gmemlab.core.hardware import counts
from gmemlab.core.layout import (
    ACCEPT_2M,
    ACCEPT_4K,
    ACCEPT_IN_PLACE,
    ACCEPT_LAUNCH,
    GUEST_GENERIC,
    GUEST_PLAIN,
    GUEST_SNP,
    GUEST_TDX,
    PHASE_BOOT,
    PRIVATE,
    PUNCH_ZERO,
    SHARED,
    TRUNCATION_ZEROES,
    UNSPECIFIED,
    USED,
)
from guests_world import HUGE_IN_PLACE, done, new
from world import SMALL_IN_PLACE, THP, MakeWorld, contents, count, mapped
from world import world_fixture as world_fixture


@pytest.mark.parametrize(("guest", "healed"), [(GUEST_PLAIN, 1), (GUEST_SNP, 1), (GUEST_GENERIC, 0), (GUEST_TDX, 0)])
def test_zeroed_part_of_a_huge_page(world: MakeWorld, guest: int, healed: int) -> None:
    """The folio stays whole: KVM maps it at 2 MiB again where it may. What was zeroed was private (K1, T9), of most guests."""
    model = world(8)
    file = new(model, guest, replace(HUGE_IN_PLACE, punch=PUNCH_ZERO))
    model.access(file, 0, 512, PRIVATE, ACCEPT_2M)
    model.punch(file, 0, 3)
    assert count(model, "healed_mapping") == healed
    assert done(model, {}).get(counts.HOST_WRITE, 0) == (0 if guest == GUEST_PLAIN else 3)


def test_truncation_that_zeroes_writes_to_private_memory(world: MakeWorld) -> None:
    """T9, K1: also where the split works; where it fails, zeros are left instead of what was there."""
    model = world(8)
    policy = replace(THP, truncation=TRUNCATION_ZEROES)
    file = new(model, GUEST_SNP, policy, 1024)
    model.access(file, 0, 1024, PRIVATE, ACCEPT_2M)
    model.punch(file, 0, 3)
    assert done(model, {})[counts.HOST_WRITE] == 3
    model.reference(file, 600, 1)
    model.punch(file, 512, 2)
    assert (done(model, {})[counts.HOST_WRITE], count(model, "stale_pages")) == (5, 0)


def test_contents_after_a_conversion(world: MakeWorld) -> None:
    """G50: kept by a guest without such hardware, and of no meaning under SNP and TDX."""
    for guest, content in ((GUEST_PLAIN, USED), (GUEST_SNP, UNSPECIFIED), (GUEST_TDX, UNSPECIFIED)):
        model = world(8)
        file = new(model, guest, SMALL_IN_PLACE)
        model.access(file, 0, 2, PRIVATE, ACCEPT_4K)
        model.convert(file, 0, 2, True)
        assert contents(model, file) == {content: [0, 1]}


def test_pages_are_cleared_at_first_use(world: MakeWorld) -> None:
    """G27: a folio at once, base pages one by one, each only once; of a launch image what has no source and was not written."""
    model = world(12)
    huge, small = new(model, GUEST_PLAIN, THP), new(model, GUEST_PLAIN, SMALL_IN_PLACE, 600)
    model.access(huge, 5, 1, PRIVATE)
    model.access(huge, 0, 512, PRIVATE)
    model.access(small, 0, 3, PRIVATE, ACCEPT_LAUNCH)
    model.access(small, 0, 5, PRIVATE)
    model.convert(small, 100, 4, True)
    model.access(small, 100, 4, SHARED)
    model.convert(small, 100, 4, False)
    model.access(small, 100, 4, PRIVATE, ACCEPT_IN_PLACE)
    model.access(small, 200, 7, PRIVATE, ACCEPT_IN_PLACE)
    model.convert(huge, 0, 4, True)
    model.access(huge, 0, 4, SHARED)  # ordinary memory, which is not guest_memfd's
    found = model.observe()["operations"]
    expected = {counts.CLEAR_2M: 1, counts.CLEAR_4K: 6 + 7, counts.CONVERT: 3, counts.CONVERT_PAGE: 4}
    assert {operation: found[operation, PHASE_BOOT] for operation in expected} == expected


def test_plain_guest_comes_back_to_2m_with_the_next_fault(world: MakeWorld) -> None:
    """After a page that was shared is private again, with its folio split: small; a folio that stayed whole: huge again."""
    model = world(8)
    file = new(model, GUEST_PLAIN, HUGE_IN_PLACE, 1024)
    model.access(file, 0, 1024, PRIVATE)
    model.convert(file, 7, 1, True)
    assert mapped(model, file) == (512, 511)
    model.convert(file, 7, 1, False)
    model.access(file, 7, 1, PRIVATE)
    assert mapped(model, file) == (512, 512)


def test_conversion_in_place_zaps_exactly_for_every_guest(world: MakeWorld) -> None:
    """G72: leaves that cross the boundary are split, and only the converted range is zapped; a punch takes all of the leaf."""
    model = world(8)
    file = new(model, GUEST_PLAIN, HUGE_IN_PLACE, 1024)
    model.access(file, 0, 1024, PRIVATE)
    before = model.observe()["operations"]
    model.convert(file, 7, 1, True)
    assert (mapped(model, file), done(model, before)) == ((512, 511), {})
    model.punch(file, 519, 1)
    assert (mapped(model, file), done(model, before)) == ((0, 1022), {counts.REFAULT: 511})
