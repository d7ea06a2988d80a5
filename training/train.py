"""Train the emoji DiT and U-Net on the CPU, in turns. Run by ComfyUI's own Python, after autoencoder.py.

python training/train.py COMFYUI_ROOT OUT

Continues where it was stopped. The same steps give the same weights on the same machine.
"""

import argparse
import math
import random
import time
from pathlib import Path

import torch
from data import load, variants
from host import HAS_BFLOAT16, replace_file, use_comfyui
from muon import Muon
from networks import OUTER, build, noised, predict
from safetensors.torch import load_file
from text import encode
from torch.nn.functional import interpolate

STEPS = {"dit": 1200, "unet": 700}
BATCH = {"dit": 64, "unet": 32}
RATE = {"dit": 2e-3, "unet": 1e-3}
SIDE = {"dit": 128, "unet": 96}  # pixels: the U-Net costs four times the DiT
VARIANTS = 6
TURN = 20  # each model trains 1 / TURN of its steps, then the other does
DROPPED = 0.1  # the share of captions left empty, for classifier-free guidance


class Trainee:
    """One network in training: its weights, their moving average, the optimizers and the step."""

    def __init__(self, name: str, steps: int, out: Path) -> None:
        self.name, self.steps, self.step, self.out = name, steps, 0, out
        self.seconds, self.running, self.losses = 0.0, 0.0, []
        torch.manual_seed(0)
        self.network = build(name)
        named = dict(self.network.named_parameters())
        matrices = [p for key, p in named.items() if p.ndim > 1 and not key.startswith(OUTER)]
        chosen = {id(p) for p in matrices}
        rest = [p for p in named.values() if id(p) not in chosen]
        self.parameters = list(named.values())
        self.average = [p.detach().clone() for p in self.parameters]
        self.optimizers = [
            Muon(matrices, lr=RATE[name]),
            torch.optim.AdamW(rest, lr=RATE[name], betas=(0.9, 0.99), weight_decay=0.0, fused=True),
        ]
        if self.state_file.exists():
            self.restore(torch.load(self.state_file, weights_only=True))

    @property
    def state_file(self) -> Path:
        return self.out / f"{self.name}_state.pt"

    def restore(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.average = state["average"]
        self.step, self.seconds, self.losses = state["step"], state["seconds"], state["losses"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)

    def save(self) -> None:
        """Write the averaged weights for ComfyUI, and what is needed to go on."""
        weights = {key: value.half() for key, value in self.network.state_dict().items()}
        weights |= {key: value.half() for (key, _), value in zip(self.network.named_parameters(), self.average)}
        if self.name == "unet":  # a checkpoint: the network and its autoencoder
            vae = load_file(self.out / "emoji_unet_vae.safetensors")
            weights = {f"model.diffusion_model.{key}": value for key, value in weights.items()}
            weights |= {f"first_stage_model.{key}": value for key, value in vae.items()}
        replace_file(weights, self.out / f"emoji_{self.name}.safetensors")
        state = {"network": self.network.state_dict(), "average": self.average, "step": self.step}
        state |= {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}
        torch.save(state | {"seconds": self.seconds, "losses": self.losses}, self.state_file.with_suffix(".part"))
        self.state_file.with_suffix(".part").replace(self.state_file)

    def train(self, until: int, latents: torch.Tensor, tokens: torch.Tensor, pooled: torch.Tensor) -> None:
        """Steps up to `until` on latents (captions, variants, channels, h, w)."""
        while self.step < until:
            start = time.monotonic()
            chance = torch.Generator().manual_seed(self.step)
            rows = torch.randperm(len(latents), generator=chance)[: BATCH[self.name]]
            z = latents[rows, torch.randint(latents.shape[1], rows.shape, generator=chance)]
            keep = (torch.rand(len(rows), 1, generator=chance) >= DROPPED).float()
            x, t, target, weight = noised(self.name, z, chance)
            done = self.step / self.steps
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = RATE[self.name] * min(1, (self.step + 1) / 100, 0.01 + 1.6 * (1 - done))
            output = predict(self.name, self.network, x, t, tokens[rows] * keep[..., None], pooled[rows] * keep)
            loss = ((output - target).square() * weight).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()
            decay = min(0.998, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)
            self.step += 1
            self.seconds += time.monotonic() - start
            self.running += loss.item() / 50
            if self.step % 50 == 0:
                self.losses.append(self.running)
                print(f"{self.name} step {self.step} {self.seconds:.0f} s loss {self.running:.4f}", flush=True)
                self.running = 0.0
                if not math.isfinite(self.losses[-1]):
                    raise SystemExit(f"{self.name}'s loss is not finite at step {self.step}")


@torch.inference_mode()
def make_latents(name: str, pictures: dict, out: Path) -> torch.Tensor:
    """What the network sees of every picture's variants: (captions, variants, channels, h, w)."""
    import comfy.latent_formats
    import comfy.sd

    file = out / f"latents_{name}.pt"
    if file.exists():
        return torch.load(file, weights_only=True)
    vae = comfy.sd.VAE(sd=load_file(out / f"emoji_{name}_vae.safetensors")).first_stage_model.float()
    vae.to(memory_format=torch.channels_last)
    form = comfy.latent_formats.SD3() if name == "dit" else comfy.latent_formats.SD15()
    chooser = random.Random(1)  # noqa: S311
    latents = []
    for picture in pictures.values():
        images = variants(picture, VARIANTS, chooser).contiguous(memory_format=torch.channels_last)
        images = interpolate(images, size=(SIDE[name], SIDE[name]), mode="bilinear", antialias=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=HAS_BFLOAT16):
            latents.append(form.process_in(vae.encode(images * 2 - 1).float()))
    torch.save(torch.stack(latents), file)
    return torch.stack(latents)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", help="the ComfyUI checkout")
    parser.add_argument("out", type=Path, help="the folder with autoencoder.py's files")
    parser.add_argument("--steps", type=int, help="of each model; as in STEPS where not given")
    parser.add_argument("--only", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    use_comfyui(args.root, args.threads)
    pictures, _ = load()
    tokens, pooled = (torch.cat(parts) for parts in zip(*map(encode, pictures)))
    latents = {name: make_latents(name, pictures, args.out).clone() for name in args.only}
    for name, z in latents.items():
        print(f"{name} latents {tuple(z.shape)} mean {z.mean():.3f} deviation {z.std():.3f}", flush=True)
    trainees = [Trainee(name, args.steps or STEPS[name], args.out) for name in args.only]
    for turn in range(1, TURN + 1):
        for trainee in trainees:
            until = trainee.steps * turn // TURN
            if trainee.step < until:
                trainee.train(until, latents[trainee.name], tokens, pooled)
                trainee.save()


if __name__ == "__main__":
    main()
