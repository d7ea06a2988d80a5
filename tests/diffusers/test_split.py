"""Where diffusers' networks are cut: outer and inner parts together give what the whole network gives."""

import pytest
import torch

pytest.importorskip("diffusers", reason="no diffusers (pip install diffusers)")

from hybridiff_core.diffusers.diffusers_cuts import splitter_for
from hybridiff_core.network.split import Cut, Inner, Outer, Pass, Reached, Whole

BATCH = 2


def forward_of(tiny, side=32):
    """The network's forward on fixed inputs, with a Pass; x can be left blank, as an inner device has it."""
    arguments = {
        "encoder_hidden_states": tiny.embeds["prompt_embeds"].expand(BATCH, -1, -1),
        "timestep": torch.tensor([500, 500]),
        "return_dict": False,
    }
    pooled = tiny.embeds["pooled_prompt_embeds"].expand(BATCH, -1)
    name = "hidden_states"
    if tiny.network.config.get("addition_embed_type"):
        name = "sample"
        arguments["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": torch.ones(BATCH, 6)}
    else:
        arguments["pooled_projections"] = pooled
    x = torch.randn(BATCH, 4, side, side, generator=torch.Generator().manual_seed(7))
    splitter = splitter_for(tiny.network)

    def forward(through, blank=False):
        with torch.no_grad(), splitter.asking(through):
            return tiny.network(**{name: torch.zeros_like(x) if blank else x}, **arguments)[0]

    return forward, splitter


def blocks_of(forward):
    through = Whole(settle=lambda: None)
    forward(through)
    return len(through.times)


@pytest.mark.parametrize("segments", [1, 2, 3])
def test_the_parts_of_every_cut_give_the_whole(tiny, segments):
    forward, splitter = forward_of(tiny)
    blocks, plain = blocks_of(forward), forward(None)
    openings = splitter.openings(blocks, segments)
    assert openings
    for first, last in openings:
        room = last - first
        if room < segments:
            continue
        cut = Cut((*range(first, first + segments), last))
        whole, handed = Whole(cut), []
        assert torch.equal(forward(whole), plain)
        assert torch.equal(forward(Outer(cut, lambda whole=whole: whole.z, handed.append)), plain)
        (state,) = handed
        for segment in cut.segments:
            with pytest.raises(Reached) as reached:
                forward(Inner(cut.first, segment, state), blank=True)
            state = reached.value.state
        assert len(state) == len(whole.z)
        assert all(torch.equal(a, b) for a, b in zip(state, whole.z)), cut


def test_nothing_of_the_network_stays_replaced(tiny):
    forward, _ = forward_of(tiny)
    forward(Pass())
    with pytest.raises(Reached):
        forward(Inner(1, (1, 2), forward_state(tiny, forward)))
    assert not [name for name, module in tiny.network.named_modules() if "forward" in vars(module)]


def forward_state(tiny, forward):
    handed = []
    whole = Whole(Cut((1, 2)))
    forward(whole)
    forward(Outer(Cut((1, 2)), lambda: whole.z, handed.append))
    return handed[0]


@pytest.mark.parametrize("tiny", ["sdxl"], indirect=True)  # only U-Nets enlarge to a skip's size
def test_an_uneven_latent_has_no_cut(tiny):
    forward, splitter = forward_of(tiny, side=31)
    assert blocks_of(forward)
    assert splitter.openings(13, 1) == "the latent's sides are not multiples of 2"
