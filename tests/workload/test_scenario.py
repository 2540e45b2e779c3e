"""Scenario files: what is accepted, and the one line that says what is wrong."""

from pathlib import Path

import pytest

from gmemlab.errors import UsageError
from gmemlab.units import GIB, HOUR, MIB, SECOND
from gmemlab.workload.scenario import find, load, shipped
from gmemlab.workload.toml_lines import nearest_line, toml_lines
from gmemlab.workload.trace import generate

GOOD = (Path(__file__).parents[2] / "scenarios" / "day.toml").read_text(encoding="utf-8")


def failure(tmp_path: Path, text: str) -> UsageError:
    path = tmp_path / "bad.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        load(path)
    assert caught.value.file == str(path)
    assert "\n" not in str(caught.value)
    return caught.value


def line_of(text: str, fragment: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if fragment in line)


def test_units_are_read() -> None:
    day = load("day")
    assert day.duration == 24 * HOUR
    assert day.swiotlb.smallest == 64 * MIB
    assert day.guests.largest == 128 * GIB
    assert day.boot.time == 20 * SECOND
    assert day.policies[0] == "4k"
    assert load("boot").guests.fixed == (4 * GIB,)


def test_shipped_scenarios_are_found_by_name_and_path() -> None:
    assert {"boot", "day", "day-reporting", "demo"} <= set(shipped())
    assert find("boot").name == "boot.toml"
    assert find(find("boot")) == find("boot")


def test_unknown_scenario_names_the_shipped_ones() -> None:
    with pytest.raises(UsageError, match=r"no such scenario .*'week'.*boot, day, day-reporting, demo"):
        load("week")


@pytest.mark.parametrize(
    ("old", "new", "key", "value", "allowed"),
    [
        ('placement = "scattered"', 'placement = "spread"', "runtime.placement", "spread", "scattered, packed"),
        ("load = 0.85", "load = 1.5", "guests.load", 1.5, "<= 1"),
        ("load = 0.85", "load = 0", "guests.load", 0, "> 0"),
        ("load = 0.85", "load = nan", "guests.load", None, "a finite number"),
        ("load = 0.85", 'load = "85%"', "guests.load", "85%", "a number"),
        ("pages = 1 ", "pages = 1.5 ", "runtime.pages", 1.5, "a whole number"),
        ("pages = 1 ", "pages = 3 ", "runtime.pages", 3, "a power of two"),
        ("returns_private = true", "returns_private = 1", "runtime.returns_private", 1, "true or false"),
        ('duration = "24h"', 'duration = "24"', "duration", "24", "a number with ns, us, ms, s, min, h, d or w"),
        ('duration = "24h"', "duration = 24", "duration", 24, "a number with ns, us, ms, s, min, h, d or w"),
        ('duration = "24h"', 'duration = "0s"', "duration", "0s", "a duration above 0"),
        ('largest = "128G"', 'largest = "129GG"', "guests.largest", "129GG", "a number with K, M, G, T or P"),
        ('largest = "128G"', 'largest = "64M"', "guests.largest", "64M", "multiples of 2M from 128M to 16T"),
        ('chunk = "64K"', 'chunk = "96K"', "background.chunk", "96K", "a power of two"),
        ('policies = ["4k", "thp"', 'policies = ["4k", 7', "policies.1", 7, "a string"),
        ('policies = ["4k", "thp"', 'policies = ["4k", "nix"', "policies.1", "nix", "4k, 4k-inplace"),
        ('policies = ["4k", "thp"', 'policies = ["anon-thp", "thp"', "policies.0", "anon-thp", "4k, 4k-inplace"),
        ('title = "', 'title = "\\u001b[31m', "title", None, "without control characters"),
        ('title = "', 'title = "a\\n', "title", None, "one line"),
        ('policies = ["4k", "thp"', 'policies = ["4k",\n  7', "policies.1", 7, "a string"),
    ],
)
def test_bad_values(tmp_path: Path, old: str, new: str, key: str, value: object, allowed: str) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new)
    error = failure(tmp_path, text)
    assert error.key == key
    assert error.line == line_of(text, new.splitlines()[-1])
    if value is not None:
        assert error.value == value
    assert error.allowed is not None
    assert allowed in error.allowed


