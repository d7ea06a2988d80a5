"""A pack that is changed on disk meanwhile."""


class PackThatChanged:
    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "patch", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def patch(self, model):
        model = model.clone()
        model.set_model_attn1_output_patch(lambda out, options: 0.9 * out)
        return (model,)


NODE_CLASS_MAPPINGS = {"PackThatChanged": PackThatChanged}
