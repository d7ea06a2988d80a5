"""In a worker native code of it ends the process, as a fault of an extension does: its node's, or its patch's."""

import ctypes

from comfy.cli_args import args


class PackThatCrashes:
    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "patch", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "where": (["its node", "the network"],)}}

    def patch(self, model, where):
        def crash():
            if args.disable_all_custom_nodes:
                ctypes.string_at(0)

        def scaled(out, options):
            crash()
            return 0.9 * out

        if where == "its node":
            crash()
        model = model.clone()
        model.set_model_attn1_output_patch(scaled)
        return (model,)


NODE_CLASS_MAPPINGS = {"PackThatCrashes": PackThatCrashes}
