"""In a worker it ends the process: native code of its node or its patch crashes, or its node wants an exit."""

import ctypes
import sys

from comfy.cli_args import args


class PackThatCrashes:
    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "patch", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "where": (["its node", "the network", "exit"],)}}

    def patch(self, model, where):
        def crash():
            if args.disable_all_custom_nodes:
                ctypes.string_at(0)

        def scaled(out, options):
            crash()
            return 0.9 * out

        if where == "its node":
            crash()
        if where == "exit" and args.disable_all_custom_nodes:
            sys.exit("no more")
        model = model.clone()
        model.set_model_attn1_output_patch(scaled)
        return (model,)


NODE_CLASS_MAPPINGS = {"PackThatCrashes": PackThatCrashes}
