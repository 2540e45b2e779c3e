"""What keeps memory from being mapped at 2M, by known answers: shared memory (K9), and marks that last (G79)."""

import pytest

from gmemlab.core import layout
from gmemlab.errors import UsageError
from gmemlab.model.guest import TERMS
from gmemlab.model.host import Host
from gmemlab.presets import find

TERM_CODES = (
    layout.TERM_NONE,
    layout.TERM_ABSENT,
    layout.TERM_FOLIO,
    layout.TERM_SLOT,
    layout.TERM_CONGRUENCE,
    layout.TERM_ATTRIBUTES,
    layout.TERM_INHIBIT,
)
NOTHING, ABSENT, FOLIO, SLOT, CONGRUENCE, ATTRIBUTES, INHIBIT = (TERMS[code] for code in TERM_CODES)
SHARED_THP = find("thp").with_choices({"shared": "thp"})


def test_level_of_shared_memory_is_that_of_what_serves_it() -> None:
    host = Host("64M")
    for policy, limit in (("4k", FOLIO), (SHARED_THP, NOTHING), ("thp-inplace", FOLIO), ("4k-inplace", FOLIO)):
        memory = host.guest_memfd("4M", policy)
        memory.access("0", "2M")
        memory.convert("0", "2M", to="shared")
        if policy == "4k" or policy is SHARED_THP:
            assert memory.limit_of_shared("0") == ABSENT  # the private side is not what serves it
        memory.access("0", "2M", by="guest-shared")
        assert memory.limit_of_shared("4K") == limit
        memory.close()


def test_shared_memory_has_the_terms_of_private_memory() -> None:
    """A page of the range that is private; a memslot that ends in it, or begins elsewhere."""
    host = Host("64M")
    memory = host.guest_memfd("4M", SHARED_THP)
    memory.convert("0", "4M", to="shared")
    memory.access("0", "4M", by="guest-shared")
    memory.convert("2044K", "4K", to="private")
    assert [memory.limit_of_shared(place) for place in ("0", "2M")] == [ATTRIBUTES, NOTHING]
    memory.bind([(0, 3 << 20, 0)])
    assert memory.limit_of_shared("2M") == SLOT
    memory.bind([(4096, 4 << 20, 0)])
    assert memory.limit_of_shared("2M") == CONGRUENCE
    with pytest.raises(UsageError, match="not an offset"):
        memory.limit_of_shared("4M")


def test_a_mark_that_lasts_is_named_before_what_a_punch_lifts() -> None:
    """A TD that accepted 4K keeps the mark as long as it lives; of a generic guest the mark goes with the memory."""
    for guest, after in (("tdx", INHIBIT), ("generic", NOTHING)):
        host = Host("64M")
        host.grow_pool("2M", 4)
        memory = host.guest_memfd("4M", "hugetlb-2m", guest=guest)
        memory.access("0", "4K", accept="4K")
        assert memory.limit("0") == INHIBIT
        memory.punch_hole("0", "2M")
        memory.access("0", "2M", accept="2M")
        assert (memory.limit("0"), memory.usage().mapped_2m) == (after, 0 if guest == "tdx" else 2 << 20)
