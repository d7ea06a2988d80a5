"""Every line that a user can read about a run, with its cause and its way out; docs/MESSAGES.md lists them.

Used as `lines.NO_SECOND_GPU()`, with the text's fields where it has some. `ALL` has each by its name.
"""

from . import (
    by_graph_lines,
    device_lines,
    diffusers_lines,
    graph_lines,
    model_lines,
    remote_lines,
    step_lines,
    token_lines,
    wire_lines,
    worker_lines,
)
from .by_graph_lines import *  # noqa: F403
from .device_lines import *  # noqa: F403
from .diffusers_lines import *  # noqa: F403
from .graph_lines import *  # noqa: F403
from .line import Group, Line, name_lines
from .model_lines import *  # noqa: F403
from .remote_lines import *  # noqa: F403
from .step_lines import *  # noqa: F403
from .token_lines import *  # noqa: F403
from .wire_lines import *  # noqa: F403
from .worker_lines import *  # noqa: F403

ALL: dict[str, Line] = name_lines(
    (
        device_lines,
        graph_lines,
        by_graph_lines,
        model_lines,
        step_lines,
        token_lines,
        diffusers_lines,
        worker_lines,
        remote_lines,
        wire_lines,
    )
)

__all__ = ["ALL", "Group", "Line", *ALL]
