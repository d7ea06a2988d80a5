"""A worker's backend that makes room in a run. Run by ComfyUI's own Python: python room.py COMFYUI_ROOT MODELS_FOLDER

Answers each line with what was loaded before and after, and how far the network's result then is from the one before.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

PACK = Path(__file__).resolve().parents[2]


def enter(root: str) -> None:
    runpy.run_path(str(PACK / "nodes" / "host" / "worker.py"))["register_pack"]()
    sys.path.insert(0, root)
    import comfy.cli_args

    comfy.cli_args.args.cpu = True


def run(models: str) -> dict:
    import comfy.sd
    import folder_paths
    import torch
    from comfy import model_management
    from hybridiff_pack.nodes.host import settings
    from hybridiff_pack.nodes.host.backend import ComfyBackend
    from hybridiff_pack.nodes.host.recipe import recipe_of

    folder = Path(models) / "diffusion_models"
    folder_paths.add_model_folder_path("diffusion_models", str(folder))
    other = comfy.sd.load_diffusion_model(str(folder / "sd3_depth4.safetensors"))
    backend = ComfyBackend({"device": "cpu", "model_folders": [models]})
    backend.load({"model": recipe_of(other), "args": settings.read_args()})
    run = {"conds": [], "controls": [], "options": {}, "shape": [1, 16, 16, 16], "settings": settings.read()}
    backend.begin(run, fresh=True)
    model_management.load_models_gpu([other])
    random = torch.Generator().manual_seed(0)
    x, text, pooled = (torch.randn(*size, generator=random) for size in ([1, 16, 16, 16], [1, 8, 4096], [1, 2048]))

    def forward() -> torch.Tensor:
        return backend._model.diffusion_model(x, torch.tensor([500.0]), context=text, y=pooled)

    expected, before = forward(), len(model_management.loaded_models())
    held = backend._patcher.loaded_size()
    backend.make_room()
    return {
        "before": before,
        "after": [patcher is backend._patcher for patcher in model_management.loaded_models()],
        "held": [held, backend._patcher.loaded_size()],
        "difference": ((forward() - expected).abs().max() / expected.std()).item(),
    }


if __name__ == "__main__":
    enter(sys.argv[1])
    import torch

    with torch.inference_mode():
        for _ in sys.stdin:
            print(json.dumps(run(sys.argv[2])), flush=True)
