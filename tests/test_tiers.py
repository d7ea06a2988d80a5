"""The parts in which .ci/run goes through the tests that not every change runs."""

from __future__ import annotations

import pytest

from .conftest import FOLDERS
from .tiers import DURATIONS, PART_S, chosen, durations, full, full_but, parts, read_log

KNOWN = {f"tests/{name}.py": {"full": seconds} for name, seconds in zip("abcdef", (900, 700, 500, 400, 300, 200))}


def test_parts_are_as_few_as_can_be_and_about_as_long():
    found = parts(KNOWN, KNOWN)
    lengths = [sum(KNOWN[file]["full"] for file in part) for part in found]
    assert len(found) == -(-sum(lengths) // PART_S) and sorted(file for part in found for file in part) == sorted(KNOWN)
    assert max(lengths) - min(lengths) <= 200


def test_all_come_round_and_a_part_begins_in_another_place_each_time():
    count = len(parts(KNOWN, KNOWN))
    assert count > 1
    seen = [chosen(number, KNOWN, KNOWN) for number in range(7, 7 + 8 * count)]
    assert {place for place, _ in seen[:count]} == set(range(count))
    assert {found[place][0] for place, found in seen} == set(KNOWN)
    for place, found in seen:
        assert sorted(found[place]) == parts(KNOWN, KNOWN)[place]


def test_a_file_without_figures_is_in_a_part_too():
    assert sum("tests/new.py" in part for part in parts([*KNOWN, "tests/new.py"], KNOWN)) == 1
    assert parts([], KNOWN) == [[]] and chosen(5, [], KNOWN) == (0, [[]])


def test_the_figures_are_of_files_that_are_there():
    root = DURATIONS.parents[1]
    assert [file for file in durations() if not (root / file).is_file()] == []


def test_rows_are_marked_by_name():
    rows = full_but(["a", "b", "c"], "b")
    assert rows == [full("a"), "b", full("c")]
    with pytest.raises(AssertionError, match="no such rows"):
        full_but(["a"], "b")


def test_a_log_is_read_by_file_and_tier(tmp_path):
    case = '<testcase time="{}"><properties><property name="file" value="{}"/><property name="tier" value="{}"/>'
    cases = [(1.5, "a.py", "full"), (2, "a.py", "full"), (4, "a.py", "every"), (8, "b.py", "every")]
    log = tmp_path / "log.xml"
    log.write_text(f"<suite>{''.join(case.format(*one) + '</properties></testcase>' for one in cases)}</suite>")
    assert read_log(log) == {"a.py": {"full": 3.5, "every": 4.0}, "b.py": {"every": 8.0}}
    log.write_text(f"<suite>{case.format(1, 'a.py', 'full')}</properties><skipped/></testcase></suite>")
    assert read_log(log) == {}


def test_every_folder_of_tests_has_its_place_in_the_order():
    here = DURATIONS.parent
    assert {path.relative_to(here).parts[0] for path in here.rglob("test_*.py")} <= {*FOLDERS, "test_tiers.py"}