def test_the_line_reads_well(tmp_path: Path) -> None:
    error = failure(tmp_path, GOOD.replace('placement = "scattered"', 'placement = "spread"'))
    line = line_of(GOOD, "placement")
    assert str(error) == (
        f"{tmp_path}/bad.toml:{line}: runtime.placement: not one of the choices (value 'spread'; allowed: scattered, packed)"
    )


def test_unknown_keys_and_tables(tmp_path: Path) -> None:
    text = GOOD.replace("load_cap", "loadcap")
    error = failure(tmp_path, text)
    assert (error.key, error.line) == ("guests.loadcap", line_of(text, "loadcap"))
    assert "load_cap" in str(error.allowed)
    text = GOOD.replace("[pins]", "[pin]")
    error = failure(tmp_path, text)
    assert (error.key, error.line) == ("pin", line_of(text, "[pin]"))
    assert "pins" in str(error.allowed)


def test_settings_that_could_not_matter_are_refused_with_the_reason(tmp_path: Path) -> None:
    for name, reason in (("max_ptes_swap", "nothing is swapped"), ("max_ptes_shared", "no page is mapped by two")):
        text = GOOD + f"\n[daemons]\nmax_ptes_none = 64\n{name} = 64\n"
        error = failure(tmp_path, text)
        assert (error.key, error.line) == (f"daemons.{name}", line_of(text, name))
        assert error.message.startswith(f"not modelled: {reason}")


@pytest.mark.parametrize(
    ("old", "new", "key"), [("[guests]", "[gusts]", "gusts"), ("placement =", "placment =", "runtime.placment")]
)
def test_misspelt_names_are_told_rather_than_the_missing_ones(tmp_path: Path, old: str, new: str, key: str) -> None:
    text = GOOD.replace(old, new, 1)
    error = failure(tmp_path, text)
    assert (error.key, error.message, error.line) == (key, "unknown key", line_of(text, new))


def test_key_of_thousands_of_parts(tmp_path: Path) -> None:
    text = GOOD + "\n[" + ".".join(["a"] * 3000) + "]\n" + ".".join(["b"] * 3000) + " = 1\n"
    error = failure(tmp_path, text)
    assert (error.key, error.line) == ("a", line_of(text, "[a.a"))


def test_scenario_that_is_larger_than_the_host_names_its_file_and_line(tmp_path: Path) -> None:
    for text in (GOOD, (Path(__file__).parents[2] / "scenarios" / "boot.toml").read_text(encoding="utf-8")):
        path = tmp_path / "large.toml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UsageError, match="larger than the host") as caught:
            generate(load(path), 256 * MIB, 0)
        assert (caught.value.file, caught.value.line, caught.value.key) == (str(path), line_of(text, "[guests]"), "guests")


