"""Prints, starts threads and opens a port at its import, and registers a page at ComfyUI's server."""

import socket
import sys
import threading
import time

from aiohttp import web
from server import PromptServer

print("a pack was here" * 1000, flush=True)
print("and there", file=sys.stderr, flush=True)
sys.stdout.write("without a line's end")
threading.Thread(target=time.sleep, args=(3600,)).start()
threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
port = socket.create_server(("127.0.0.1", 0))


@PromptServer.instance.routes.get("/noisy")
async def noisy(request):
    return web.json_response({})


class PackThatIsNoisy:
    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "patch", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def patch(self, model):
        model = model.clone()
        model.set_model_attn1_output_patch(lambda out, options: 0.9 * out)
        return (model,)


NODE_CLASS_MAPPINGS = {"PackThatIsNoisy": PackThatIsNoisy}
