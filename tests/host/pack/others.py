"""What other packs lay on a model: wrappers, hooks, tiles, replaced functions. Each is a function of a cloned model.

Every one changes the picture, and by more than one branch where it can: a part that it did not see shows.
"""

import comfy.model_base
import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import torch
from comfy.patcher_extension import WrappersMP

KEY = "another_pack"


def wrap(model, kind, wrapper):
    model.add_wrapper_with_key(kind, KEY, wrapper)


def wrappers_of(model_options, kind):
    """The wrappers of a run that goes on, to be added to."""
    return model_options["transformer_options"].setdefault("wrappers", {}).setdefault(kind, {}).setdefault(KEY, [])


def mixed(executor, model, conds, x, timestep, model_options):
    """A CALC_COND_BATCH wrapper that mixes what it gets of each branch into the others."""
    out = executor(model, conds, x, timestep, model_options)
    return [0.9 * one + 0.1 * other for one, other in zip(out, out[1:] + out[:1])]


def changed(executor, x, *args, **kwargs):
    """An APPLY_MODEL or DIFFUSION_MODEL wrapper that changes what goes in and what comes out."""
    out = executor(x * 1.02, *args, **kwargs)
    return out * 0.97


# -- wrappers


def calc_cond_batch(model):
    wrap(model, WrappersMP.CALC_COND_BATCH, mixed)


def apply_model(model):
    wrap(model, WrappersMP.APPLY_MODEL, changed)


def diffusion_model(model):
    wrap(model, WrappersMP.DIFFUSION_MODEL, changed)


def predict_noise(model):
    def wrapper(executor, x, timestep, *args, **kwargs):
        return 0.95 * executor(x * 1.01, timestep * 0.98, *args, **kwargs)

    wrap(model, WrappersMP.PREDICT_NOISE, wrapper)


