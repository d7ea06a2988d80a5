"""Train the emoji DiT and U-Net on the CPU, in ComfyUI's own classes and formats. Run by ComfyUI's own Python.

python training/train.py COMFYUI_ROOT OUT [--minutes N]
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import torch
from data import FONT, NAMES, evaluation_set, load_emoji
from PIL import Image
from safetensors.torch import load_file, save_file
from text import Latents, conditioning, encode
from torch.nn.attention import SDPBackend, sdpa_kernel

DIT = {
    "input_size": None, "in_channels": 16, "patch_size": 2, "depth": 6, "adm_in_channels": 2048,
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 384}},
    "num_patches": 64 * 64, "pos_embed_max_size": 64, "pos_embed_scaling_factor": None,
}  # fmt: skip
UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "num_res_blocks": [1, 1],
    "channel_mult": [1, 1], "num_heads": 8, "use_spatial_transformer": True, "context_dim": 768,
    "transformer_depth": [0, 1], "transformer_depth_middle": 1, "transformer_depth_output": [0, 0, 1, 1],
    "legacy": False, "use_linear_in_transformer": False,
}  # fmt: skip
MODELS = {
    "dit": {
        "file": "diffusion_models/emoji_dit.safetensors", "prefix": "", "batch": 32, "rate": 8e-4, "share": 0.45,
        "zero": ("adaLN_modulation.1.weight", "final_layer.linear.weight"),
        "channels": 16, "factor": 1.5305, "shift": 0.0609,
    },
    "unet": {
        "file": "checkpoints/emoji_unet.safetensors", "prefix": "model.diffusion_model.", "batch": 16, "rate": 4e-4,
        "share": 0.55, "zero": ("out_layers.3.weight", "proj_out.weight", "out.2.weight"),
        "channels": 4, "factor": 0.18215, "shift": 0.0,
    },
}  # fmt: skip


def build(name: str) -> torch.nn.Module:
    """The network with fresh weights: matrices by fan-in, norms at 1, biases and each block's last layer at 0."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules import mmdit, openaimodel

    make = {"dtype": torch.float32, "device": "cpu", "operations": comfy.ops.disable_weight_init}
    if name == "dit":
        network = mmdit.OpenAISignatureMMDITWrapper(**DIT, **make)
        network.pos_embed.copy_(mmdit.get_2d_sincos_pos_embed_torch(384, 64, 64, val_magnitude=31.5)[None])
    else:
        network = openaimodel.UNetModel(**UNET, **make)
    for key, parameter in network.named_parameters():
        if parameter.ndim == 1 or key.endswith(MODELS[name]["zero"]):
            torch.nn.init.constant_(parameter, float(parameter.ndim == 1 and key.endswith("weight")))
        else:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        parameter.requires_grad_()
    return network


def noised(name: str, z: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Network input, timestep, target and loss weight at random steps of ComfyUI's own noise schedule."""
    step = torch.randint(1, 1001, (len(z),))
    if name == "dit":
        sigma = 3 * (step / 1000) / (1 + 2 * (step / 1000))
        t = sigma.view(-1, 1, 1, 1)
        return (1 - t) * z + t * noise, sigma * 1000, noise - z, torch.ones_like(t)
    betas = torch.linspace(0.00085**0.5, 0.0120**0.5, 1000, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, 0).float()[step - 1].view(-1, 1, 1, 1)
    return kept.sqrt() * z + (1 - kept).sqrt() * noise, (step - 1).float(), noise, kept.rsqrt()


def save(name: str, network: torch.nn.Module, average: list[torch.Tensor], out: Path) -> None:
    """Write the averaged weights, in half precision, where ComfyUI looks for them."""
    weights = dict(network.state_dict())
    weights |= dict(zip((key for key, _ in network.named_parameters()), average))
    path = out / MODELS[name]["file"]
    path.parent.mkdir(parents=True, exist_ok=True)
    half = {MODELS[name]["prefix"] + key: value.half().contiguous() for key, value in weights.items()}
    save_file(half, f"{path}.part")
    Path(f"{path}.part").replace(path)


def train(name: str, z: torch.Tensor, captions: list[str], out: Path, minutes: float, resume: bool) -> dict:
    """Train for `minutes`, saving on the way; returns what to report."""
    settings = MODELS[name]
    network = build(name)
    if resume:
        saved = load_file(out / settings["file"])
        network.load_state_dict({key.removeprefix(settings["prefix"]): value for key, value in saved.items()})
    parameters = list(network.parameters())
    average = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=1.0, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    tokens, pooled = (torch.cat(parts) for parts in zip(*(encode(caption, name) for caption in captions)))
    start = last_save = time.monotonic()
    step, running, log, order = 0, None, [], torch.empty(0, dtype=torch.long)
    while (done := (time.monotonic() - start) / (60 * minutes)) < 1:
        if len(order) < settings["batch"]:
            order = torch.randperm(len(z))
        rows, order = order[: settings["batch"]], order[settings["batch"] :]
        keep = (torch.rand(len(rows), 1, 1) > 0.12).float()
        x, t, target, weight = noised(name, z[rows], torch.randn(len(rows), *z.shape[1:]))
        extra = {"y": pooled[rows] * keep[:, 0]} if name == "dit" else {}
        for group in optimizer.param_groups:
            group["lr"] = settings["rate"] * min(1, (step + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * done))
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            output = network(x, t, context=tokens[rows] * keep, **extra)
        error = (output.float() - target).square()
        (error * weight).mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - min(0.995, (1 + step) / (10 + step)))
        step, loss = step + 1, error.mean().item()
        running = loss if running is None else 0.98 * running + 0.02 * loss
        if step % 100 == 0:
            log.append([step, round(time.monotonic() - start), round(running, 4)])
            print(name, *log[-1], flush=True)
        if time.monotonic() - last_save > 180:
            save(name, network, average, out)
            last_save = time.monotonic()
    save(name, network, average, out)
    count = sum(parameter.numel() for parameter in parameters)
    return {"parameters": count, "steps": step, "batch": settings["batch"], "minutes": minutes, "loss": log}


