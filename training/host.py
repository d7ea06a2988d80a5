"""ComfyUI's own classes, set up for training on the CPU."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

# a CPU without instructions for bfloat16 is a hundred times slower with it than with float32
HAS_BFLOAT16 = any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bw", "amx_bf16", "bf16"))


def use_comfyui(root: str, threads: int) -> None:
    """Make the checkout at `root` importable, on the CPU."""
    sys.path.insert(0, root)
    sys.dont_write_bytecode = True
    import comfy.cli_args

    comfy.cli_args.args.cpu = comfy.cli_args.args.use_pytorch_cross_attention = True
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)


def replace_file(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file so that a reader sees the old or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file({name: value.detach().contiguous() for name, value in tensors.items()}, part)
    part.replace(path)
