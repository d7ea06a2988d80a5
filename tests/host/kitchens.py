"""Models in turn in a worker's kitchen. Run by ComfyUI's own Python.

    python kitchens.py COMFYUI_ROOT MODELS_FOLDER

Prints one line of JSON: for each case whether each model was made anew, and how many lived at the end.
"""

from __future__ import annotations

import json
import os
import sys
import weakref
from pathlib import Path


def main(root: str, models: str) -> dict:
    from frozen import enter

    enter(root)
    import comfy.sd
    from hybridiff_pack.nodes.host import kitchen, recipe

    folder = os.path.join(models, "diffusion_models")
    paths = [os.path.join(folder, f"sd3_depth{depth}.safetensors") for depth in (4, 6)]
    here = [comfy.sd.load_diffusion_model(path) for path in paths]
    import folder_paths

    folder_paths.folder_names_and_paths["diffusion_models"][0].append(folder)
    by_file = [recipe.recipe_of(model) for model in here]
    for model in here:
        model.cached_patcher_init = None
    by_weights = [recipe.recipe_of(model) for model in here]
    sizes = [os.path.getsize(path) for path in paths]
    asked = []

    def turns(recipes: list, order: str, free: int) -> dict:
        def has() -> int:
            asked.append(free)
            return free

        cook = kitchen.Kitchen([folder], free=has)
        made, seen = [], []
        for which in map(int, order):
            patcher, anew = cook.make(recipes[which])
            made.append(anew)
            seen.append(weakref.ref(patcher.model))
            assert patcher.model.diffusion_model.depth == (4, 6)[which]
            del patcher
        living = len({id(model()) for model in seen} - {id(None)})
        cook.clear()
        return {"anew": made, "living": living, "after": sum(model() is not None for model in seen)}

    many = [{**by_file[0], "options": {"fp8_optimizations": bool(n % 2)}, "stamp": (n, n)} for n in range(6)]
    return {
        "files": turns(by_file, "010101", 1 << 40),
        "weights": turns(by_weights, "010101", 1 << 40),
        "no memory": turns(by_file, "0101", 0),
        "memory for the smaller": turns(by_file, "1010", sizes[0]),
        "more than are kept": {"anew": [], **count(kitchen, folder, many)},
        "asked": len(asked) > 0,
    }


def count(kitchen, folder: str, recipes: list) -> dict:
    cook = kitchen.Kitchen([folder], free=lambda: 1 << 40)
    models = [weakref.ref(cook.make(recipe)[0].model) for recipe in recipes]
    return {"living": sum(model() is not None for model in models), "kept": kitchen.MODELS_KEPT}


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent)
    import families
    import frozen

    frozen.families = families
    print(json.dumps(main(*sys.argv[1:])))
