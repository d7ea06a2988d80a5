"""What a line says, for a page that has it in other languages: its name, its fields and the way out.

A line reaches the report as text, often from another process and with other lines in it. It is found again by the
patterns of the lines' texts, so nothing but text has to cross. Of several ways to read a text, the one counts in which
most characters are lines' own.
"""

from __future__ import annotations

import functools
import re
import string

from . import lines
from .lines import Group, Line

LEAST_LITERAL = 8  # characters of its own: less would fit anything, and counts only with another line in it
OUTERMOST = ("RAN_ON_ONE_DEVICE", "NONE_PREDICTED")  # never in another line
CARRYING = {"reason", "why", "what", "how", "said", "node"}  # fields that are often lines; others mostly are data
DECIDING = {"AND_NOT_BY_GRAPH": "why"}  # the field that a user can do something about, where it is not the first


@functools.cache
def _patterns() -> tuple[tuple[int, tuple[re.Pattern, ...], Line], ...]:
    """Each line's own characters, and its patterns: with fields as long, and as short, as can be."""
    found = []
    for line in lines.ALL.values():
        parts = list(string.Formatter().parse(line.text))
        own = sum(len(literal) for literal, *_ in parts)
        if own:
            patterns = [
                "".join(re.escape(literal) + (f"(?P<{name}>{any_})" if name else "") for literal, name, *_ in parts)
                for any_ in (".+", ".+?")
            ]
            found.append((own, tuple(re.compile(pattern, re.DOTALL) for pattern in patterns), line))
    return tuple(found)


def told(text: str) -> dict:
    """A line as plain data, not to be changed: `text`, `key` (None if it is not known), `fields`, `way_out`, `group`.

    A field that is a line itself is told in the same way; then the way out, the group and the `cause`, a line's name,
    are its own.
    """
    return _read(text)[1]


@functools.lru_cache(2048)
def _read(text: str) -> tuple[int, dict]:
    """How many characters of `text` are lines' own, and what it says."""
    best, read = (0, False, 0), None
    for own, patterns, line in _patterns():
        for pattern in patterns:
            match = pattern.fullmatch(text)
            if match is None:
                break
            inner = {name: _read(value) for name, value in match.groupdict().items()}
            score = own + sum(characters for name, (characters, _) in inner.items() if name in CARRYING)
            rank = (score, line.key in OUTERMOST, own)
            if rank > best and (own >= LEAST_LITERAL or score > own):
                best, read = rank, (line, {name: said for name, (_, said) in inner.items()})
    if read is None:
        return 0, {
            "text": text, "key": None, "fields": {}, "cause": None, "way_out": "", "group": Group.NOTHING.name,
        }  # fmt: skip
    line, inner = read
    known = {name: said for name, said in inner.items() if said["key"]}
    deciding = known.get(DECIDING.get(line.key)) or next(iter(known.values()), None)
    way_out, group = (deciding["way_out"], deciding["group"]) if deciding else (line.way_out, line.group.name)
    return best[0], {
        "text": text,
        "key": line.key,
        "fields": {name: said if said["key"] else said["text"] for name, said in inner.items()},
        "cause": deciding["cause"] if deciding else line.key,
        "way_out": way_out,
        "group": group,
    }
