"""Known answers, worked out by hand: the RMP, and every operation that it is told to do (G81 to G83, K11, K17, W21, W22)."""

from dataclasses import replace

import pytest

from gmemlab.core.hardware import counts
from gmemlab.core.layout import (
    ACCEPT_2M,
    ACCEPT_4K,
    ACCEPT_IN_PLACE,
    ACCEPT_LAUNCH,
    GUEST_SNP,
    HOST,
    PHASE_BOOT,
    PHASE_RUNNING,
    PHASE_TEAR_DOWN,
    PRIVATE,
    PUNCH_REFUSE,
    PUNCH_ZERO,
    SOURCE_POOL,
    SPLIT_UNIFORM,
    UNSPECIFIED,
)
from guests_world import FAULTS, HUGE_IN_PLACE, done, new
from world import HUGE_2M, SMALL, SMALL_IN_PLACE, THP, THP_IN_PLACE, MakeWorld, contents, count, mapped
from world import world_fixture as world_fixture


def test_snp_accepts_a_huge_page_by_one_entry(world: MakeWorld) -> None:
    """G81: the folio and the memslot hold it, and none of it is assigned. The kernel's own mapping stays (K11)."""
    model = world(8)
    file = new(model, GUEST_SNP, HUGE_IN_PLACE)
    assert model.access(file, 0, 512, PRIVATE, ACCEPT_2M) == (0, 512)
    assert done(model, {}) == {
        counts.RMPUPDATE_PRIVATE_2M: 1,
        counts.PVALIDATE_2M: 1,
        counts.FAULT_2M: 1,
        counts.PSC_REQUEST: 1,
        counts.PSC_ENTRY: 1,
    }
    assert mapped(model, file) == (512, 0)


def test_snp_falls_back_to_512_small_pages(world: MakeWorld) -> None:
    """W22: the 2 MiB PVALIDATE fails on a table of 4 KiB, and W19's further exits are the faults."""
    model = world(8)
    file = new(model, GUEST_SNP, SMALL_IN_PLACE)
    model.access(file, 0, 512, PRIVATE, ACCEPT_2M)
    assert done(model, {}) == {
        counts.RMPUPDATE_PRIVATE_4K: 512,
        counts.SIZE_MISMATCH: 1,
        counts.PVALIDATE_4K: 512,
        counts.FAULT_4K: 512,
        counts.PSC_REQUEST: 1,
        counts.PSC_ENTRY: 1,
        counts.DIRECT_MAP_2M: 1,
        counts.DIRECT_MAP_1G: 1,
    }


def test_snp_requests_hold_64_entries(world: MakeWorld) -> None:
    """W21, in chunks of 4 MiB (W19): 1300 pages by 4 KiB are 1024 and 276 of them, in 16 and 5 requests."""
    model = world(8)
    file = new(model, GUEST_SNP, SMALL_IN_PLACE, 1300)
    model.access(file, 0, 1300, PRIVATE, ACCEPT_4K)
    found = done(model, {})
    assert (found[counts.PSC_ENTRY], found[counts.PSC_REQUEST]) == (1300, 21)


def test_snp_page_that_goes_back_and_forth_stays_small(world: MakeWorld) -> None:
    """K6, G82, G83: the guest's 4 KiB PVALIDATE smashes the entry, and nothing un-smashes it; its neighbours fault back."""
    model = world(8)
    file = new(model, GUEST_SNP, HUGE_IN_PLACE)
    model.access(file, 0, 512, PRIVATE, ACCEPT_2M)
    model.ready(file)
    before = model.observe()["operations"]
    model.convert(file, 7, 1, True)
    assert done(model, before) == {
        counts.PSC_REQUEST: 1,
        counts.PSC_ENTRY: 1,
        counts.RMP_FAULT: 1,
        counts.PSMASH: 1,
        counts.FAULT_4K: 1,  # the smash took its mapping away, too, before the PVALIDATE is tried again
        counts.RESCIND_4K: 1,
        counts.RMPUPDATE_SHARED_4K: 1,
        counts.DIRECT_MAP_2M: 1,
        counts.DIRECT_MAP_1G: 1,
        counts.REFAULT: 511,
    }
    assert mapped(model, file) == (0, 511)
    before = model.observe()["operations"]
    model.convert(file, 7, 1, False)
    model.access(file, 7, 1, PRIVATE, ACCEPT_4K)
    assert done(model, before) == {
        counts.PSC_REQUEST: 2,  # the conversion's and the accept's
        counts.PSC_ENTRY: 2,
        counts.RMPUPDATE_PRIVATE_4K: 1,
        counts.PVALIDATE_4K: 1,
        counts.FAULT_4K: 1,
    }
    assert mapped(model, file) == (0, 512)
    assert all(phase == PHASE_RUNNING for operation, phase in model.observe()["operations"] if operation == counts.PSMASH)


