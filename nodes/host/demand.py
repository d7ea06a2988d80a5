"""How many devices a call has work for: with its conds, with the images of its batch, with a transformer's tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...hybridiff_core import lines
from ...hybridiff_core.setting import Forms
from ...hybridiff_core.share import Unit
from ...hybridiff_core.workers.devices import places
from ...hybridiff_core.workers.place import Place
from .host_call import HostCall
from .obstacles import code_inside
from .rows import undividable


def wanted(call: HostCall, units: Sequence[Unit], most: int, divides: bool) -> int:
    """How many devices beside this process's, of the `most` that there are.

    `divides` says whether the network's forwards may be divided by tokens.
    """
    crossing = sum(not unit.local for unit in units)
    found = min(len(units) - 1, crossing)
    if crossing and undividable_batch(call) is None:
        found = max(found, crossing * len(call.x) - (crossing == len(units)))
    if divides and not any(unit.local for unit in units):
        found = max(found, most)
    return min(found, most)


def places_for(devices: Sequence[str], own: torch.device, cuts: bool) -> tuple[list[Place], list[str]]:
    """Where workers are to run, and lines (devices.places). With `cuts`, for a network in parts, on this machine."""
    found, said = places(devices, own)
    if cuts:
        said += [lines.CUT_STAYS_HERE(device=place.label) for place in found if place.machine]
        found = [place for place in found if not place.machine]
    return found, said


def never_divided(forms: Forms, model: object) -> bool:
    """Whether a model's forwards were looked at before, and not one could be divided by tokens."""
    found = [form for key, form in forms.items() if key[0] == model]
    return bool(found) and all(isinstance(form, str) for form in found)


def undividable_batch(call: HostCall) -> str | None:
    """Why the call's batch items cannot be computed apart, in words for users; None where they can."""
    if len(call.x) < 2:
        return lines.ONE_IMAGE()
    if code_inside(call.model_options):
        return lines.BATCH_WITH_CODE()
    return undividable(call.model, call.conds, call.model_options, len(call.x))
