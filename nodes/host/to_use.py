"""Which devices a run would use as things are: what a node says before its first run. No worker is started for it."""

from __future__ import annotations

import logging
import time

import comfy.model_management

from ...hybridiff_core.telling import told
from ...hybridiff_core.workers.devices import OTHERS, own_title, places

log = logging.getLogger("hybridiff")

KEPT_S = 5.0  # ComfyUI asks for a node's inputs many times a prompt
_found: tuple[float, dict] | None = None


def devices_to_use() -> dict:
    """As plain data: `own`, this process's device; `auto` and `others`, what these two choices would take; `said`.

    `said` are auto's lines, as telling.py has them. Empty where the devices cannot be asked.
    """
    global _found
    if _found is None or time.monotonic() - _found[0] > KEPT_S:
        _found = time.monotonic(), _ask()
    return _found[1]


def _ask() -> dict:
    try:
        own = comfy.model_management.get_torch_device()
        auto, said = places(["auto"], own)
        others, _ = places([OTHERS], own)
    except Exception:
        log.debug("the devices cannot be asked before a run", exc_info=True)
        return {}
    return {
        "own": own_title(own),
        "auto": [place.label for place in auto],
        "others": [place.label for place in others],
        "said": [told(line) for line in said],
    }
