"""A line's text tells its name, its fields and the way out."""

from hybridiff_core import lines
from hybridiff_core.lines import ALL
from hybridiff_core.telling import told

PASSING_ON = {"AND_UNDIVIDED", "LAST_WORDS", "WORKER_ERROR", "FAILED_BY_CONNECTION", "WRONG_VALUE"}  # other lines alone


def test_every_line_is_found_by_its_text():
    for name, line in ALL.items():
        found = told(line.text.format(**dict.fromkeys(line.fields, 7)))
        assert found["key"] == (None if name in PASSING_ON else name)


def test_a_line_within_others_gives_its_way_out():
    found = told(lines.TOOK_OVER(reason=lines.WORKER_OUT(device="cuda:1", reason=lines.KILLED(signal=9))))
    assert (found["key"], found["cause"]) == ("TOOK_OVER", "KILLED")
    assert (found["way_out"], found["group"]) == (lines.KILLED.way_out, "MEMORY")
    assert found["fields"]["reason"]["fields"]["device"] == "cuda:1"


def test_what_no_line_says_is_told_as_it_is():
    assert told("out of coffee") == {
        "text": "out of coffee", "key": None, "fields": {}, "cause": None, "way_out": "", "group": "NOTHING",
    }  # fmt: skip
