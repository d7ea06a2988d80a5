"""What a line says, for a page that has it in other languages: its name, its fields and the way out.

A line reaches the report as text, often from another process and with other lines in it. It is found again by the
pattern of its text, so nothing but text has to cross.
"""

from __future__ import annotations

import functools
import re
import string

from . import lines
from .lines import Group, Line

LEAST_LITERAL = 8  # characters of its own: less would fit anything


@functools.cache
def _patterns() -> tuple[tuple[re.Pattern, Line], ...]:
    """Each line's pattern; those with the most characters of their own first."""
    found = []
    for line in lines.ALL.values():
        parts = list(string.Formatter().parse(line.text))
        own = sum(len(literal) for literal, *_ in parts)
        if own >= LEAST_LITERAL:
            pattern = "".join(
                re.escape(literal) + (f"(?P<{name}>.+)" if name is not None else "") for literal, name, *_ in parts
            )
            found.append((own, re.compile(pattern, re.DOTALL), line))
    return tuple((pattern, line) for _, pattern, line in sorted(found, key=lambda entry: -entry[0]))


@functools.lru_cache(512)
def told(text: str) -> dict:
    """A line as plain data, not to be changed: `text`, `key` (None if it is not known), `fields`, `way_out`, `group`.

    A field that is a line itself is told in the same way; then the way out, the group and the `cause`, a line's name,
    are its own.
    """
    for pattern, line in _patterns():
        if match := pattern.fullmatch(text):
            fields = {name: _field(value) for name, value in match.groupdict().items()}
            inner = next((value for value in fields.values() if isinstance(value, dict)), None)
            way_out, group = (inner["way_out"], inner["group"]) if inner else (line.way_out, line.group.name)
            cause = inner["cause"] if inner else line.key
            return {
                "text": text, "key": line.key, "fields": fields, "cause": cause, "way_out": way_out, "group": group,
            }  # fmt: skip
    first, mark, rest = text.partition("; ")
    if mark and (reason := told(first))["key"]:
        fields = {"reason": reason, "why": _field(rest)}
        return {**reason, "text": text, "key": lines.AND_UNDIVIDED.key, "fields": fields}
    return {"text": text, "key": None, "fields": {}, "cause": None, "way_out": "", "group": Group.NOTHING.name}


def _field(value: str) -> object:
    """A field's value: a line's data where it is one, else the text."""
    inner = told(value)
    return inner if inner["key"] else value