def test_snp_block_that_left_as_a_whole_is_huge_again(world: MakeWorld) -> None:
    """K6: with all of it shared and private again, and merged (G72), one entry serves again."""
    model = world(8)
    file = new(model, GUEST_SNP, THP_IN_PLACE)
    model.access(file, 0, 512, PRIVATE, ACCEPT_2M)
    before = model.observe()["operations"]
    model.convert(file, 0, 512, True)
    assert done(model, before, counts.PSC_REQUEST, counts.PSC_ENTRY) == {counts.RESCIND_2M: 1, counts.RMPUPDATE_SHARED_2M: 1}
    model.convert(file, 0, 512, False)
    assert contents(model, file) == {UNSPECIFIED: list(range(512))}
    model.access(file, 0, 512, PRIVATE, ACCEPT_2M)
    assert mapped(model, file) == (512, 0)
    assert done(model, before)[counts.RMPUPDATE_PRIVATE_2M] == 1


def test_snp_small_accept_of_a_huge_page(world: MakeWorld) -> None:
    """G83: KVM prepares and maps 2 MiB, and smashes the entry when the guest validates one page."""
    model = world(8)
    file = new(model, GUEST_SNP, HUGE_IN_PLACE)
    model.access(file, 9, 1, PRIVATE, ACCEPT_4K)
    assert done(model, {}, counts.PSC_REQUEST, counts.PSC_ENTRY) == {
        counts.RMPUPDATE_PRIVATE_2M: 1,
        counts.FAULT_2M: 1,
        counts.RMP_FAULT: 1,
        counts.PSMASH: 1,
        counts.FAULT_4K: 1,
        counts.PVALIDATE_4K: 1,
    }
    assert mapped(model, file) == (0, 1)
    assert count(model, "shattered_accept") == 1


def test_snp_launch_image_is_small_and_validated(world: MakeWorld) -> None:
    model = world(8)
    file = new(model, GUEST_SNP, HUGE_IN_PLACE)
    model.access(file, 0, 6, PRIVATE, ACCEPT_LAUNCH)
    found = done(model, {}, counts.DIRECT_MAP_2M, counts.DIRECT_MAP_1G)
    assert found == {counts.RMPUPDATE_PRIVATE_4K: 6, counts.LAUNCH_UPDATE: 6}
    before = model.observe()["operations"]
    model.access(file, 0, 6, PRIVATE)
    assert done(model, before) == {counts.FAULT_4K: 6}, "a touch needs no accept"


def test_snp_launch_image_in_place(world: MakeWorld) -> None:
    """G52: what the VMM wrote while it was shared is measured where it is, and validated like any other."""
    model = world(8)
    file = new(model, GUEST_SNP, SMALL_IN_PLACE)
    model.convert(file, 0, 4, True)
    model.access(file, 0, 4, HOST)
    model.convert(file, 0, 4, False)
    model.access(file, 0, 4, PRIVATE, ACCEPT_IN_PLACE)
    model.access(file, 3, 3, PRIVATE, ACCEPT_LAUNCH)
    found = done(model, {}, counts.PSC_REQUEST, counts.PSC_ENTRY, counts.HOST_FAULT, counts.HOST_UNMAP)
    assert {number: found[number] for number in (counts.LAUNCH_IN_PLACE, counts.LAUNCH_UPDATE)} == {
        counts.LAUNCH_IN_PLACE: 4,
        counts.LAUNCH_UPDATE: 2,
    }
    assert model.observe()["page_states"][file] == dict.fromkeys(range(6), (1, 1))


