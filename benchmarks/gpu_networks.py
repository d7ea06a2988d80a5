"""The networks that gpu.py measures: of their true sizes, and tiny ones to try it out."""

from __future__ import annotations

from tests.host.families import FAMILIES, MMDIT, WAN, dit, heads_of_64, text, unet_family, wan_config
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
DTYPES = {"sdxl": "float16", "sd3": "float16", "wan": "bfloat16"}
TITLES = {"sdxl": "SDXL", "sd3": "SD3-medium", "wan": "Wan 2.1 1.3B"}
