"""In a worker it asks for something at its import."""

from comfy.cli_args import args

if args.disable_all_custom_nodes:
    input("may I? ")


class PackThatAsks:
    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "patch", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def patch(self, model):
        model = model.clone()
        model.set_model_attn1_output_patch(lambda out, options: 0.9 * out)
        return (model,)


NODE_CLASS_MAPPINGS = {"PackThatAsks": PackThatAsks}