def outer_sample(model):
    def wrapper(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        return executor(noise * 1.02, latent_image, sampler, sigmas, *args, **kwargs) * 0.9

    wrap(model, WrappersMP.OUTER_SAMPLE, wrapper)


def sampler_sample(model):
    def wrapper(executor, guider, sigmas, extra_args, callback, noise, *args, **kwargs):
        return 0.9 * executor(guider, sigmas, extra_args, callback, noise * 1.02, *args, **kwargs)

    wrap(model, WrappersMP.SAMPLER_SAMPLE, wrapper)


def other_sigmas(model):
    def wrapper(executor, guider, sigmas, *args, **kwargs):
        halves = torch.stack([sigmas[:-1], (sigmas[:-1] + sigmas[1:]) / 2], 1).flatten()
        return executor(guider, torch.cat([halves, sigmas[-1:]]), *args, **kwargs)

    wrap(model, WrappersMP.SAMPLER_SAMPLE, wrapper)


def two_passes(model):
    def wrapper(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        first = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        return executor(noise.flip(-1), first, sampler, sigmas[len(sigmas) // 3 :], *args, **kwargs)

    wrap(model, WrappersMP.OUTER_SAMPLE, wrapper)


def another_sampler(model):
    def wrapper(executor, noise, latent_image, sampler, *args, **kwargs):
        return executor(noise, latent_image, comfy.samplers.sampler_object("dpmpp_2m"), *args, **kwargs)

    wrap(model, WrappersMP.OUTER_SAMPLE, wrapper)


# -- wrappers and code that come while the run goes on


def late(model, kind, wrapper):
    """From the third question on, `wrapper` is among the run's."""
    asked = [0]

    def wait(executor, x, timestep, model_options, seed):
        asked[0] += 1
        if timestep[0] > 0.95 * model.get_model_object("model_sampling").sigma_max:
            asked[0] = 1
        if asked[0] >= 3 and not wrappers_of(model_options, kind):
            wrappers_of(model_options, kind).append(wrapper)
        return executor(x, timestep, model_options, seed)

    wrap(model, WrappersMP.PREDICT_NOISE, wait)


def late_calc_cond_batch(model):
    late(model, WrappersMP.CALC_COND_BATCH, mixed)


def late_apply_model(model):
    late(model, WrappersMP.APPLY_MODEL, changed)


def with_replaced(model, owner, name, make):
    """While this model is sampled, `owner`'s `name` is another function."""

    def wrapper(executor, *args, **kwargs):
        of = owner(executor.class_obj)
        own = vars(of).get(name)
        setattr(of, name, make(getattr(of, name)))
        try:
            return executor(*args, **kwargs)
        finally:
            if own is None:
                delattr(of, name)
            else:
                setattr(of, name, own)

    wrap(model, WrappersMP.OUTER_SAMPLE, wrapper)


def louder(function):
    return lambda *args, **kwargs: function(*args, **kwargs) * 0.97


def replaced_apply_model(model):
    with_replaced(model, lambda guider: guider.model_patcher.model, "apply_model", louder)


def replaced_forward(model):
    with_replaced(model, lambda guider: guider.model_patcher.model.diffusion_model, "forward", louder)


def replaced_class_apply_model(model):
    with_replaced(model, lambda guider: comfy.model_base.BaseModel, "apply_model", louder)


def forward_hook(model):
    def wrapper(executor, *args, **kwargs):
        network = executor.class_obj.model_patcher.model.diffusion_model
        handle = network.register_forward_hook(lambda module, given, out: out * 0.97)
        try:
            return executor(*args, **kwargs)
        finally:
            handle.remove()

    wrap(model, WrappersMP.OUTER_SAMPLE, wrapper)


# -- a replaced comfy.samplers.calc_cond_batch


def replaced_by_a_wrapper(model):
    def make(stock):
        return lambda model, conds, x, timestep, model_options: mixed(stock, model, conds, x, timestep, model_options)

    with_replaced(model, lambda guider: comfy.samplers, "calc_cond_batch", make)


def own_calc_cond_batch(model, conds, x, timestep, model_options):
    """A copy of the host's as of years ago, without its wrappers: a call of the network for each cond."""
    out = []
    for of_branch in conds:
        total, count = torch.zeros_like(x), torch.full_like(x, 1e-37)
        for cond in of_branch or ():
            p = comfy.samplers.get_area_and_mult(cond, x, timestep)
            c = comfy.samplers.cond_cat([p.conditioning])
            c["transformer_options"] = {**model_options["transformer_options"], "cond_or_uncond": [len(out)]}
            total += model.apply_model(x, timestep, **c) * p.mult
            count += p.mult
        out.append(total / count * 0.98)
    return out


def replaced_by_its_own(model):
    with_replaced(model, lambda guider: comfy.samplers, "calc_cond_batch", lambda stock: own_calc_cond_batch)


def replaced_inside(model):
    with_replaced(model, lambda guider: comfy.samplers, "_calc_cond_batch", lambda stock: own_calc_cond_batch)


# -- hooks in model_options


def pre_cfg(model):
    model.set_model_sampler_pre_cfg_function(lambda args: [out * 1.02 for out in args["conds_out"]])


def cfg(model):
    model.set_model_sampler_cfg_function(
        lambda args: args["uncond"] + (args["cond"] - args["uncond"]) * (args["cond_scale"] - 0.5)
    )


def post_cfg(model):
    model.set_model_sampler_post_cfg_function(
        lambda args: 0.9 * args["denoised"] + 0.1 * args["cond_denoised"] - 0.01 * args["uncond_denoised"]
    )


def function_wrapper(model):
    def wrapper(apply, args):
        return apply(args["input"] * 1.01, args["timestep"], **args["c"]) * 0.98

    model.set_model_unet_function_wrapper(wrapper)


def calc_function(model):
    def calculate(args):
        stock = comfy.samplers.calc_cond_batch
        return mixed(stock, *(args[key] for key in ("model", "conds", "input", "sigma", "model_options")))

    model.set_model_sampler_calc_cond_batch_function(calculate)


def calc_function_of_its_own(model):
    def calculate(args):
        return own_calc_cond_batch(*(args[key] for key in ("model", "conds", "input", "sigma", "model_options")))

    model.set_model_sampler_calc_cond_batch_function(calculate)


def one_by_one(model, scale=0.98):
    def calculate(args):
        def one(conds):
            given = [conds], args["input"], args["sigma"], args["model_options"]
            return comfy.samplers.calc_cond_batch(args["model"], *given)[0]

        return [torch.zeros_like(args["input"]) if conds is None else one(conds) * scale for conds in args["conds"]]

    model.set_model_sampler_calc_cond_batch_function(calculate)


def prompts_apart(model):
    """The same picture, as the host computes it where memory is short (Bench.compare)."""
    one_by_one(model, scale=1.0)


# -- parts of the latent, and inputs made of it


def parts_of(x, call):
    """MultiDiffusion: two overlapping parts of x's last dimension, their results' mean where both are."""
    width = x.shape[-1] * 5 // 8
    starts = (0, x.shape[-1] - width)
    count = torch.zeros_like(x)
    outs = []
    for start in starts:
        count[..., start : start + width] += 1
        outs.append(call(x[..., start : start + width]))
    placed = [[torch.nn.functional.pad(o, (s, x.shape[-1] - s - width)) for o in out] for out, s in zip(outs, starts)]
    return [sum(of_branch) / count for of_branch in zip(*placed)]


def tiles(model):
    def wrapper(executor, model, conds, x, timestep, model_options):
        return parts_of(x, lambda part: executor(model, conds, part, timestep, model_options))

    wrap(model, WrappersMP.CALC_COND_BATCH, wrapper)


def tiles_of_a_question(model):
    def wrapper(executor, x, *args, **kwargs):
        return parts_of(x, lambda part: [executor(part, *args, **kwargs)])[0]

    wrap(model, WrappersMP.PREDICT_NOISE, wrapper)


class Tiled:
    """A guider that is asked for parts of the latent, each a question of its own."""

    def __init__(self, guider):
        self.guider = guider

    def __getattr__(self, name):
        return getattr(self.guider, name)

    def __call__(self, x, *args, **kwargs):
        return parts_of(x, lambda part: [self.guider(part, *args, **kwargs)])[0]


def tiles_of_the_sampler(model):
    wrap(model, WrappersMP.SAMPLER_SAMPLE, lambda executor, guider, *args: executor(Tiled(guider), *args))


def regions(model):
    """Each half of the picture with a cond of its own: the second has the first's text turned round."""

    def wrapper(executor, model, conds, x, timestep, model_options):
        halves = []
        for turned in (False, True):
            given = conds
            if turned:
                given = [of_branch and [turn(cond) for cond in of_branch] for of_branch in conds]
            halves.append(executor(model, given, x, timestep, model_options))
        left = torch.zeros_like(x)
        left[..., : x.shape[-1] // 2] = 1
        return [a * left + b * (1 - left) for a, b in zip(*halves)]

    wrap(model, WrappersMP.CALC_COND_BATCH, wrapper)


def turn(cond, keep=False):
    """The cond with its text's features turned round, under a name of its own unless `keep`."""
    conds = dict(cond["model_conds"])
    conds["c_crossattn"] = conds["c_crossattn"]._copy_with(conds["c_crossattn"].cond.flip(-1))
    return {**cond, "model_conds": conds, **({} if keep else {"uuid": (cond["uuid"], "turned")})}


def rolled(model):
    """Each question on the latent rolled by another amount: one call at a sigma, and never of the same places."""

    def wrapper(executor, x, timestep, *args, **kwargs):
        by = int(timestep[0] * 1000) % x.shape[-1]
        return executor(x.roll(by, -1), timestep, *args, **kwargs).roll(-by, -1)

    wrap(model, WrappersMP.PREDICT_NOISE, wrapper)


def nearby(model):
    """Guidance by a second call on a blurred input, both branches again."""

    def guide(args):
        x = args["input"]
        near = x + 0.1 * (x.mean((-1, -2), keepdim=True) - x)
        conds = [args["cond"], args["uncond"]]
        out = comfy.samplers.calc_cond_batch(args["model"], conds, near, args["sigma"], args["model_options"])
        return args["denoised"] + 2.0 * (args["cond_denoised"] - out[0]) + 0.5 * (args["uncond_denoised"] - out[1])

    model.set_model_sampler_post_cfg_function(guide, disable_cfg1_optimization=True)


def swapped(model):
    """Guidance by a second call of the prompt, with a block of the network exchanged for it where nothing shows it."""

    def guide(args):
        block = args["model"].diffusion_model.joint_blocks[0]
        forward = block.forward
        block.forward = lambda *given, **named: tuple(
            None if out is None else 0.5 * out for out in forward(*given, **named)
        )
        given = [args["cond"]], args["input"], args["sigma"], args["model_options"]
        try:
            weak = comfy.samplers.calc_cond_batch(args["model"], *given)[0]
        finally:
            del block.forward
        return args["denoised"] + 2.0 * (args["cond_denoised"] - weak)

    model.set_model_sampler_post_cfg_function(guide)


# -- conds, sigmas, other models inside a step


def conds_anew(model):
    def wrapper(executor, model, conds, x, timestep, model_options):
        strength = 0.5 + float(timestep[0]) / float(model.model_sampling.sigma_max)
        given = []
        for of_branch in conds:
            given.append(of_branch and [scaled(cond, strength) for cond in of_branch])
        return executor(model, given, x, timestep, model_options)

    wrap(model, WrappersMP.CALC_COND_BATCH, wrapper)


def scaled(cond, strength):
    conds = dict(cond["model_conds"])
    conds["c_crossattn"] = conds["c_crossattn"]._copy_with(conds["c_crossattn"].cond * strength)
    return {**cond, "model_conds": conds}


def conds_in_place(model):
    def wrapper(executor, model, conds, x, timestep, model_options):
        texts = [c["model_conds"]["c_crossattn"].cond for of_branch in conds for c in of_branch or ()]
        before = [text.clone() for text in texts]
        for text in texts:
            text *= 0.5 + float(timestep[0]) / float(model.model_sampling.sigma_max)
        try:
            return executor(model, conds, x, timestep, model_options)
        finally:
            for text, old in zip(texts, before):
                text.copy_(old)

    wrap(model, WrappersMP.CALC_COND_BATCH, wrapper)


def other_sigma(model):
    def wrapper(executor, model, conds, x, timestep, model_options):
        return executor(model, conds, x, timestep * 0.97, model_options)

    wrap(model, WrappersMP.CALC_COND_BATCH, wrapper)


def nested(model, other):
    """In each question, the other model is sampled, two steps, and a little of that taken."""

    def wrapper(executor, x, timestep, *args, **kwargs):
        out = executor(x, timestep, *args, **kwargs)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(7))
        conds = map(as_given, executor.class_obj.original_conds.values())
        sampled = comfy.sample.sample(
            other, noise, 2, 3.0, "euler", "simple", *conds, torch.zeros_like(x), disable_pbar=True, seed=7
        )
        return out + 0.05 * sampled.to(out)

    wrap(model, WrappersMP.PREDICT_NOISE, wrapper)


def as_given(conds):
    return [[cond["cross_attn"], {"pooled_output": cond["pooled_output"]}] for cond in conds]


def looking_ahead(model):
    """In each question, the guider itself is asked once more for a later sigma."""

    def wrapper(executor, x, timestep, model_options, seed):
        out = executor(x, timestep, model_options, seed)
        further = executor(0.5 * (x + out), timestep * 0.5, model_options, seed)
        return 0.8 * out + 0.2 * further

    wrap(model, WrappersMP.PREDICT_NOISE, wrapper)


def object_patch(model):
    path = "diffusion_model.joint_blocks.0.x_block.mlp"
    part = comfy.utils.get_attr(model.model, path)
    # not part.forward: that may be this very patch, on another clone
    model.add_object_patch(f"{path}.forward", lambda x: 0.5 * type(part).forward(part, x))


def split_by_the_host(model):
    """ComfyUI's own MultiGPU CFG Split, on two CPU devices that it is made to see."""
    both = [torch.device("cpu"), torch.device("cpu", 1)]
    before = comfy.model_management.get_all_torch_devices
    comfy.model_management.get_all_torch_devices = lambda exclude_current=False: both[exclude_current:]
    try:
        from comfy.multigpu import create_multigpu_deepclones  # ComfyUI before 0.23 has none

        return create_multigpu_deepclones(model, 2)
    finally:
        comfy.model_management.get_all_torch_devices = before


WAYS = {
    function.__name__: function
    for function in (
        calc_cond_batch, apply_model, diffusion_model, predict_noise, outer_sample, sampler_sample, other_sigmas,
        two_passes, another_sampler, late_calc_cond_batch, late_apply_model, replaced_apply_model, replaced_forward,
        replaced_class_apply_model, forward_hook, replaced_by_a_wrapper, replaced_by_its_own, replaced_inside,
        pre_cfg, cfg, post_cfg, function_wrapper, calc_function, calc_function_of_its_own, one_by_one, prompts_apart,
        tiles, tiles_of_a_question, tiles_of_the_sampler, regions, rolled, nearby, swapped, conds_anew, conds_in_place,
        other_sigma, nested, looking_ahead, object_patch, split_by_the_host,
    )
}  # fmt: skip


class TestOtherPack:
    """A model with what another pack does to it."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "apply", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "way": (list(WAYS),)}, "optional": {"other": ("MODEL",)}}

    def apply(self, model, way, other=None):
        model = model.clone()
        return (WAYS[way](model, *([other] if other else [])) or model,)


class TestReportOf:
    """The report of a model's last run, once `latent` is there."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "tests", "report", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "latent": ("LATENT",)}}

    def report(self, model, latent):
        (wrapper,) = model.wrappers[WrappersMP.OUTER_SAMPLE]["hybridiff"]
        return {"ui": {"hybridiff": [wrapper.__self__.report.to_dict()]}}


# -- ControlNets


def replaced_get_control(control):
    own = control.get_control

    def get_control(*args):
        residuals = own(*args)
        for part in residuals.values() if residuals else ():
            part[:] = [None if residual is None else 0.5 * residual for residual in part]
        return residuals

    control.get_control = get_control


def patched_weights(control):
    control.control_model_wrapped = control.control_model_wrapped.clone()
    key, weight = next(iter(control.control_model.named_parameters()))
    assert control.control_model_wrapped.add_patches({key: ("diff", (torch.ones_like(weight),))}) == [key]


CONTROL_WAYS = {"replaced get_control": replaced_get_control, "patched weights": patched_weights}


class TestOtherControl:
    """What another pack does to the ControlNets that a cond brings."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "apply", ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning": ("CONDITIONING",), "way": (list(CONTROL_WAYS),)}}

    def apply(self, conditioning, way):
        conditioning = [[text, {**more, "control": more["control"].copy()}] for text, more in conditioning]
        for _, more in conditioning:
            CONTROL_WAYS[way](more["control"])
        return (conditioning,)
