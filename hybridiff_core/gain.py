"""How much faster a run was than one device would have been, by what was measured in it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import NamedTuple

SETTLED_AFTER = 1  # calls before this one are slow for other reasons


class Gain(NamedTuple):
    """`times` as fast as one device; `measured` where one device computed whole calls in this run, else estimated."""

    times: float
    measured: bool


def one_device_call(report: Mapping) -> tuple[float, bool] | None:
    """Seconds that one device takes for a call, and whether that was measured; None where nothing tells it.

    Measured: calls that this process computed whole and alone. Estimated: by what its part took in shared calls.
    Neither is more than a shared call's time for each device that worked for it: no more can have been gained.
    """
    exact = [record for record in report["steps"][SETTLED_AFTER:] if record["work"] == "exact"]
    shared = [record for record in exact if record["helpers"]]
    most = statistics.median(record["seconds"] * (1 + record["helpers"]) for record in shared) if shared else math.inf
    if alone := [record["seconds"] for record in exact if not record["helpers"]]:
        return min(statistics.median(alone), most), True
    parts = [
        record["compute_s"][0] / share
        for record in shared
        if record["lanes"][:1] == [0] and (share := _own_share(record))
    ]
    return (min(statistics.median(parts), most), False) if parts else None


def _own_share(record: Mapping) -> float:
    """This process's part of what a call takes: by conds where nothing else is told."""
    if record["share"] is not None:
        return record["share"]
    return record["conds"][0] / sum(record["conds"])


def gain_of(report: Mapping) -> Gain | None:
    """One device's time for the run over the time it took; None where that is not known or means nothing.

    What is outside of the calls (loading, the sampler's own work) is in both times. A call that one device computed
    counts as it was, but for the wait for workers; every other one as one device's.
    """
    found = one_device_call(report)
    if found is None or obstacle_of(report) or report.get("state", "done") != "done":
        return None
    each, measured = found
    calls = report["steps"]
    took = sum(record["seconds"] for record in calls)
    one = 0.0
    for place, record in enumerate(calls):
        alone = record["work"] == "exact" and not record["helpers"]
        own = record["seconds"] - (report.get("waited_s") or 0.0) * (place == 0)
        one += own if alone else each
    around = max((report.get("seconds") or took) - took, 0.0)
    return Gain((around + one) / (around + took), measured) if around + took > 0 else None


def obstacle_of(report: Mapping) -> str | None:
    """Why a gain would mean nothing: "same" where a helper shared this process's device, "cpu" for one on a CPU."""
    return obstacle_among(report["devices"][0], [report["devices"][place] for place in workers_of(report) if place])


def obstacle_among(own: str, helpers: Iterable[str]) -> str | None:
    """The same by the devices' names: this process's own, and those that help."""
    names = [name_of(name) for name in helpers]
    if name_of(own) in names:
        return "same"
    return "cpu" if any(name.split()[-1] == "cpu" for name in names) else None


def workers_of(report: Mapping) -> list[int]:
    """The places of the devices that computed something."""
    return sorted({lane for record in report["steps"] for lane in record["lanes"]} | {0})


def name_of(device: str) -> str:
    """ "cuda:1" for "cuda:1 (RTX 3090, 24 GB) (process 2)"."""
    return device.split(" (")[0]
