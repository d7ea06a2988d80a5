"""A process that is ComfyUI itself, on another device and without its server.

ComfyUI's own start-up runs when its `main` is imported: allocator, dynamic VRAM, `--fast`, folders. Its server, its
database and its custom nodes begin only where `main` is the program.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys

from ...hybridiff_core import lines

log = logging.getLogger("hybridiff.worker")


def enter(start: dict) -> list[str]:
    """Be the ComfyUI at start["root"], with the settings start["args"], on start["device"].

    Before anything else of ComfyUI is imported. Returns a line where its start-up could not be run: ComfyUI's modules
    can still be imported then, as in a process of no start-up. Raises ValueError for settings that are none.
    """
    sys.path.insert(0, start["root"])
    sys.argv = [os.path.join(start["root"], "main.py")]
    # before `main`, which has the command line read at this import: a worker's has no meaning
    from . import settings

    settings.lay_args(start["args"], start["device"])
    _open_no_log()
    try:
        import main  # noqa: F401 - the start-up itself
    except (Exception, SystemExit) as error:  # a start-up may do anything
        log.warning("ComfyUI's start-up failed", exc_info=True)
        return [lines.STARTED_IN_PART(reason=f"{type(error).__name__}: {error}"[:200])]
    return []


def _open_no_log() -> None:
    """Have ComfyUI's start-up keep off the log: where it finds one that was begun, it opens no file and no stream."""
    with contextlib.suppress(ImportError):
        import app.logger

        app.logger.logs = app.logger.logs or [{"t": "", "m": "\n"}]
