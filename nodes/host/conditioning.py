"""The host's conds: which are due at a sigma, which can cross to a worker, and how."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import comfy.conds
import comfy.samplers
import torch

from ...hybridiff_core import lines
from ...hybridiff_core.plan import shown
from ...hybridiff_core.share import Unit
from ...hybridiff_core.workers.wire import Kind
from .control import Controls, active

Cond = dict
Conds = Sequence[list[Cond] | None]

# what the host's get_area_and_mult reads of a cond; texts, images and the like stay here
CROSSING_KEYS = (
    "area",
    "strength",
    "mask",
    "mask_strength",
    "timestep_start",
    "timestep_end",
    "model_conds",
    "uuid",
)
# objects with code and models of their own: such a cond is computed in this process
STAYING_KEYS = {"gligen": lines.GLIGEN, "hooks": lines.PROMPT_HOOKS}

KINDS = {
    cls: Kind(cls.__name__, lambda cond: cond.cond, cls)
    for cls in (
        comfy.conds.CONDRegular,
        comfy.conds.CONDNoiseShape,
        comfy.conds.CONDCrossAttn,
        comfy.conds.CONDConstant,
        comfy.conds.CONDList,
    )
}


def _layout() -> dict[type, Kind]:
    """MiniMax-H3's table of its packed sequence; ComfyUI before 0.30 has none."""
    try:
        from comfy.ldm.minimax.model import PackedLayout
    except ImportError:
        return {}
    names = vars(PackedLayout(1, 1, 2, 2, 1)).keys()

    def build(plain: dict) -> object:
        if plain.keys() != names:
            raise ValueError(lines.WRONG_VALUE(what="a layout of MiniMax-H3", value=shown(plain)))
        layout = PackedLayout.__new__(PackedLayout)
        vars(layout).update(plain)
        return layout

    return {PackedLayout: Kind(PackedLayout.__name__, vars, build)}


# objects of ComfyUI's classes in a cond's values
OBJECTS = _layout()


def staying_reason(cond: Cond, controls: Controls) -> str | None:
    """Why `cond` has to be computed in this process, in words for users; None where it need not."""
    line = next((line for key, line in STAYING_KEYS.items() if cond.get(key) is not None), None)
    return line() if line else controls.reason(cond)


def crosses(cond: Cond, of_branch: Sequence[Cond], controls: Controls) -> bool:
    """Whether a worker can compute `cond`; a branch with a default cond stays here whole."""
    return staying_reason(cond, controls) is None and not any("default" in other for other in of_branch)


def due_at(cond: Cond, sigma: float, sampling: object) -> bool:
    """Whether `cond`, as a guider has it before the run, is due at `sigma`; `sampling` is the model's."""
    # as the host's calculate_start_end_timesteps decides it (comfy/samplers.py)
    starts = [cond[name] for name in ("start_percent", "clip_start_percent") if name in cond]
    ends = [cond[name] for name in ("end_percent", "clip_end_percent") if name in cond]
    if starts and sigma > sampling.percent_to_sigma(max(starts)):
        return False
    return not (ends and sigma < sampling.percent_to_sigma(min(ends)))


def with_boxes(conds: dict[str, list[Cond]]) -> dict[str, list[Cond]]:
    """The branches' conds, with the positive one's GLIGEN boxes on the others too, where the host will put them."""
    # as the host's apply_empty_x_to_equal_area does it (comfy/samplers.py)
    whole = {name: [i for i, cond in enumerate(of) if "area" not in cond] for name, of in conds.items()}
    given = {name: [c for c in of if "area" not in c and c.get("gligen") is not None] for name, of in conds.items()}
    spread = {name: list(of) for name, of in conds.items()}
    for name, of in spread.items():
        if name != "positive" and whole[name] and not given[name]:
            for number, cond in enumerate(given.get("positive", ())):
                place = whole[name][number % len(whole[name])]
                of[place] = {**of[place], "gligen": cond["gligen"]}
    return spread


def units_of(conds: Conds, x: torch.Tensor, timestep: torch.Tensor, controls: Controls) -> list[Unit]:
    """The conds due at `timestep` as units of work.

    x [batch, channels, ...]; timestep [batch], in sigma.
    """
    sigma = float(timestep[0])
    units = []
    for branch, conds_of_branch in enumerate(conds):
        for index, cond in enumerate(conds_of_branch or ()):
            if _due(cond, timestep):
                local = not crosses(cond, conds_of_branch, controls)
                units.append(Unit(branch, index, _area_share(cond, x), local, active(cond.get("control"), sigma)))
    return units


def _due(cond: Cond, timestep: torch.Tensor) -> bool:
    # as the host's get_area_and_mult decides it (comfy/samplers.py)
    if "timestep_start" in cond and timestep[0] > cond["timestep_start"]:
        return False
    return not ("timestep_end" in cond and timestep[0] < cond["timestep_end"])


