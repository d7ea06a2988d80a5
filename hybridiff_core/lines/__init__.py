"""Every line that a user can read about a run, with its cause and its way out; docs/MESSAGES.md lists them.

Used as `lines.NO_SECOND_GPU()`, with the text's fields where it has some. `ALL` has each by its name.
"""

from . import devices, graph, messages, model, pipelines, steps, workers
from .devices import *  # noqa: F403
from .graph import *  # noqa: F403
from .line import Group, Line, name_lines
from .messages import *  # noqa: F403
from .model import *  # noqa: F403
from .pipelines import *  # noqa: F403
from .steps import *  # noqa: F403
from .workers import *  # noqa: F403

ALL: dict[str, Line] = name_lines((devices, graph, model, steps, pipelines, workers, messages))

__all__ = ["ALL", "Group", "Line", *ALL]