def test_missing_keys_point_at_their_table(tmp_path: Path) -> None:
    text = "\n".join(line for line in GOOD.splitlines() if not line.startswith("rate_per_gib_hour"))
    error = failure(tmp_path, text)
    assert (error.key, error.line) == ("runtime.rate_per_gib_hour", line_of(text, "[runtime]"))
    error = failure(tmp_path, "\n".join(GOOD.splitlines()[: line_of(GOOD, "[guests]") - 1]))
    assert (error.key, error.line) == ("guests", 1)


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("load = 0.85", "count = 2\nload = 0.85", "[guests]", "either count or load"),
        ("load_cap = 0.93", "load_cap = 0.5", "[guests]", "load needs load_cap"),
        ('sizes = "azure-2019"', 'sizes = "fixed"', "[guests]", "sizes and fixed"),
        ('sizes = "azure-2019"', 'sizes = "share"', "[guests]", "sizes and shares"),
        ('lifetimes = "azure-2019"', 'lifetimes = "forever"', "[guests]", "come and go"),
        ('tail_mean = "30d"', "", "[guests]", "tail_mean"),
        ('shortest = "5min"', 'shortest = "2h"', "[guests]", "enclose one hour"),
        ('largest = "128G"', 'largest = "64G"', "[guests]", "inside the bucket"),
        ("touched_final = 0.9", "touched_final = 0.1", "[boot]", "touched_final is below touched"),
        ('smallest = "64M"', 'smallest = "2G"', "[swiotlb]", "not in order"),
        ('sample_interval = "15min"', 'sample_interval = "1ns"', "# A day", "sample_interval is too short"),
        ('sample_interval = "15min"', 'sample_interval = "25h"', "# A day", "longer than the duration"),
        ('time = "20s"', 'time = "1h"', "# A day", "boot.time is too long"),
    ],
)
def test_values_that_do_not_go_together(tmp_path: Path, old: str, new: str, place: str, words: str) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    error = failure(tmp_path, text)
    assert words in error.message
    assert error.line == line_of(text, place)
    assert error.allowed


def test_shares_need_a_load_and_pins_need_pages(tmp_path: Path) -> None:
    text = GOOD.replace("load = 0.85", "count = 3").replace('sizes = "azure-2019"', 'sizes = "share"\nshares = [0.1]')
    assert "shares of the load" in failure(tmp_path, text).message
    start, end = GOOD.index("[runtime]"), GOOD.index("[pins]")
    assert "pins.share" in failure(tmp_path, GOOD[:start] + GOOD[end:]).message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('title = "a"\nduration = 24h\n', 2),
        ('title = "a"\ntitle = "b"\n', 2),
        ("title = 'a", 1),
        ("[guests\n", 1),
        ("a", 1),
    ],
)
def test_text_that_is_not_toml(tmp_path: Path, text: str, line: int) -> None:
    error = failure(tmp_path, text)
    assert error.message.startswith("not valid TOML: ")
    assert error.line == line


def test_unreadable_files(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes(b'title = "\xe9"\n')
    with pytest.raises(UsageError, match="not UTF-8"):
        load(path)


def test_paths_and_texts_beyond_all_measure(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the scenario"):
        load("x" * 5000)
    path = tmp_path / "deep.toml"
    path.write_text("a = " + "[" * 20_000, encoding="utf-8")
    with pytest.raises(UsageError, match="nested too deeply"):
        load(path)
    with pytest.raises(UsageError, match="no such scenario"):
        load(tmp_path)


@pytest.mark.parametrize("text", ["guests = 3", "[[guests]]", "guests = [1]"])
def test_tables_that_are_something_else(tmp_path: Path, text: str) -> None:
    start, end = GOOD.index("[guests]"), GOOD.index("[boot]")
    error = failure(
        tmp_path, text + "\n" + GOOD[:start] + GOOD[end:] if "=" in text else GOOD[:start] + text + "\n" + GOOD[end:]
    )
    assert (error.key, error.allowed) == ("guests", "a table")
    assert error.line is not None


def test_lines_of_every_form_of_key() -> None:
    text = 'a = 1\n[x]\nb.c = [1,\n # note\n 2]\nd = {e = 1, "f g" = [\n3]}\n[[y.z]]\nq = 1\n[[y.z]]\nq = 2\n'
    lines = toml_lines(text)
    assert lines[("a",)] == 1
    assert lines[("x",)] == 2
    assert lines[("x", "b", "c", 0)] == 3
    assert lines[("x", "b", "c", 1)] == 5
    assert lines[("x", "d", "f g", 0)] == 7
    assert lines[("y", "z", 1, "q")] == 11
    assert nearest_line(lines, ("x", "nothing", "here")) == 2
    assert nearest_line(lines, ("nothing",)) == 1
