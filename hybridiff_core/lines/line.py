"""What a line is: a text that a user reads, why it is said, and what to do about it."""

from __future__ import annotations

import enum
import string
from collections.abc import Iterable
from dataclasses import dataclass, field


class Group(enum.Enum):
    """What the reader can do; the order is that of docs/MESSAGES.md."""

    NOTHING = "Nothing to do"
    SETTING = "Choose another setting in the node or graph"
    ORDER = "Put the nodes in another order, or leave one out"
    INSTALL = "Install, update or load something again"
    MEMORY = "Free memory, or restart"
    FAULT = "Report it"


@dataclass(frozen=True)
class Line:
    """A text with `{fields}`; called with them, it gives what the user reads.

    A field may be another line's text. `key` is the constant's name. Raises TypeError for fields
    that are not those of the text.
    """

    text: str
    cause: str
    way_out: str
    group: Group
    key: str = field(default="", init=False, compare=False)

    @property
    def fields(self) -> set[str]:
        """The names of the text's fields."""
        return {name for _, name, _, _ in string.Formatter().parse(self.text) if name is not None}

    def __call__(self, **fields: object) -> str:
        if fields.keys() != self.fields:
            raise TypeError(f"{self.key} takes {sorted(self.fields)}, not {sorted(fields)}")
        return self.text.format(**fields)


def name_lines(modules: Iterable[object]) -> dict[str, Line]:
    """Every line in `modules` by its constant's name, which becomes its key."""
    found = {}
    for module in modules:
        for name, line in vars(module).items():
            if isinstance(line, Line):
                if name in found:
                    raise ValueError(f"two lines are called {name}")
                object.__setattr__(line, "key", name)
                found[name] = line
    return found