def test_snp_launch_image_faults_before_it_is_given_up(world: MakeWorld) -> None:
    """PVALIDATE needs a mapping (G83): of six pages that the firmware validated, the guest has touched one."""
    model = world(8)
    file = new(model, GUEST_SNP, HUGE_IN_PLACE)
    model.access(file, 0, 6, PRIVATE, ACCEPT_LAUNCH)
    model.access(file, 2, 1, PRIVATE)
    before = model.observe()["operations"]
    model.convert(file, 0, 6, True)
    assert done(model, before, counts.PSC_REQUEST, counts.PSC_ENTRY) == {
        counts.FAULT_4K: 5,
        counts.RESCIND_4K: 6,
        counts.RMPUPDATE_SHARED_4K: 6,
    }
    assert mapped(model, file) == (0, 0)


def test_snp_whole_launch_image_faults_page_by_page(world: MakeWorld) -> None:
    """All of a 2 MiB: 512 faults, then a PVALIDATE of 2 MiB that finds small entries (W22)."""
    model = world(8)
    file = new(model, GUEST_SNP, SMALL_IN_PLACE)
    model.access(file, 0, 512, PRIVATE, ACCEPT_LAUNCH)
    before = model.observe()["operations"]
    model.convert(file, 0, 512, True)
    assert done(model, before, counts.PSC_REQUEST, counts.PSC_ENTRY) == {
        counts.FAULT_4K: 512,
        counts.SIZE_MISMATCH: 1,
        counts.RESCIND_4K: 512,
        counts.RMPUPDATE_SHARED_4K: 512,
    }


def test_snp_two_sources_keep_the_entry_until_the_page_is_punched(world: MakeWorld) -> None:
    """G55: a conversion alone leaves the private page assigned; the VMM's punch frees it (K12)."""
    model = world(8)
    file = new(model, GUEST_SNP, SMALL)
    model.access(file, 0, 4, PRIVATE, ACCEPT_4K)
    before = model.observe()["operations"]
    model.convert(file, 0, 2, True)
    assert counts.RMPUPDATE_SHARED_4K not in done(model, before)
    assert model.observe()["page_states"][file][0] == (1, 0), "assigned, and no longer validated"
    model.punch(file, 0, 2)
    assert done(model, before)[counts.RMPUPDATE_SHARED_4K] == 2


def test_snp_page_that_is_held_stays_assigned(world: MakeWorld) -> None:
    """K3: it left its file, and its frame is made shared when the last reference goes."""
    model = world(8)
    file = new(model, GUEST_SNP, HUGE_IN_PLACE)
    model.access(file, 0, 512, PRIVATE, ACCEPT_2M)
    model.reference(file, 3, 1)
    model.punch(file, 0, 512)
    assert (model.observe()["kept_entries"], done(model, {}).get(counts.RMPUPDATE_SHARED_2M)) == (512, None)
    model.unreference(file, 3, 1)
    assert (model.observe()["kept_entries"], done(model, {})[counts.RMPUPDATE_SHARED_2M]) == (0, 1)


def test_snp_tear_down_makes_every_page_shared(world: MakeWorld) -> None:
    """K17: by the entries that there are."""
    model = world(8)
    file = new(model, GUEST_SNP, HUGE_IN_PLACE, 1024)
    model.access(file, 0, 512, PRIVATE, ACCEPT_2M)
    model.access(file, 512, 512, PRIVATE, ACCEPT_4K)
    model.destroy(file)
    found = model.observe()["operations"]
    assert (
        found[counts.RMPUPDATE_SHARED_2M, PHASE_TEAR_DOWN],
        found[counts.RMPUPDATE_SHARED_4K, PHASE_TEAR_DOWN],
    ) == (1, 512)


@pytest.mark.parametrize("together", [1, 8])
def test_snp_base_pages_leave_one_by_one(world: MakeWorld, together: int) -> None:
    """One RMPUPDATE each; a page that is held keeps its entry, one that was never used has none."""
    model = world(8)
    file = new(model, GUEST_SNP, SMALL_IN_PLACE)
    model.allocate(file, 0, 8)
    model.access(file, 0, 4, PRIVATE, ACCEPT_4K)
    model.reference(file, 1, 1)
    model.reference(file, 6, 1)
    before = model.observe()["operations"]
    for index in range(0, 8, together):
        model.punch(file, index, together)
    assert done(model, before) == {counts.RMPUPDATE_SHARED_4K: 3}
    assert model.observe()["kept_entries"] == 1
    model.unreference(file, 6, 1)
    model.unreference(file, 1, 1)
    assert done(model, before) == {counts.RMPUPDATE_SHARED_4K: 4}
    assert model.observe()["kept_entries"] == 0


