"""What the cases of token_split.py change: the latent, the conditioning, the slices."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

right = contextlib.nullcontext


def latent(family, what: list[str]):
    """An empty latent. `odd`: sides whose tokens no number divides; `frames`: 7 of them; `batch`: two items;
    `sound`: a sound track beside the video."""
    import torch

    shape = list(family.latent)
    if "odd" in what:
        shape[-2:] = [shape[-2] + 6, shape[-1] - 2]
    if "batch" in what:
        shape[0] = 2
    if "frames" in what:
        shape[2] = 7
    empty = torch.zeros(shape)
    beside = [(1, 8, 24, 16)] if "sound" in what else family.nested
    if not beside:
        return empty
    from comfy.nested_tensor import NestedTensor

    return NestedTensor([empty, *map(torch.zeros, beside)])


def prepare(model, what: list[str]) -> None:
    """`bf16`, `fp16`: the network computes in this format. `kernel`: with an attention of the user's."""
    import torch

    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        if name in what:
            model.set_model_compute_dtype(dtype)
    if "kernel" in what:
        model.model_options["transformer_options"]["optimized_attention_override"] = sharper


def sharper(function, q, k, v, *args, **kwargs):
    """An attention to a smaller neighbourhood."""
    return function(q * 1.5, k, v, *args, **kwargs)


def noise_mask(latent, what: list[str]):
    """`inpaint`: the lower half is denoised; in a video, its later frames."""
    import torch

    if "inpaint" not in what:
        return None
    if latent.is_nested:
        latent = latent.unbind()[0]
    mask = torch.zeros_like(latent[:, :1])
    mask[:, :, mask.shape[2] // 2 :] = 1
    return mask


def change(conds: list, latent, what: list[str]) -> None:
    """`mask`: the text's last quarter is padding; `reference`, `two_references`: reference latents beside the image;
    `zero`: their timestep is zero."""
    import torch

    generator = torch.Generator().manual_seed(5)
    for text, extra in conds:
        if "mask" in what:
            tokens = text.shape[1]
            extra["attention_mask"] = (torch.arange(tokens) < tokens * 3 // 4).long()[None]
        count = ("reference" in what) + 2 * ("two_references" in what)
        if count:
            extra["reference_latents"] = [torch.randn(latent.shape, generator=generator)[:1] for _ in range(count)]
        if "zero" in what:
            extra["reference_latents_method"] = "index_timestep_zero"


def form_of(form, what: list[str]):
    """`missing`: the keys of one attention call do not cross; such a form must not pass."""
    return dataclasses.replace(form, attends=form.attends[:-1]) if "missing" in what else form


def offered(model, sample, host) -> dict:
    """What the block hooks that are offered to a model change for everybody else: nothing."""
    import comfy.model_management

    def told(patcher) -> tuple:
        return host.comparing.fingerprint(patcher), host.recipe.name_of(host.recipe.recipe_of(patcher))

    found, plain = [told(model)], model.clone()
    before = sample(plain)
    found.append(told(plain))
    host.block_hooks.offer(model)
    found.append(told(model))
    same = [bool((sample(model) == before).all())]
    found.append(told(model))
    again = model.clone()
    host.block_hooks.offer(again)
    same.append(bool((sample(again) == before).all()))
    found.append(told(again))
    same.append(bool((sample(plain) == before).all()))
    found.append(told(plain))
    comfy.model_management.unload_all_models()
    found.append(told(model))
    left = [
        path for path, module in model.model.named_modules() if host.block_hooks.is_offered(vars(module).get("forward"))
    ]
    return {"told": len(set(found)), "same": same, "offered": len(model.object_patches), "left": left}


@contextlib.contextmanager
def wrong(host) -> Iterator[None]:
    """Rotary positions, and what else goes with tokens, of the tokens one further on."""
    slices = host.token_slices.Slices
    along = slices.along

    def shifted(self, args: dict) -> dict:
        shift = 1 if self.end < self.tokens else -1
        self.first, self.end = self.first + shift, self.end + shift
        try:
            return along(self, args)
        finally:
            self.first, self.end = self.first - shift, self.end - shift

    slices.along = shifted
    try:
        yield
    finally:
        slices.along = along
