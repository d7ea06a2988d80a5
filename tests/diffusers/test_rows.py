"""Some batch items of a diffusers network, computed by themselves in a worker's backend."""

import pytest
import torch

pytest.importorskip("diffusers", reason="no diffusers (pip install diffusers)")

from hybridiff_core.diffusers.diffusers_backend import DiffusersBackend
from hybridiff_core.diffusers.network import recipe_of
from hybridiff_core.workers.torch_settings import read

BATCH = 4


def test_rows_are_those_of_the_whole_batch(tiny):
    generator = torch.Generator().manual_seed(7)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    hidden, pooled = tiny.embeds["prompt_embeds"], tiny.embeds["pooled_prompt_embeds"]
    conds = {"encoder_hidden_states": random(BATCH, *hidden.shape[1:])}
    if tiny.network.config.get("addition_embed_type"):
        conds["added_cond_kwargs"] = {"text_embeds": random(BATCH, *pooled.shape[1:]), "time_ids": torch.ones(BATCH, 6)}
    else:
        conds["pooled_projections"] = random(BATCH, *pooled.shape[1:])
    backend = DiffusersBackend({"device": "cpu"})
    backend.load(recipe_of(tiny.network))
    backend.begin({"conds": [conds], "dtype": torch.float32, "timestep": torch.float32, "torch": read()}, fresh=True)
    x, sigma = random(BATCH, 4, 32, 32), torch.full((BATCH,), 501.0, dtype=torch.float64)
    with torch.inference_mode():
        (whole,) = backend.predict(x, sigma, [(0, 0)])
        for first, end in ((0, 1), (1, 4)):
            (rows,) = backend.predict(x[first:end], sigma[first:end], [(0, 0)], rows=(first, end, BATCH))
            assert (rows - whole[first:end]).norm() <= 1e-5 * (x - whole)[first:end].norm()
