"""In a worker it fails at its import."""

from comfy.cli_args import args

if args.disable_all_custom_nodes:
    raise ImportError("no module named luck")


class PackThatRaises:
    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "patch", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def patch(self, model):
        model = model.clone()
        model.set_model_attn1_output_patch(lambda out, options: 0.9 * out)
        return (model,)


NODE_CLASS_MAPPINGS = {"PackThatRaises": PackThatRaises}
