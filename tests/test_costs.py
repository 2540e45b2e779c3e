"""Cost profiles: what is shipped, what comes back from a file, and what a damaged file says."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmemlab.costs import CONFIDENCES, DEFAULT, UNITS, Cost, Profile, shipped
from gmemlab.errors import UsageError

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
COSTS = st.builds(
    lambda ends, **rest: Cost(low=ends[0], value=ends[1], high=ends[2], **rest),
    ends=st.lists(st.integers(0, 1 << 40), min_size=3, max_size=3).map(sorted),
    unit=st.sampled_from(UNITS),
    confidence=st.sampled_from(list(CONFIDENCES)),
    source=TEXT,
    count=st.integers(0, 1000),
)
PROFILES = st.builds(
    Profile,
    name=TEXT,
    kernel=TEXT,
    cpu=TEXT,
    date=TEXT,
    costs=st.dictionaries(st.from_regex(r"[a-z0-9]{1,5}(-[a-z0-9]{1,5}){0,2}", fullmatch=True), COSTS, min_size=1, max_size=3),
    notes=st.lists(TEXT, max_size=3).map(tuple),
)
COST = Cost("ns per call", 100, 150, 300, "measured", "a test", 9)
PROFILE = Profile("mine", "6.18", "a processor", "2026-11-25", {"one": COST, "two": replace(COST, high=301)}, ("a note",))


@given(PROFILES)
def test_what_was_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, profile: Profile) -> None:
    path = tmp_path_factory.mktemp("costs") / "costs.toml"
    profile.save(path)
    assert Profile.load(path) == profile
    assert [entry.name for entry in path.parent.iterdir()] == ["costs.toml"]


def test_wide_spreads_are_marked(tmp_path: Path) -> None:
    assert (COST.spread, COST.useless) == (3.0, False)
    assert replace(COST, high=301).useless
    assert replace(COST, low=0).useless
    path = tmp_path / "costs.toml"
    PROFILE.save(path)
    lines = path.read_text().splitlines()
    assert "[costs.one]" in lines
    assert "[costs.two]  # spread 3.0: of no use in a comparison" in lines


def test_shipped_figures_are_those_of_the_facts() -> None:
    assert DEFAULT in shipped()
    costs = Profile.load(DEFAULT).costs
    assert {name: costs[name].value for name in ("guest-memfd-fallocate", "guest-memfd-punch", "guest-memfd-punch-page")} == {
        "guest-memfd-fallocate": 742,
        "guest-memfd-punch": 414,
        "guest-memfd-punch-page": 1521,
    }
    assert (costs["shmem-2m-collapse"].low, costs["shmem-2m-collapse"].value) == (151_000, 7_000_000)
    assert costs["compaction-move"].high == 22_000
    assert (costs["anon-write-fault"].low, costs["anon-write-fault"].high) == (1500, 5600)
    assert (costs["anon-2m-write-fault"].low, costs["anon-2m-write-fault"].high) == (93_000, 165_000)
    for cost in costs.values():
        assert cost.source.startswith(("L section 6", "L23", "C31", "C32", "C33"))
        assert cost.low < cost.value < cost.high


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format = 1", "format = 2", ":1: format: unknown format (value 2; allowed: 1)"),
        ("format = 1", "", ": format: unknown format"),
        ("value = 150", "value = 99", ":11: costs.one.value: out of order (value 99; allowed: 100 to 300)"),
        ("value = 150", "value = 1.5", ":11: costs.one.value: wrong type or value (value 1.5; allowed: a whole number"),
        ("value = 150", "valu = 150", ":11: costs.one.valu: unknown key (allowed: unit, low, value, high, confidence"),
        (
            '"ns per call"',
            '"us"',
            ":9: costs.one.unit: unknown unit (value 'us'; allowed: ns per 4K page, ns per 2M, ns per call)",
        ),
        (  # what gmemlab calibrate wrote before conversions were priced by page as well
            "[costs.one]",
            "[costs.convert-page]",
            ":9: costs.convert-page.unit: not what it is counted by (value 'ns per call'; allowed: ns per 4K page)",
        ),
        ('"measured"', '"guessed"', ":13: costs.one.confidence: unknown word (value 'guessed'; allowed: published, abstract"),
        ("low = 100\n", "", ":8: costs.one.low: missing"),
        ("[costs.one]", '[costs."One two"]', ":8: costs.One two: not a name"),
        ("low = 100", "low = ", ":10: not valid TOML: Invalid value"),
        ('"a note"', "7", ":6: notes[0]: wrong type or value (value 7; allowed: a string)"),
    ],
)
def test_damaged_files(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "costs.toml"
    PROFILE.save(path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        Profile.load(path)
    assert str(caught.value).startswith(f"{path}:")
    assert message in str(caught.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such cost profile .*allowed: live-6.18, plain, snp, tdx, or a file written by"):
        Profile.load("mine")
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        Profile.load(tmp_path)
    with pytest.raises(UsageError, match="cannot be written: No such file"):
        PROFILE.save(tmp_path / "absent" / "costs.toml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        Profile.load(tmp_path / "binary")
