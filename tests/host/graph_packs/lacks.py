"""In a worker it has no node."""

from comfy.cli_args import args


class PackThatLacks:
    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "patch", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def patch(self, model):
        model = model.clone()
        model.set_model_attn1_output_patch(lambda out, options: 0.9 * out)
        return (model,)


NODE_CLASS_MAPPINGS = {} if args.disable_all_custom_nodes else {"PackThatLacks": PackThatLacks}
