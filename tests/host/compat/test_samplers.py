"""Samplers, schedulers and the nodes around them, beside stock."""

from __future__ import annotations

import pytest

from ...tiers import full_but

SCHEDULERS = ("karras", "beta", "simple")
# ComfyUI's, so that each is a row; test_every_sampler_is_a_row says when one is added
SAMPLERS = [
    "euler", "euler_cfg_pp", "euler_ancestral", "euler_ancestral_cfg_pp", "heun", "heunpp2", "exp_heun_2_x0",
    "exp_heun_2_x0_sde", "dpm_2", "dpm_2_ancestral", "lms", "dpm_fast", "dpm_adaptive", "dpmpp_2s_ancestral",
    "dpmpp_2s_ancestral_cfg_pp", "dpmpp_sde", "dpmpp_sde_gpu", "dpmpp_2m", "dpmpp_2m_cfg_pp", "dpmpp_2m_sde",
    "dpmpp_2m_sde_gpu", "dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu", "dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "ddpm",
    "lcm", "ipndm", "ipndm_v", "deis", "res_multistep", "res_multistep_cfg_pp", "res_multistep_ancestral",
    "res_multistep_ancestral_cfg_pp", "gradient_estimation", "gradient_estimation_cfg_pp", "er_sde", "seeds_2",
    "seeds_3", "sa_solver", "sa_solver_pece", "ddim", "uni_pc", "uni_pc_bh2",
]  # fmt: skip


def test_every_sampler_is_a_row(comfy):
    spec = comfy.get("/object_info/KSampler")["KSampler"]["input"]["required"]["sampler_name"]
    given = spec[0] if isinstance(spec[0], list) else spec[1]["options"]
    assert len(given) > 40 and set(given) == set(SAMPLERS)


@pytest.mark.parametrize("scheduler", full_but(SCHEDULERS, "beta"))
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sampler(bench, row, sampler, scheduler):
    row.of("Samplers", f"{sampler}, {scheduler}")
    side = bench("sd3", size=8)
    side.settings |= {"sampler_name": sampler, "scheduler": scheduler, "steps": 6}
    row.compared(*side.compare())


def test_adaptive_steps_make_much_of_rounding(bench, row):
    """With this seed, KSampler's own pictures with both prompts at once and one by one are 8e-5 apart."""
    row.of("Samplers", "dpm_adaptive, karras, a seed that makes much of rounding")
    side = bench("sd3", size=8)
    side.settings |= {"sampler_name": "dpm_adaptive", "scheduler": "karras", "steps": 6, "seed": 43}
    row.compared(*side.compare())
