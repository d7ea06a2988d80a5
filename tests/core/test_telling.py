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


def path_of(said):
    """The names of the lines from the outermost in, a list for one that has several."""
    inner = [path_of(value) for value in said["fields"].values() if isinstance(value, dict)]
    return [said["key"], *(inner[0] if len(inner) == 1 else inner)]


def test_lines_within_lines_are_read_as_they_were_put_together():
    patched = lines.NETWORK_PATCHED(patches="attn1_patch")
    packs = lines.AND_NOT_BY_GRAPH(reason=patched, why=lines.OTHER_PACKS_OFF(packs="IPAdapter"))
    said = told(lines.RAN_ON_ONE_DEVICE(reason=packs))
    assert path_of(said) == ["RAN_ON_ONE_DEVICE", "AND_NOT_BY_GRAPH", ["NETWORK_PATCHED"], ["OTHER_PACKS_OFF"]]
    assert said["cause"] == "OTHER_PACKS_OFF" and said["way_out"] == lines.OTHER_PACKS_OFF.way_out
    undivided = lines.AND_UNDIVIDED(reason=lines.CFG_1(), why=lines.UNET_HAS_NO_TOKENS())
    said = told(lines.RAN_ON_ONE_DEVICE(reason=undivided))
    assert path_of(said) == ["RAN_ON_ONE_DEVICE", "AND_UNDIVIDED", ["CFG_1"], ["UNET_HAS_NO_TOKENS"]]
    late = lines.TOO_LATE(what=lines.DID_NOT_ANSWER(), seconds=12)
    said = told(lines.TOOK_OVER(reason=lines.WORKER_OUT(device="pc-b: cuda:0 (RTX 3090, 24 GB)", reason=late)))
    assert path_of(said) == ["TOOK_OVER", "WORKER_OUT", "TOO_LATE", "DID_NOT_ANSWER"]
    assert said["fields"]["reason"]["fields"]["device"] == "pc-b: cuda:0 (RTX 3090, 24 GB)"
    broke = lines.FAILED_BY_CONNECTION(what=lines.DID_NOT_LOAD(), reason=lines.CONNECTION_BROKE(error="EPIPE"))
    assert path_of(told(broke))[1:] == [["DID_NOT_LOAD"], ["CONNECTION_BROKE"]]
    title = lines.NODE_TITLE(kind="PackSaves", id=5)
    assert path_of(told(lines.OUTPUT_NODE_BEFORE_MODEL(node=title))) == ["OUTPUT_NODE_BEFORE_MODEL", "NODE_TITLE"]


def test_what_no_line_says_is_told_as_it_is():
    assert told("out of coffee") == {
        "text": "out of coffee", "key": None, "fields": {}, "cause": None, "way_out": "", "group": "NOTHING",
    }  # fmt: skip
