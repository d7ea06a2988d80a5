"""The demo reads the same files as ComfyUI, and computes the same with them."""

from __future__ import annotations

import json
import subprocess

from .comfy_server import PACK, python_of

SCRIPT = """
import json, sys, types
root, pack = sys.argv[1:]
sys.path.insert(0, root)
import comfy.cli_args
comfy.cli_args.args.cpu = True
import comfy.sd
import comfy.utils
import torch
package = sys.modules["pack"] = types.ModuleType("pack")
package.__path__ = [pack]
from pack.hybridiff_core.demo import trained

host = comfy.sd.load_diffusion_model(str(trained.NETWORK)).model.diffusion_model.float()
vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(trained.AUTOENCODER)))
ours, decoder = trained.network(), trained.decoder()
torch.manual_seed(0)
x, sigma = torch.randn(2, *trained.LATENT), torch.tensor([0.3, 0.8])
context, pooled = torch.randn(2, 8, 768), torch.randn(2, 768)
with torch.inference_mode():
    v = host(x, 1000 * sigma, context=context, y=pooled)
    picture = vae.decode(x / 1.5305 + 0.0609).movedim(-1, 1)
    print(json.dumps([
        (v - ours(x, sigma, context, pooled)).abs().max().item(), v.std().item(),
        (picture - decoder(x).clamp(0, 1)).abs().max().item(), picture.std().item(),
    ]))
"""


def test_the_demos_network_and_decoder_are_the_hosts(comfyui_root):
    done = subprocess.run(
        [python_of(comfyui_root), "-c", SCRIPT, str(comfyui_root), str(PACK)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    off, scale, picture_off, picture_scale = json.loads(done.stdout.splitlines()[-1])
    assert off < 1e-4 < scale and picture_off < 1e-5 < picture_scale
