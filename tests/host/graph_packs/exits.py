"""In a worker it ends the process at its import."""

import sys

from comfy.cli_args import args

if args.disable_all_custom_nodes:
    sys.exit("not without a screen")


class PackThatExits:
    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "patch", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def patch(self, model):
        model = model.clone()
        model.set_model_attn1_output_patch(lambda out, options: 0.9 * out)
        return (model,)


NODE_CLASS_MAPPINGS = {"PackThatExits": PackThatExits}
