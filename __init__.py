"""Hybridiff for ComfyUI: one image on two or more devices, with the same picture."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    # imported here, not above: pytest imports this file as a plain module, where a relative import fails
    from .nodes import HybridiffExtension

    return HybridiffExtension()
