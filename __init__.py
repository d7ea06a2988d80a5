"""Hybridiff for ComfyUI: one image on two or more devices, with the same picture."""

import re

WEB_DIRECTORY = "./web"
OLDEST_COMFYUI = "0.16.0"  # the first whose loaders say how a model was loaded


async def comfy_entrypoint():
    from comfyui_version import __version__

    refuse_older(__version__)
    # imported here, not above: pytest imports this file as a plain module, where a relative import fails
    from .nodes import HybridiffExtension

    return HybridiffExtension()


def refuse_older(version: str) -> None:
    """Raises RuntimeError for a ComfyUI that is too old; the host shows its text as one line in the log."""
    here, oldest = ([int(number) for number in re.findall(r"\d+", text)[:3]] for text in (version, OLDEST_COMFYUI))
    if here < oldest:
        raise RuntimeError(f"Hybridiff needs ComfyUI {OLDEST_COMFYUI} or newer, and this is {version}; update ComfyUI")