def _area_share(cond: Cond, x: torch.Tensor) -> float:
    area = cond.get("area")
    if area is None:
        return 1.0
    sizes = area[: len(area) // 2]
    whole = x.shape[-len(sizes) :]
    return math.prod(min(size, full) / full for size, full in zip(sizes, whole))


def kind_of(cond: Cond) -> tuple:
    """What is in a cond, without what differs from prompt to prompt: its values' names, the shapes of latents."""
    return tuple(sorted((name, _kind(getattr(value, "cond", value))) for name, value in cond["model_conds"].items()))


def first_alike(conds: Sequence[Cond]) -> tuple[int, ...]:
    """For each cond the place of the first that the host can compute in one batch with it (comfy/samplers.py)."""
    of = [cond["model_conds"] for cond in conds]
    return tuple(
        next(place for place, first in enumerate(of) if comfy.samplers.cond_equal_size(first, mine)) for mine in of
    )


def _kind(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return str(tuple(value.shape)) if value.ndim > 3 else f"{value.ndim} dimensions"  # text's length differs
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_kind, value))
    return value if isinstance(value, str) else type(value).__name__


def select(conds: Conds, units: Sequence[Unit]) -> list[list[Cond] | None]:
    """The cond lists with only `units` in them; each branch keeps its place, an empty one is None.

    Places matter: attention patches and ControlNets are told a branch by its place.
    """
    chosen: list[list[Cond] | None] = [None] * len(conds)
    for unit in units:
        if chosen[unit.branch] is None:
            chosen[unit.branch] = []
        chosen[unit.branch].append(conds[unit.branch][unit.index])
    return chosen


def weight_of(conds: Conds, units: Sequence[Unit], x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """The sum of the units' masks, of x's shape: by what the host divides the sum of their outputs."""
    total = torch.full_like(x, 1e-37)
    for unit in units:
        cond = comfy.samplers.get_area_and_mult(conds[unit.branch][unit.index], x, timestep)
        part = total
        dims = len(cond.area) // 2 if cond.area is not None else 0
        for i in range(dims):
            part = part.narrow(i + 2, cond.area[i + dims], cond.area[i])
        part += cond.mult
    return total


def crossing(conds: Conds, controls: Controls) -> dict:
    """What a worker needs of the conds: "conds", with None in the place of one that stays here, and "controls".

    A cond's "control" is the place of its chain in "controls", so that conds go on sharing one.
    """
    chains: dict[int, tuple[int, list]] = {}

    def plain(cond: Cond) -> Cond | None:
        if staying_reason(cond, controls) is not None:
            return None
        kept = {key: cond[key] for key in CROSSING_KEYS if key in cond}
        if (control := cond.get("control")) is not None:
            place, _ = chains.setdefault(id(control), (len(chains), controls.plain(control)))
            kept["control"] = place
        return kept

    crossed = [[plain(cond) for cond in conds_of_branch or ()] for conds_of_branch in conds]
    return {"conds": crossed, "controls": [links for _, links in chains.values()]}


def snapshot(value: object, keep: bool = False) -> object:
    """What `unchanged` compares later: containers copied, for others may change them in place.

    A tensor is remembered with its version; one made in inference mode, as ComfyUI's nodes make them, has none, and
    with `keep` its content is.
    """
    if isinstance(value, dict):
        return {key: snapshot(item, keep) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [snapshot(item, keep) for item in value]
    if type(value) in KINDS:
        return [type(value).__name__, snapshot(value.cond, keep)]
    if isinstance(value, torch.Tensor):
        if not value.is_inference():
            return [value, value._version]
        return Content(value.clone() if keep else value)
    return value


@dataclass(frozen=True)
class Content:
    """A tensor that is known by its content."""

    tensor: torch.Tensor


def unchanged(before: object, now: object) -> bool:
    """Whether two snapshots are the same: objects and tensors by identity, numbers, text and Content by value.

    A device is asked once for all that it holds of them.
    """
    compared: dict[torch.device, list[torch.Tensor]] = {}

    def alike(before: object, now: object) -> bool:
        if type(before) is not type(now):
            return False
        if isinstance(now, Content):
            a, b = before.tensor, now.tensor
            if (a.dtype, a.device, a.shape) != (b.dtype, b.device, b.shape):
                return False
            compared.setdefault(a.device, []).append((a == b).all())
            return True
        if isinstance(now, dict):
            return before.keys() == now.keys() and all(alike(before[key], now[key]) for key in now)
        if isinstance(now, (list, tuple)):
            return len(before) == len(now) and all(map(alike, before, now))
        return before is now or (isinstance(now, (int, float, str)) and before == now)

    return alike(before, now) and all(bool(torch.stack(found).all()) for found in compared.values())
