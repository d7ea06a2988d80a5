"""Accelerated pipelines over a real worker process, against the same pipelines alone."""

import os
import signal

import pytest
import torch

pytest.importorskip("diffusers", reason="no diffusers (pip install diffusers)")

from hybridiff_core.diffusers import HybridPlan, accelerate
from hybridiff_core.diffusers.accelerate import pool

from ..tiers import full, full_but
from .conftest import MAKERS, STEPS, make_sd3, make_sdxl

EXACT = HybridPlan(mode="exact")
STAGE = {"warmup": "fixed", "start_step": 6, "parallel_steps": 4}
TWO_IMAGES = {"num_images_per_prompt": 2}
# for tests of what a pipeline's network has no part in
one_family = pytest.mark.parametrize("tiny", full_but(MAKERS, "sd3"), indirect=True)


@pytest.fixture(scope="module", autouse=True)
def workers():
    """Keeps the workers between tests: they end with the last acceleration."""
    made = make_sd3()  # a pipeline that is gone is accelerated no more
    keeper = accelerate(made.pipe, "cpu")
    yield
    keeper.close()


def accelerated(tiny, plan=EXACT, devices="cpu"):
    return accelerate(tiny.pipe, devices, plan)


def worker_pid():
    return pool()._leases["cpu#0"].exchange.process.pid


def close_to(a, b):
    """To 1e-5 of the largest latent: random networks do not denoise, so latents may be far above 1."""
    return a.shape == b.shape and (a - b).abs().max() <= 1e-5 * b.abs().max().clamp_min(1.0)


@pytest.mark.parametrize(
    ("tiny", "options"),
    [
        ("sd3", {}),
        ("sd3", TWO_IMAGES),
        ("sdxl", {"guidance_rescale": 0.7, "denoising_end": 0.6}),
        full("sdxl", {}),
        full("sdxl", TWO_IMAGES),
        full("sdxl", {"guidance_rescale": 0.7}),
        full("sdxl", {"denoising_end": 0.6}),
    ],
    indirect=["tiny"],
)
def test_exact_is_the_pipelines_own_picture(tiny, options):
    if options == TWO_IMAGES and not hasattr(tiny.pipe, "unet"):  # it repeats no embeddings that it is given
        options = {name: value.expand(2, *value.shape[1:]) for name, value in tiny.embeds.items()}
    alone = tiny(**options)
    acceleration = accelerated(tiny)
    assert close_to(tiny(**options), alone)
    report = acceleration.report
    assert report.lines == [] and report.shared_steps == len(report.steps) > 5


@one_family
def test_a_second_run_reuses_the_worker(tiny):
    acceleration = accelerated(tiny)
    first, pid = tiny(), worker_pid()
    assert torch.equal(tiny(), first) and worker_pid() == pid
    (loading,) = acceleration.report.loadings
    assert loading["sent_bytes"] == 0 and not loading["read_anew"]


@pytest.mark.parametrize(("mode", "work"), [("predict", "predicted"), ("pipeline", "alternating"), ("paper", "paper")])
def test_modes_run_and_repeat(tiny, mode, work):
    alone = tiny()
    acceleration = accelerated(tiny, HybridPlan(mode=mode, **STAGE))
    first = tiny()
    assert first.isfinite().all() and not torch.equal(first, alone)
    assert torch.equal(tiny(), first)
    assert {step.work for step in acceleration.report.steps} == {"exact", work}


def test_cfg_1(tiny):
    alone = tiny(guidance_scale=1.0)
    acceleration = accelerated(tiny)
    assert close_to(tiny(guidance_scale=1.0), alone)
    reason = "at CFG 1 only one prompt is computed; with diffusers, only the prompts of a step are shared"
    assert acceleration.report.lines == [f"ran on one device: {reason}"]
    acceleration = accelerated(tiny, HybridPlan(mode="pipeline", **STAGE))
    first = tiny(guidance_scale=1.0)
    assert torch.equal(tiny(guidance_scale=1.0), first)
    assert (first - alone).abs().max() < 0.1 * alone.abs().max()
    assert sum(step.work == "pipeline" for step in acceleration.report.steps) == 4


def test_guidance_that_a_callback_ends(tiny):
    names = ["prompt_embeds"]
    names += ["add_text_embeds", "add_time_ids"] if hasattr(tiny.pipe, "unet") else ["pooled_prompt_embeds"]

    def halve(pipe, step, timestep, given):
        if step != 5:
            return {}
        pipe._guidance_scale = 0.0
        return {name: value.chunk(2)[1] for name, value in given.items()}

    options = {"callback_on_step_end": halve, "callback_on_step_end_tensor_inputs": names}
    alone = tiny(**options)
    acceleration = accelerated(tiny)
    assert close_to(tiny(**options), alone)
    steps = acceleration.report.steps
    assert [sum(step.conds) for step in steps] == [2] * 6 + [1] * 6  # the one branch on the faster device
    assert all(step.helpers for step in steps[:6])


@one_family
def test_a_killed_worker_does_not_cost_the_picture(tiny):
    alone = tiny()

    def kill(pipe, step, timestep, given):
        if step == 4:
            os.kill(worker_pid(), signal.SIGKILL)
        return {}

    acceleration = accelerated(tiny)
    assert close_to(tiny(callback_on_step_end=kill), alone)
    assert "this process took over and finished the picture" in acceleration.report.lines[0]
    assert close_to(tiny(), alone) and acceleration.report.shared_steps == STEPS


