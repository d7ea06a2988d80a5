"""pipeline: each branch has a group of devices, which divide its network."""

from __future__ import annotations

from ..schedule import Work
from .cut_mode import CutMode


class Pipeline(CutMode):
    """Guidance is exact in every step; only the inner parts' results are old, and put on a line to now."""

    work = Work.PIPELINE
