"""The engine with workers on real GPUs; skipped where there is none."""

from __future__ import annotations

import re

import pytest
import torch

from hybridiff_core.cli import main
from hybridiff_core.demo.demo_backend import DemoBackend
from hybridiff_core.demo.model import ModelConfig, words_to_context
from hybridiff_core.engine import Engine
from hybridiff_core.network.split import central_openings
from hybridiff_core.plan import HybridPlan
from hybridiff_core.report import RunReport
from hybridiff_core.setting import Setting
from hybridiff_core.share import Unit
from hybridiff_core.workers.devices import gpu_of, gpus, places
from hybridiff_core.workers.pool import Pool

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA GPU (sh dev/test.sh tests/gpu, where there is one)"
)
CONFIG = {"size": 32, "width": 128, "depth": 2}


@pytest.mark.parametrize("device", ["same", "cpu", "auto"])
def test_a_worker_beside_a_gpu(device):
    own = torch.device("cuda", torch.cuda.current_device())
    found, lines = places([device], own)
    if not found:
        pytest.skip(lines[0])
    pool = Pool("demo", lambda place: {"threads": 2})
    try:
        exchange = pool.prepare(found[0], own, {"config": CONFIG}).ready(lambda: None)
        here = DemoBackend({"device": str(own)})
        here.load({"config": CONFIG})
        conds = [words_to_context(text, ModelConfig(**CONFIG)).to(own) for text in ("a cat", "")]
        here.begin({"conds": conds}, fresh=True)
        exchange.begin({"conds": conds})
        x, sigma = torch.randn(2, 4, 32, 32, device=own), torch.tensor([0.7, 0.7], device=own)

        def alone(units):
            found = here.predict(x, sigma, [(unit.branch, unit.index) for unit in units])
            return {unit.branch: prediction for unit, prediction in zip(units, found)}

        units, report = [Unit(0, 0), Unit(1, 0)], RunReport("exact", [])
        with torch.inference_mode():
            engine = Engine([exchange], report, Setting(HybridPlan(mode="exact"), [1.0, 0.0]))
            for _ in range(3):
                done = engine.step(x, sigma, units, alone, lambda mine: torch.ones_like(x))
            expected = alone(units)
        assert report.lines == [] and report.shared_steps == 3
        for branch, prediction in expected.items():
            assert done[branch].device == own
            assert (done[branch] - prediction).abs().max() < 1e-3
    finally:
        pool.close()


@pytest.mark.parametrize("device", ["same", "auto"])
def test_a_pipeline_beside_a_gpu_becomes_exact(device):
    """CFG 1 with frozen x and nearly frozen sigmas: what the stage gives must be what the network gives."""
    own = torch.device("cuda", torch.cuda.current_device())
    found, lines = places([device], own)
    if not found:
        pytest.skip(lines[0])
    config = {**CONFIG, "depth": 6}
    pool = Pool("demo", lambda place: {"threads": 2})
    try:
        exchange = pool.prepare(found[0], own, {"config": config}).ready(lambda: None)
        here = DemoBackend({"device": str(own)})
        here.load({"config": config})
        conds = [words_to_context("a cat", ModelConfig(**config)).to(own)]
        here.begin({"conds": conds}, fresh=True)
        exchange.begin({"conds": conds})
        plan = HybridPlan(mode="pipeline", warmup="fixed", start_step=6, parallel_steps=6)
        sigmas = [0.7 - 1e-4 * i for i in range(13)]
        engine = Engine([exchange], RunReport("", []), Setting(plan, sigmas, openings=central_openings))
        x = torch.randn(2, 4, 32, 32, device=own)
        with torch.inference_mode():
            for value in sigmas[:-1]:
                sigma = torch.full((2,), value, device=own)

                def alone(units, through=None, sigma=sigma):
                    return {0: here.predict(x, sigma, [(0, 0)], through)[0]}

                done = engine.step(x, sigma, [Unit(0, 0)], alone, lambda mine: torch.ones_like(x))
                assert (done[0] - alone(None)[0]).abs().max() < 1e-2
        assert [line.split()[3] for line in engine.report.schedule.splitlines()] == ["exact"] * 6 + ["pipeline"] * 6
    finally:
        pool.close()


def test_our_own_gpu_is_known_by_its_identity():
    gpu = gpu_of(torch.device("cuda", 0))
    assert gpu in gpus()
    assert gpu.model == torch.cuda.get_device_name(0)


def test_the_devices_command_measures_a_worker_on_each_gpu(capsys):
    assert main(["devices"]) == 0
    out = capsys.readouterr().out
    for gpu in gpus():
        assert re.search(rf"\n{re.escape(gpu.title)}( \(process 2\))?(\s+\d+\.\d\d){{3}}\n", out), out
    assert out.count("ComfyUI's own\n") == 1
