"""Steps and inner parts on the wire: the frames that ask for them, and the head of what comes back."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..network.split import State
from ..share import Unit
from .wire import describe_tensor, dtype_name

# what comes before tensors that a worker computed
HEAD = ((4,), torch.int64)  # number, status, microseconds of computing, error in millionths (-1: none)
# status; NOT_NUMBERS: infinite, or no numbers at all; DOUBTED: right, but the worker says why the next may not be
RIGHT, FAILED, GROUP_LOST, NOT_NUMBERS, DOUBTED = 0, 1, 2, 3, 4


def head(number: int, status: int, seconds: float, error: float | None = None) -> torch.Tensor:
    """The head of an answer; `error` is that of the expected inner results, as a share of them."""
    millionths = -1 if error is None else int(min(error, 1e6) * 1e6)
    return torch.tensor([number, status, int(seconds * 1e6), millionths])


def step_frame(
    number: int,
    x: torch.Tensor,
    sigma: torch.Tensor,
    units: Sequence[Unit],
    how: dict[str, object],
    rows: tuple[int, int, int] | None = None,
) -> dict:
    """The frame that starts a step; x and sigma follow as a message. `how` says what kind of step it is.

    `rows` are the batch items of the call's that x and sigma are, None for all.
    """
    return {
        "op": "step",
        "number": number,
        "x": describe_tensor(x),
        "sigma": describe_tensor(sigma),
        "units": [[unit.branch, unit.index] for unit in units],
        **({"rows": list(rows)} if rows else {}),
        **how,
    }


def inner_frame(
    number: int,
    unit: Unit,
    x: torch.Tensor,
    sigma: torch.Tensor,
    h: State,
    z: State,
    segments: list[tuple[int, int]],
    peers: list[str],
    lead: str,
) -> dict:
    """The frame that starts an inner part; its message is x and the state `h`. `z` shows the result's shapes.

    A network may read x between its blocks (Wan VACE does), so an inner part has it too.

    `peers` are the names of the workers after the first, a segment for each; `lead` is the name of
    the one that sends it and is answered, "" for the parent.
    """
    first, *others = segments
    return {
        "op": "inner",
        "number": number,
        "unit": [unit.branch, unit.index],
        "sigma": [sigma.tolist(), dtype_name(sigma.dtype)],
        "state": [describe_tensor(tensor) for tensor in (x, *h)],
        "answer": [describe_tensor(tensor) for tensor in z],
        "first": first[0],
        "segment": first,
        "route": [[peer, *segment] for peer, segment in zip(peers, others, strict=True)],
        "via": lead,
        "back": lead,
    }
