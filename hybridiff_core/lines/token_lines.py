"""Lines on a forward divided by tokens: why a network cannot be."""

from .line import Group, Line

NO_BLOCK_HOOK = Line(
    "the network's blocks cannot be reached from outside",
    "The image's tokens are divided before the first block and put together after the last; this network has no place "
    "where another node can do that.",
    "Nothing is wrong: such a model uses one device for each prompt.",
    Group.NOTHING,
)
UNET_HAS_NO_TOKENS = Line(
    "a U-Net (SD1.5, SDXL) cannot divide one image",
    "Its layers look at neighbouring pixels. Only in a transformer can each device have a part of the image's tokens.",
    "Nothing is wrong: such a model uses one device for each prompt.",
    Group.NOTHING,
)
ATTENTION_HIDDEN = Line(
    "the network's attention cannot be reached",
    "Its blocks do not ask ComfyUI's hook for the attention, so keys and values cannot cross.",
    "Nothing is wrong: such a model uses one device for each prompt.",
    Group.NOTHING,
)
TOKENS_NOT_A_ROW = Line(
    "the network's blocks do not hold the image as one row of tokens",
    "The image's tokens are divided where they stand in a row.",
    "Nothing is wrong: such a model uses one device for each prompt.",
    Group.NOTHING,
)
TOKENS_ASKED_TWICE = Line(
    "the network runs more than once for one prompt",
    "A part of the conditioning or another node divides the latent, and each part is small.",
    "Nothing is wrong: such a prompt uses one device.",
    Group.NOTHING,
)
TOKENS_NOT_ALONE = Line(
    "a part of the image comes out differently by itself",
    "Something in the network, such as a reference image or a guide, hangs on where in the whole image a token is. It "
    "was tried with a few tokens at the first step.",
    "Nothing is wrong: such a prompt uses one device.",
    Group.NOTHING,
)
NO_ROOM_TO_LOOK = Line(
    "there was not enough memory to try a part of the image",
    "Each block is tried a second time with a few tokens, which takes some memory.",
    "Choose a smaller picture, or free memory.",
    Group.MEMORY,
)