@torch.inference_mode()
def grid(name: str, out: Path, rows: list[dict], originals: torch.Tensor, cfg: float) -> None:
    """Sample evaluation captions with ComfyUI's sampler. Rows: the font's, through the PCA, sampled."""
    import comfy.sample
    import comfy.sd

    latents = Latents.load(str(out / f"pca_{name}.safetensors"))
    model = comfy.sd.load_diffusion_model(str(out / MODELS[name]["file"]))
    images = []
    for row in rows:
        empty = torch.zeros(1, MODELS[name]["channels"], 16, 16)
        noise = comfy.sample.prepare_noise(empty, row["seed"])
        pair = conditioning(row["caption"], name), conditioning("", name)
        run = (30, cfg, "euler", "normal", *pair, empty)
        images.append(latents.decode(comfy.sample.sample(model, noise, *run, seed=row["seed"], disable_pbar=True)))
    sheet = torch.stack([originals, latents.decode(latents.encode(originals)), torch.cat(images)])
    pixels = (sheet.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1) * 255).round().byte().numpy()
    Image.fromarray(pixels).resize((pixels.shape[1] * 2, pixels.shape[0] * 2), 0).save(out / f"grid_{name}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", help="the ComfyUI checkout")
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=40, help="training time of both models together")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--resume", action="store_true", help="start from the weights in OUT, not fresh ones")
    parser.add_argument("--grid-only", action="store_true", help="train nothing, sample what is there")
    parser.add_argument("--cfg", type=float, default=4.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--font", default=FONT)
    parser.add_argument("--names", default=NAMES)
    args = parser.parse_args()
    captions, images = load_emoji(args.font, args.names)
    sys.path.insert(0, args.root)
    import comfy.cli_args

    comfy.cli_args.args.cpu = comfy.cli_args.args.use_pytorch_cross_attention = True
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    record = args.out / "evaluation.json"
    notes = json.loads(record.read_text()) if record.exists() else {"models": {}}
    notes |= {"size": 64, "latent": [16, 16], "sampler": "euler", "steps": 30, "cfg": args.cfg}
    notes |= {"captions": evaluation_set(captions)}
    notes["decode"] = "comfy.sample.sample returns latents outside the format: z = (latent - shift) * factor, then PCA"
    for name in args.models:
        torch.manual_seed(1 if args.resume else 0)
        settings = MODELS[name]
        latents = Latents.fit(images, 4, settings["channels"], settings["factor"], settings["shift"])
        if not args.grid_only:
            save_file(latents.tensors, args.out / f"pca_{name}.safetensors")
            z = latents.to_network(images)
            trained = train(name, z, captions, args.out, args.minutes * settings["share"], args.resume)
            runs = notes["models"][name]["runs"] if args.resume else []
            kept = {key: settings[key] for key in ("file", "channels", "factor", "shift")}
            notes["models"][name] = kept | {"runs": [*runs, trained]}
        record.write_text(json.dumps(notes, indent=1))
        rows = notes["captions"]["choosing"][:8]
        grid(name, args.out, rows, images[[captions.index(row["caption"]) for row in rows]], args.cfg)


if __name__ == "__main__":
    main()
