"""In a worker its import never ends."""

import time

from comfy.cli_args import args

if args.disable_all_custom_nodes:
    time.sleep(3600)


class PackThatHangs:
    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "patch", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def patch(self, model):
        model = model.clone()
        model.set_model_attn1_output_patch(lambda out, options: 0.9 * out)
        return (model,)


NODE_CLASS_MAPPINGS = {"PackThatHangs": PackThatHangs}
