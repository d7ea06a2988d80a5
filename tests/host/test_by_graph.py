"""Models with code in them, made again in a worker by the nodes that made them."""

from __future__ import annotations

import pytest

from .test_exact import LIMIT

PROOF = 2  # calls of this process alone, which show that code keeps nothing from one to the next
UNET = ("sd15", {"size": 16})
DIT = ("sd3", {})

# what is put behind the loader: the test model, and nodes from first to last
SHARED = {
    "FreeU": (UNET, [("FreeU", {"b1": 1.1, "b2": 1.2, "s1": 0.9, "s2": 0.2})]),
    "FreeU_V2": (UNET, [("FreeU_V2", {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2})]),
    "downscale": (
        UNET,
        [(
            "PatchModelAddDownscale",
            {
                "block_number": 3, "downscale_factor": 2.0, "start_percent": 0.0, "end_percent": 0.6,
                "downscale_after_skip": True, "downscale_method": "bicubic", "upscale_method": "bicubic",
            },
        )],
    ),
    "hypertile": (UNET, [("HyperTile", {"tile_size": 32, "swap_size": 1, "max_depth": 0, "scale_depth": False})]),
    "NAG": (DIT, [("NAGuidance", {"nag_scale": 5.0, "nag_alpha": 0.5, "nag_tau": 1.5})]),
}  # fmt: skip


def chain(side, nodes) -> None:
    for kind, inputs in nodes:
        side.model = side.graph.add(kind, model=side.model, **inputs)


@pytest.mark.parametrize("case", SHARED)
def test_code_in_the_network_is_shared(bench, case):
    (family, options), nodes = SHARED[case]
    side = bench(family, **options)
    chain(side, nodes)
    difference, report = side.compare()
    assert difference <= LIMIT
    assert report["lines"] == []
    assert report["shared_calls"] >= report["calls"] - PROOF

