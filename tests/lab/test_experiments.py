"""The catalogue, the verdicts, and what two experiments find."""

from dataclasses import fields, replace

import pytest

from gmemlab.costs import Profile
from gmemlab.errors import UsageError
from gmemlab.lab.experiments import boot_slope, tdx_boot
from gmemlab.lab.experiments.catalogue import (
    AGREES,
    MISS,
    NO_TEST,
    SHOWN,
    Check,
    Outcome,
    chosen,
    experiments,
    judge,
)
from gmemlab.lab.times import Interval
from gmemlab.presets import find

PAGES = 262_144  # of 4K in a GiB


def quiet(what: str, share: float) -> None:
    assert what
    assert 0 <= share <= 1


def test_every_module_is_in_the_catalogue_and_says_what_it_is() -> None:
    known = experiments()
    assert {"boot-slope": boot_slope.EXPERIMENT, "tdx-boot": tdx_boot.EXPERIMENT}.items() <= known.items()
    for name, experiment in known.items():
        assert experiment.name == name
        assert all(getattr(experiment, field.name) for field in fields(experiment))
    assert chosen([]) == list(known.values())
    assert chosen(["tdx-boot", "tdx-boot"]) == [tdx_boot.EXPERIMENT]
    with pytest.raises(UsageError, match=r"no such experiment .*'boot'.*boot-slope, tdx-boot"):
        chosen(["boot"])


def test_verdicts() -> None:
    """Outside is a miss, on either side and however wide; inside confirms only if the interval is narrow."""
    assert judge(Interval(5, 6, 7), 3, 4) == judge(Interval(5, 6, 7), 8, 9) == MISS
    assert judge(Interval(5, 6, 700), 4, 4) == judge(Interval(5, 6, 700), 701, 800) == MISS
    assert judge(Interval(5, 6, 7), 6, 6) == judge(Interval(5, 6, 7), 7, 9) == judge(Interval(5, 6, 7), 0, 5) == AGREES
    assert judge(Interval(5, 6, 16), 6, 6) == NO_TEST
    checks = {verdict: Check("", "", "", verdict) for verdict in (AGREES, MISS, NO_TEST, SHOWN)}
    assert Outcome(tuple(checks.values()), ()).verdict == MISS
    assert Outcome((checks[AGREES], checks[NO_TEST]), ()).verdict == NO_TEST
    assert Outcome((checks[AGREES], checks[SHOWN]), ()).verdict == AGREES


def test_published_slopes_are_parted_as_the_source_does() -> None:
    """C4: 82 ms/GB, 79 of them in QEMU, leave 3, which may all be an ordinary guest's 4; of a TD's 43 it leaves 39."""
    snp, tdx = boot_slope.PUBLISHED["snp"], boot_slope.PUBLISHED["tdx"]
    assert snp.before is not None
    assert [round(value / 1e6) for value in (snp.slope, snp.before, snp.ordinary)] == [82, 79, 4]
    assert (round(tdx.slope / 1e6), tdx.before, round(tdx.least / 1e6), round(tdx.most / 1e6)) == (43, None, 39, 43)
    assert (snp.least, round(snp.most / 1e6)) == (0, 3)


def test_boot_slope(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: of each GiB more so many pages fault, are cleared, augmented, accepted; swiotlb no longer grows."""
    monkeypatch.setattr(boot_slope, "SIZES", (32, 34))
    outcome = boot_slope.run(quiet)
    checks = {check.what: check for check in outcome.checks}
    costs = Profile.load("tdx").costs
    for share, verdict in ((1 / 64, AGREES), (0.3, MISS)):
        check = checks[f"tdx: boot per GiB, {share:.1%} touched"]
        assert check.verdict == verdict
        for end in ("low", "high"):
            each = sum(getattr(costs[name], end) for name in ("fault-4k", "aug-4k", "accept-4k", "clear-4k"))
            mismatch = getattr(costs["accept-mismatch"], end) / 512  # an accept of 2M comes first
            assert check.figures[f"{end}_ns"] == pytest.approx(share * PAGES * (each + mismatch), rel=0.01)
    check = checks["snp: boot per GiB, 1.6% touched"]
    assert (check.verdict, check.model.startswith("(no test) ")) == (MISS, True), "too wide to confirm, and all above"
    assert checks["snp: boot per GiB, 30.0% touched"].verdict == MISS
    assert checks["snp: all of boot per GiB"].published == "82.3ms"
    assert (checks["snp: QEMU's stage per GiB"].published, checks["snp: QEMU's stage per GiB"].verdict) == ("78.9ms", SHOWN)
    assert outcome.verdict == MISS
    assert {checks[f"{hardware}: first touch per 4K"].verdict for hardware in ("snp", "tdx")} == {NO_TEST}
    assert any("C3's 1.92us" in sentence for sentence in outcome.sentences)
    assert any("snp" in text and "at most 0.4%" in text and "less than page structs" in text for text in outcome.sentences)
    assert any("boot would touch 0.7% to 1.7%" in sentence and "is more" in sentence for sentence in outcome.sentences)


def test_boot_slope_can_miss_on_the_other_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that boots slower than anything that the model has explains."""
    monkeypatch.setattr(boot_slope, "SIZES", (32, 34))
    slow = replace(boot_slope.PUBLISHED["tdx"], slope=200e6)
    monkeypatch.setattr(boot_slope, "PUBLISHED", {"tdx": slow})
    checks = {check.what: check for check in boot_slope.run(quiet).checks}
    check = checks["tdx: boot per GiB, 1.6% touched"]
    assert (check.verdict, check.figures["high_ns"] < slow.least) == (MISS, True)


def test_tdx_boot() -> None:
    outcome = tdx_boot.run(quiet)
    checks = {check.what: check for check in outcome.checks}
    assert outcome.verdict == NO_TEST
    counts = {what.removeprefix("small accepts at "): check.model for what, check in checks.items() if "accepts at" in what}
    assert counts == {
        "0x806 to 0x9ff": "506",
        "0x7e800 to 0x7e9ff": "512",
        "0x7d9d7": "974",
        "0x7d9da": "476",
        "0x7d9d9": "156",
    }
    assert checks["small accepts where 2M could be mapped"].model == checks["the same with 8 GiB"].model == "2,710"
    for policy in ("thp", "hugetlb-2m"):
        assert checks[f"2M mappings that the mark costs, {policy}"].figures == {"model": 0}
        assert checks[f"2M mappings at login without / with the mark, {policy}"].verdict == SHOWN
    assert 3 <= checks["2M that get the mark, hugetlb-2m"].figures["model"] <= 13
    assert any("does not come out" in sentence for sentence in outcome.sentences)


def test_a_boot_that_touches_what_fits_has_as_many_mappings_as_were_counted() -> None:
    (sentence,) = (text for text in tdx_boot.run(quiet).sentences if "come out if boot touches" in text)
    share = float(sentence.partition("touches ")[2].partition("%")[0]) / 100
    assert tdx_boot.Boot(find("thp"), touched=share).mapped_2m() == pytest.approx(tdx_boot.MAPPED[0], abs=1)
