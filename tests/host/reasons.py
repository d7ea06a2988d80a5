"""Why something is not shared, in words, for what graphs seldom come to. Run by ComfyUI's own Python.

    python reasons.py COMFYUI_ROOT

Prints one line of JSON: the words for each case.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace


class Pack:
    pass


def main(root: str) -> dict:
    from frozen import enter

    enter(root)
    from comfy.patcher_extension import CallbacksMP
    from hybridiff_pack.nodes.host import obstacles

    def inside(*keys: object) -> str | None:
        of_kind = {CallbacksMP.ON_PRE_RUN: {key: [print] for key in keys}}
        return obstacles.code_inside({"transformer_options": {"callbacks": of_kind}})

    def staying(*conds: dict) -> str:
        controls = SimpleNamespace(reason=lambda cond: cond.get("control"))
        return obstacles.all_stay(conds, controls)

    hooks, control, area = {"hooks": 1}, {"control": "a ControlNet with hooks"}, {"control": "a ControlNet on an area"}
    return {
        "no key": inside(None),
        "a class": inside(Pack),
        "a pack's name": inside("their_pack"),
        "a name and none": inside(None, "their_pack", Pack),
        "one reason": staying(hooks, hooks),
        "two reasons": staying(control, hooks),
        "three reasons": staying(area, hooks, {"gligen": 1}),
        "no reason": staying({}),
    }


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent)
    import families
    import frozen

    frozen.families = families
    print(json.dumps(main(sys.argv[1])))
