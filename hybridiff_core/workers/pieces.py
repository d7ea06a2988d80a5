"""A tensor of any size by a channel, in pieces, so that the channel's buffers stay small."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .channel import Channel
from .wire import as_bytes

PIECE_LIMIT_S = 60.0
PIECE_BYTES = 16 << 20


def send_whole(channel: Channel, tensor: torch.Tensor) -> None:
    """Send a tensor. Raises ChannelBroken."""
    for piece in as_bytes(tensor.detach()).split(PIECE_BYTES):
        channel.send([piece])


def receive_whole(channel: Channel, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Receive what `send_whole` sends, into host memory of its own. Raises ChannelBroken."""
    whole = torch.empty(tuple(shape), dtype=dtype)
    for piece in as_bytes(whole).split(PIECE_BYTES):
        expected = channel.expect([(tuple(piece.shape), torch.uint8)], into=piece)
        (came,) = expected.wait(PIECE_LIMIT_S)
        if came.data_ptr() != piece.data_ptr():
            piece.copy_(came)
        expected.release()
    return whole
