"""A worker that writes down what it is while it computes. Started in the real one's place (headless.py).

HYBRIDIFF_SEEN names the file. HYBRIDIFF_OTHERWISE says what is to be other than in the host: "main" has ComfyUI's
start-up fail, "rounding" has weights rounded as under dynamic VRAM, which needs an NVIDIA GPU.
"""

import json
import os
import runpy
import sys
import threading
from pathlib import Path

import psutil

OTHERWISE = os.environ.get("HYBRIDIFF_OTHERWISE", "")


class NoMain:
    """Finds no module `main`."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "main":
            raise ImportError("no main, for a test")


def seen() -> dict:
    import comfy.cli_args
    import comfy.ldm.modules.attention as attention
    from hybridiff_pack.hybridiff_core.workers import torch_settings
    from hybridiff_pack.nodes.host.settings import read_args

    process = psutil.Process()
    args = comfy.cli_args.args
    return {
        "args": {**read_args(), "listen": args.listen, "manager": args.enable_manager, "database": args.database_url},
        "fast": sorted(str(item) for item in args.fast),
        "torch": torch_settings.read(),
        "attention": attention.optimized_attention.__name__,
        "main": hasattr(sys.modules.get("main"), "start_comfyui"),
        "listens": [str(one.laddr) for one in process.net_connections() if one.status == psutil.CONN_LISTEN],
        "threads": sorted(thread.name for thread in threading.enumerate() if not thread.daemon),
        "writes": [file.path for file in process.open_files() if getattr(file, "mode", "r") != "r"],
    }


if __name__ == "__main__":
    worker_script = Path(__file__).resolve().parents[2] / "nodes" / "host" / "worker.py"
    runpy.run_path(str(worker_script))["enter"](__file__)
    if OTHERWISE == "main":
        sys.meta_path.insert(0, NoMain)

    from hybridiff_pack.hybridiff_core.workers import worker

    def make_backend(start: dict):
        from hybridiff_pack.nodes.host.headless import enter

        remarks = enter(start)
        import comfy.utils
        from hybridiff_pack.nodes.host.backend import ComfyBackend

        if OTHERWISE == "rounding":  # a seed is the module's name there, not the weight's
            by_name = comfy.utils.string_to_seed
            comfy.utils.string_to_seed = lambda name: by_name(name.removesuffix(".weight").removesuffix(".bias"))

        class Seen(ComfyBackend):
            def load(self, recipe):
                loaded = super().load(recipe)
                return {**loaded, "dynamic": True} if OTHERWISE == "rounding" else loaded

            def predict(self, x, sigma, units, through=None, rows=None):
                print("a pack prints", flush=True)  # not among the frames
                predicted = super().predict(x, sigma, units, through, rows)
                told = json.dumps(seen())
                with open(os.environ["HYBRIDIFF_SEEN"], "a") as file:
                    file.write(told + "\n")
                return predicted

        return Seen(start, remarks)

    worker.serve(make_backend)