def test_snp_entry_of_a_block_with_shared_pages_is_smashed_at_once(world: MakeWorld) -> None:
    """G81 looks at the folio and at other entries, not at attributes; a mapping of 4 KiB below it faults once more (G83)."""
    model = world(8)
    file = new(model, GUEST_SNP, THP)
    model.convert(file, 5, 1, True)
    before = model.observe()["operations"]
    model.access(file, 0, 2, PRIVATE, ACCEPT_4K)
    assert done(model, before, counts.PSC_REQUEST, counts.PSC_ENTRY) == {
        counts.RMPUPDATE_PRIVATE_2M: 1,
        counts.RMP_FAULT: 1,
        counts.PSMASH: 1,
        counts.FAULT_4K: 3,  # the zap takes the first mapping away again
        counts.PVALIDATE_4K: 2,
    }


def test_snp_launch_smashes_an_entry_that_is_there(world: MakeWorld) -> None:
    model = world(8)
    file = new(model, GUEST_SNP, HUGE_IN_PLACE)
    model.access(file, 3, 1, PRIVATE)
    model.access(file, 5, 2, PRIVATE, ACCEPT_LAUNCH)
    assert done(model, {}, *FAULTS) == {
        counts.RMPUPDATE_PRIVATE_2M: 1,
        counts.UNACCEPTED: 1,
        counts.RMP_FAULT: 1,
        counts.PSMASH: 1,
        counts.LAUNCH_UPDATE: 2,
        counts.REFAULT: 3,
    }


def test_snp_faults_back_at_2m_where_the_entry_is_left(world: MakeWorld) -> None:
    """A zeroed part zaps the mapping and leaves the RMP alone: the first page in use brings all of it back."""
    model = world(8)
    file = new(model, GUEST_SNP, replace(HUGE_IN_PLACE, punch=PUNCH_ZERO))
    model.access(file, 7, 1, PRIVATE)
    model.punch(file, 100, 1)
    assert (mapped(model, file), count(model, "healed_mapping")) == ((512, 0), 1)


def test_snp_split_huge_page_leaves_in_the_pieces_that_it_has(world: MakeWorld) -> None:
    """Of memory in 2M pages only, from the buddy allocator or from a pool."""
    strict = replace(THP_IN_PLACE, sizes=(9,), punch=PUNCH_REFUSE, split=SPLIT_UNIFORM, merge=0)
    for policy in (replace(HUGE_2M, hvo=False), strict):
        model = world(12)
        if policy.source == SOURCE_POOL:
            assert model.grow_pool(9, 2, False) == (0, 2)
        file = new(model, GUEST_SNP, policy, 1024)
        model.access(file, 0, 1024, PRIVATE, ACCEPT_2M)
        model.convert(file, 0, 3, True)
        model.reference(file, 700, 1)
        model.unreference(file, 700, 1)
        assert model.destroy(file) == (0, 1024)
        found = model.observe()["operations"]
        assert found[counts.RMPUPDATE_SHARED_2M, PHASE_TEAR_DOWN] == 1
        assert found[counts.RMPUPDATE_SHARED_4K, PHASE_TEAR_DOWN] == 509
        assert found[counts.RMPUPDATE_SHARED_4K, PHASE_BOOT] == 3


def test_snp_small_part_of_a_huge_page_leaves(world: MakeWorld) -> None:
    """G82: the entry is smashed, and 511 of its pages stay."""
    model = world(8)
    file = new(model, GUEST_SNP, THP)
    model.access(file, 0, 512, PRIVATE, ACCEPT_2M)
    before = model.observe()["operations"]
    model.punch(file, 9, 1)
    assert done(model, before, counts.DIRECT_MAP_2M, counts.DIRECT_MAP_1G) == {
        counts.PSMASH: 1,
        counts.RMPUPDATE_SHARED_4K: 1,
        counts.REFAULT: 511,
    }
