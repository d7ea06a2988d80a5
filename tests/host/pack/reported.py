"""What people reported of other packs: guiders of older kinds, controls that are of no class of ComfyUI's."""

import comfy.model_management
import comfy.sampler_helpers
import comfy.samplers


class GuiderOf2024(comfy.samplers.CFGGuider):
    """A guider with a `sample` of its own, as packs copied it before ComfyUI had wrappers around it."""

    def sample(
        self, noise, latent_image, sampler, sigmas, denoise_mask=None, callback=None, disable_pbar=False, seed=None
    ):
        self.conds = {key: [dict(cond) for cond in conds] for key, conds in self.original_conds.items()}
        self.inner_model, self.conds, self.loaded_models = comfy.sampler_helpers.prepare_sampling(
            self.model_patcher, noise.shape, self.conds, self.model_options
        )
        self.model_patcher.pre_run()
        device = self.model_patcher.load_device
        noise, latent_image, sigmas = noise.to(device), latent_image.to(device), sigmas.to(device)
        output = self.inner_sample(
            noise, latent_image, device, sampler, sigmas, denoise_mask, callback, disable_pbar, seed
        )
        self.model_patcher.cleanup()
        comfy.sampler_helpers.cleanup_models(self.conds, self.loaded_models)
        del self.inner_model, self.conds, self.loaded_models
        return output


class OneByOne(comfy.samplers.CFGGuider):
    """Asks for each prompt alone, and for a third time as spatio-temporal guidance does: with a block less."""

    def predict_noise(self, x, timestep, model_options={}, seed=None):  # noqa: B006 - the host's own signature
        def one(name, options):
            return comfy.samplers.calc_cond_batch(self.inner_model, [self.conds[name]], x, timestep, options)[0]

        positive, negative = one("positive", model_options), one("negative", model_options)
        replaced = {("double_block", 1): lambda args, more: {key: args[key] for key in ("img", "txt")}}
        options = model_options.get("transformer_options", {})
        changed = {**model_options, "transformer_options": {**options, "patches_replace": {"dit": replaced}}}
        return negative + self.cfg * (positive - negative) + 0.5 * (positive - one("positive", changed))


GUIDERS = {"of 2024": GuiderOf2024, "one by one": OneByOne}


class TestGuider:
    """A guider of another pack."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "make", ("GUIDER",)

    @classmethod
    def INPUT_TYPES(cls):
        conds = dict.fromkeys(("positive", "negative"), ("CONDITIONING",))
        return {"required": {"model": ("MODEL",), **conds, "cfg": ("FLOAT",), "way": (list(GUIDERS),)}}

    def make(self, model, positive, negative, cfg, way):
        guider = GUIDERS[way](model)
        guider.set_conds(positive, negative)
        guider.set_cfg(cfg)
        return (guider,)


class Duck:
    """A control with what ComfyUI calls of one and nothing else, around a real one."""

    def __init__(self, control):
        self._control, self.multigpu_clones = control, {}
        self.extra_hooks = self.previous_controlnet = None

    def pre_run(self, *args):
        return self._control.pre_run(*args)

    def get_control(self, *args):
        return self._control.get_control(*args)

    def get_models(self):
        return self._control.get_models()

    def get_extra_hooks(self):
        return self._control.get_extra_hooks()

    def inference_memory_requirements(self, dtype):
        return self._control.inference_memory_requirements(dtype)

    def cleanup(self):
        self._control.cleanup()


class TestDuckControl:
    """The conditioning with its controls as ducks."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "apply", ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning": ("CONDITIONING",)}}

    def apply(self, conditioning):
        return ([[text, {**more, "control": Duck(more["control"])}] for text, more in conditioning],)


def loaded() -> int:
    return len(comfy.model_management.current_loaded_models)
