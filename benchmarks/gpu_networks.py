"""The networks that gpu.py measures: of their true sizes, and tiny ones to try it out."""

from __future__ import annotations

from dataclasses import replace

from tests.host.families import (
    FAMILIES,
    MMDIT,
    WAN,
    Z_IMAGE,
    Family,
    dit,
    flux_config,
    heads_of_64,
    text,
    unet_family,
    wan_config,
)
from tests.host.make_models import sd3_config

SDXL = heads_of_64(
    2048, num_res_blocks=[2, 2, 2], channel_mult=[1, 2, 4], num_classes="sequential", adm_in_channels=2816,
    transformer_depth=[0, 0, 2, 2, 10, 10], transformer_depth_middle=10,
    transformer_depth_output=[0, 0, 0, 2, 2, 2, 10, 10, 10],
)  # fmt: skip
SD3 = {**sd3_config(24), "num_patches": 192 * 192, "pos_embed_max_size": 192}
WAN_1_3B = wan_config(dim=1536, ffn_dim=8960, num_heads=12, num_layers=30)


TRUE = {
    "sdxl": unet_family(SDXL, 77, 1280),
    "sd3": dit(MMDIT, SD3, "final_layer.linear.weight", (1, 16, 128, 128), text(154, 4096, 2048), "joint_blocks"),
    "wan": dit(WAN, WAN_1_3B, "head.head.weight", (1, 16, 9, 60, 104), text(512, 4096), "blocks"),
}
SMALL = {"sdxl": FAMILIES["sdxl"], "sd3": FAMILIES["sd3"], "wan": FAMILIES["wan21"]}
# divided by tokens (gpu_tokens.py); for 1024, 1328 and 1024 pixels, and 480p with 81 frames
FLUX = {**flux_config(3072, 19, 38), "guidance_embed": True}
WAN_14B = wan_config(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40)
OF_TRUE_SIZE = {
    "flux": (FLUX, (1, 16, 128, 128), text(512, 4096, 768)),
    "qwen_image": ({"num_layers": 60}, (1, 16, 1, 166, 166), text(128, 3584)),
    "wan_14b": (WAN_14B, (1, 16, 21, 60, 104), text(512, 4096)),
    "z_image": ({**Z_IMAGE, "n_layers": 30, "pad_tokens_multiple": 32}, (1, 16, 128, 128), text(128, 2560)),
}
SMALL_BY_TOKENS = {name: FAMILIES[{"wan_14b": "wan21"}.get(name, name)] for name in OF_TRUE_SIZE}
TRUE_BY_TOKENS = {
    name: replace(SMALL_BY_TOKENS[name], config=config, latent=latent, text=words)
    for name, (config, latent, words) in OF_TRUE_SIZE.items()
}
DEPTHS = ("depth", "depth_single_blocks", "num_layers", "n_layers")  # what configs call a number of blocks
DTYPES = {"sdxl": "float16", "sd3": "float16", "wan": "bfloat16", **dict.fromkeys(OF_TRUE_SIZE, "bfloat16")}
TITLES = {
    "sdxl": "SDXL", "sd3": "SD3-medium", "wan": "Wan 2.1 1.3B", "flux": "Flux", "qwen_image": "Qwen-Image",
    "wan_14b": "Wan 14B", "z_image": "Z-Image",
}  # fmt: skip
SIZES = {"flux": "1024", "qwen_image": "1328", "wan_14b": "480p, 81 frames", "z_image": "1024"}


def shallower(family: Family, part: int) -> Family:
    """The family with one in `part` of its blocks."""
    fewer = {name: max(1, family.config[name] // part) for name in DEPTHS if name in family.config}
    return replace(family, config={**family.config, **fewer})


def depth(family: Family) -> int:
    """How many blocks it has."""
    return sum(family.config.get(name, 0) for name in DEPTHS)
