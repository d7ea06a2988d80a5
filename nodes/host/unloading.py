"""When the workers' memory is given back: when the user has ComfyUI unload its models.

The host also detaches a model to make room for another one on its own card, in many graphs in each
prompt; that is no reason for the workers to let go of theirs.
"""

from __future__ import annotations

import logging
import threading
import traceback

from aiohttp import web
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP
from server import PromptServer

from .host_call import KEY
from .leases import pool

log = logging.getLogger("hybridiff")

PATHS = ("/free", "/api/free")
UNLOADING = "unload_all_models"  # comfy/model_management.py: what the user's unloading comes to, and many nodes'


def hear_requests() -> None:
    """Hear of it when the user's page, or another program, asks the server to unload: the host may hold no model then.

    Called once, before the server listens.
    """
    server = getattr(PromptServer, "instance", None)
    if server is None:
        return
    try:
        server.app.on_response_prepare.append(_on_response)
    except RuntimeError as error:  # it listens already: the pack was loaded late
        log.debug("requests to unload are not heard: %s", error)


async def _on_response(request: web.BaseRequest, response: web.StreamResponse) -> None:
    if request.method == "POST" and request.path in PATHS and response.status == 200:
        asked = await request.json()
        entirely = bool(asked.get("free_memory"))  # then the host drops its models from RAM too
        if entirely or asked.get("unload_models"):
            # not here: the server's loop must not wait for a worker that is being started
            threading.Thread(target=pool().unload, args=(entirely,), daemon=True).start()


def listen(patcher: ModelPatcher | None) -> None:
    """Hear of it when a node unloads all models, by whichever of the model's patchers the host then holds.

    The sampling's own clone is gone after the node's call; the host goes on with the one before it.
    """
    while patcher is not None:
        patcher.remove_callbacks_with_key(CallbacksMP.ON_DETACH, KEY)
        patcher.add_callback_with_key(CallbacksMP.ON_DETACH, KEY, _on_detach)
        patcher = patcher.parent


def _on_detach(patcher: ModelPatcher, unpatch_all: bool) -> None:
    # the host says to a patcher neither why nor for whom, so who asks is read from the calls under way;
    # it detaches without unpatching when it only swaps one clone for another
    if unpatch_all and any(frame.f_code.co_name == UNLOADING for frame, _ in traceback.walk_stack(None)):
        pool().unload()
