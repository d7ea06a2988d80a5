"""Train the two small autoencoders, in the TAESD layout that ComfyUI's VAELoader detects.

python training/autoencoder.py COMFYUI_ROOT OUT

The U-Net's begins with the inner layers of the DiT's, which OUT or weights/ has, and needs half as many steps.
"""

import argparse
import random
import time
from pathlib import Path

import torch
from data import load, sheet, variants
from host import HAS_BFLOAT16, replace_file, use_comfyui
from safetensors.torch import load_file

FORMATS = {"dit": (16, 1.5305, 0.0609), "unet": (4, 0.18215, 0.0)}  # channels, scale, shift: comfy/latent_formats.py
STEPS = {"dit": 2200, "unet": 1000}
BATCH, CROP, RATE = 8, 64, 1e-3
WEIGHTS = Path(__file__).parent / "weights"


class Autoencoder(torch.nn.Module):
    """ComfyUI's TAESD encoder and decoder, with latents kept at mean 0 and deviation 1."""

    def __init__(self, channels: int) -> None:
        from comfy.taesd.taesd import Block, Decoder, Encoder

        super().__init__()
        self.encoder, self.decoder = Encoder(channels), Decoder(channels)
        self.norm = torch.nn.BatchNorm2d(channels, affine=False, momentum=0.02)
        for module in self.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    torch.nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, Block):
                module.conv[4].weight.data.mul_(0.2)
        self.requires_grad_().to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        z = self.norm(self.encoder(images))
        return self.decoder(z + noise * torch.randn_like(z))

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return self.norm(self.encoder(images))

    def begin_with(self, file: Path) -> None:
        """Take the layers of another autoencoder that have this one's shape: all but those next to the latents."""
        other = load_file(file)
        for name, part in (("taesd_encoder", self.encoder), ("taesd_decoder", self.decoder)):
            for key, value in part.state_dict().items():
                if other[f"{name}.{key}"].shape == value.shape:
                    value.copy_(other[f"{name}.{key}"])

    def tensors(self, scale: float, shift: float) -> dict[str, torch.Tensor]:
        """The file that VAELoader takes: half precision, with the normalisation inside the encoder's last layer."""
        encoder, spread = dict(self.encoder.state_dict()), (self.norm.running_var + self.norm.eps).sqrt()
        last = max(int(name.split(".")[0]) for name in encoder)
        encoder[f"{last}.weight"] = encoder[f"{last}.weight"] / spread.view(-1, 1, 1, 1)
        encoder[f"{last}.bias"] = (encoder[f"{last}.bias"] - self.norm.running_mean) / spread
        half = {f"taesd_encoder.{name}": value.half() for name, value in encoder.items()}
        half |= {f"taesd_decoder.{name}": value.half() for name, value in self.decoder.state_dict().items()}
        return half | {"vae_scale": torch.tensor(scale), "vae_shift": torch.tensor(shift)}


def difference(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean absolute and squared error of the pixels, and of the steps from pixel to pixel."""
    error = image - target
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 2 * error.square().mean() + 0.5 * edges


def fit(name: str, network: Autoencoder, images: torch.Tensor, steps: int) -> None:
    """Train on random crops, then, for the last fifth, on a quarter as many whole pictures."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    start, running = time.monotonic(), 0.0
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 100, 0.02 + 1.3 * (1 - step / steps))
        if step < 0.8 * steps:
            rows = torch.randint(len(images), (BATCH,))
            corners = torch.randint(images.shape[2] - CROP + 1, (BATCH, 2)).tolist()
            batch = torch.stack([images[i, :, y : y + CROP, x : x + CROP] for i, (y, x) in zip(rows, corners)])
        else:
            batch = images[torch.randint(len(images), (BATCH // 4,))]
        batch = batch.float().div(255).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=HAS_BFLOAT16):
            image = network(batch, 0.2 * torch.rand(len(batch), 1, 1, 1))
        loss = difference(image.float(), batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        running += loss.item() / 100
        if step % 100 == 99:
            print(f"autoencoder {name} step {step + 1} {time.monotonic() - start:.0f} s loss {running:.4f}", flush=True)
            running = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", help="the ComfyUI checkout")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, help="of each; as in STEPS where not given")
    parser.add_argument("--only", nargs="+", choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    use_comfyui(args.root, args.threads)
    chooser = random.Random(0)  # noqa: S311
    pictures = torch.cat([variants(picture, 3, chooser) for picture in load()[0].values()])
    images = (pictures * 255).round().byte()
    for name in args.only:
        channels, scale, shift = FORMATS[name]
        torch.manual_seed(0)
        network = Autoencoder(channels)
        if name == "unet":
            made = args.out / "emoji_dit_vae.safetensors"
            network.begin_with(made if made.exists() else WEIGHTS / made.name)
        fit(name, network, images, args.steps or STEPS[name])
        network.eval()
        replace_file(network.tensors(scale, shift), args.out / f"emoji_{name}_vae.safetensors")
        with torch.inference_mode():
            shown = images[:: len(images) // 48][:48].float() / 255
            z = network.encode(shown)
            again = network.decoder(z).clamp(0, 1)
        print(name, "latent mean", z.mean().item(), "deviation", z.std().item(), "mse", (again - shown).square().mean())
        sheet(torch.stack([shown, again]).unflatten(1, (-1, 12)).transpose(0, 1).flatten(0, 2), 12).save(
            args.out / f"autoencoder_{name}.png"
        )


if __name__ == "__main__":
    main()