@one_family
def test_an_error_in_the_loop_leaves_the_worker_usable(tiny):
    alone = tiny()

    def fail(pipe, step, timestep, given):
        raise KeyboardInterrupt

    acceleration = accelerated(tiny)
    tiny()
    pid = worker_pid()
    with pytest.raises(KeyboardInterrupt):
        tiny(callback_on_step_end=fail)
    assert close_to(tiny(), alone) and worker_pid() == pid and acceleration.report.lines == []


def change_by_data(network):
    for parameter in network.parameters():
        parameter.data *= 1.05


def change_in_place(network):
    with torch.no_grad():
        next(network.parameters()).mul_(1.5)


def change_precision(network):
    network.to(torch.bfloat16).to(torch.float32)


@one_family
@pytest.mark.parametrize("change", [change_by_data, change_in_place, change_precision])
def test_weights_changed_between_runs_are_sent_again(tiny, change):
    acceleration = accelerated(tiny)
    before = tiny()
    change(tiny.network)
    now = tiny()
    assert acceleration.report.shared_steps == STEPS and acceleration.report.loadings[0]["sent_bytes"]
    acceleration.take_off()
    assert close_to(now, tiny()) and not close_to(now, before)


@one_family
def test_low_precision(tiny):
    tiny.pipe.to(torch.bfloat16)
    tiny.embeds = {name: value.bfloat16() for name, value in tiny.embeds.items()}
    alone = tiny()
    acceleration = accelerated(tiny)
    assert (tiny().float() - alone.float()).abs().mean() < 0.02 * alone.float().abs().mean()
    assert acceleration.report.shared_steps == STEPS


def add_hook(tiny):
    next(tiny.network.children()).register_forward_hook(lambda module, args, out: out * 1.1)


def replace_attention(tiny):
    from diffusers.models.attention_processor import JointAttnProcessor2_0

    class Other(JointAttnProcessor2_0):
        pass

    tiny.network.set_attn_processor(Other())


@pytest.mark.parametrize(
    ("tiny", "change", "line"),
    [
        ("sdxl", add_hook, "was given code of its own"),
        ("sd3", add_hook, "was given code of its own"),
        ("sd3", replace_attention, "attention is computed by Other"),
    ],
    indirect=["tiny"],
)
def test_code_in_the_network_keeps_it_here(tiny, change, line):
    change(tiny)
    alone = tiny()
    acceleration = accelerated(tiny)
    assert torch.equal(tiny(), alone)
    (said,) = acceleration.report.lines
    assert said.startswith("ran on one device: ") and line in said


def test_freeu_keeps_the_network_here():
    tiny = make_sdxl()
    tiny.pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.3, b2=1.4)
    alone = tiny()
    acceleration = accelerated(tiny)
    assert torch.equal(tiny(), alone)
    assert "FreeU" in acceleration.report.lines[0]


def test_the_extra_call_of_skip_layer_guidance_stays_here():
    tiny = make_sd3()
    options = {"skip_guidance_layers": [1], "skip_layer_guidance_stop": 0.9, "skip_layer_guidance_start": 0.0}
    alone = tiny(**options)
    acceleration = accelerated(tiny)
    assert close_to(tiny(**options), alone)
    assert acceleration.report.shared_steps == STEPS < len(acceleration.report.steps)


@pytest.mark.parametrize("name", ["HeunDiscreteScheduler", full("DPMSolverMultistepScheduler"), full("DDIMScheduler")])
def test_other_schedulers(name):
    import diffusers

    tiny = make_sdxl()
    tiny.pipe.scheduler = getattr(diffusers, name).from_config(tiny.pipe.scheduler.config)
    # as SDXL's: clipped, a random network's latents are chaotic, and rounding alone changes them
    tiny.pipe.scheduler.register_to_config(clip_sample=False)
    alone = tiny()
    acceleration = accelerated(tiny)
    assert close_to(tiny(), alone)
    assert acceleration.report.shared_steps == len(acceleration.report.steps)
    accelerated(tiny, HybridPlan(mode="predict", **STAGE))
    assert tiny().isfinite().all()


@one_family
def test_one_device_predicts_when_asked(tiny):
    acceleration = accelerated(tiny, HybridPlan(mode="predict", **STAGE), devices=())
    assert tiny().isfinite().all()
    assert sum(step.work == "predicted" for step in acceleration.report.steps) == 2


@one_family
def test_a_plan_that_does_not_fit_is_refused(tiny):
    accelerated(tiny, HybridPlan(mode="predict", warmup="fixed", start_step=10, parallel_steps=9))
    with pytest.raises(ValueError, match="start_step 10"):
        tiny()


def test_a_network_that_was_exchanged_is_not_shared():
    tiny, other = make_sd3(), make_sd3()
    acceleration = accelerated(tiny)
    tiny.pipe.transformer = other.network
    assert torch.equal(tiny(), other())
    assert "accelerate it again" in acceleration.report.lines[0]


@one_family
def test_close_gives_the_pipeline_back(tiny):
    alone = tiny()
    acceleration = accelerated(tiny)
    acceleration.close()
    assert "forward" not in vars(tiny.network) and "progress_bar" not in vars(tiny.pipe)
    assert torch.equal(tiny(), alone) and acceleration.report is None


@one_family
def test_another_pipeline_is_refused(tiny):
    class Other(type(tiny.pipe)):
        pass

    tiny.pipe.__class__ = Other
    with pytest.raises(TypeError, match="Other"):
        accelerated(tiny)
