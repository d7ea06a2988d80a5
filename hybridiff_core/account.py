"""What a run took, step by step and stage by stage, read from its report's plain data."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import groupby

SETTLED_AFTER = 1  # calls before this one are slow for other reasons
# what users read for the stages; None is a run without a middle
WORDS = {None: "all steps", "warm-up": "warm-up", "parallelism": "middle", "fully-connecting": "finish"}


def device_times(record: Mapping, devices: int) -> list[dict]:
    """Seconds that each device computed, sent and received, and waited in a call.

    A device beside this process's is idle when it is done before it; when it is what this process
    waited for, that is its transfer, an upper bound.
    """
    times = [{"compute": 0.0, "transfer": 0.0, "wait": 0.0} for _ in range(devices)]
    if not record["compute_s"]:
        return times
    took = dict(zip(record["lanes"], record["compute_s"]))
    own = took.pop(0, 0.0)  # it may have had no part
    whole = own + record["wait_s"]
    times[0].update(compute=own, wait=record["wait_s"])
    last = max(took.values(), default=0.0)
    for place, seconds in took.items():
        rest = max(whole - seconds, 0.0)
        waited_for = record["wait_s"] > 0 and seconds == last
        transfer = min(rest, record["wait_s"]) if waited_for else 0.0
        times[place].update(compute=seconds, transfer=transfer, wait=rest - transfer)
    return times


class Steps:
    """Calls put together by step, as they come: number, stage, work, rel_mae, seconds, bytes, times by device.

    A call that belongs to no step known (one device; another node's extra call) is a step of its
    own where sigma has fallen, and otherwise part of the one before. A run whose mode is "exact"
    has no stages.
    """

    def __init__(self) -> None:
        self.found: list[dict] = []
        self._lowest = math.inf

    def add(self, record: Mapping, mode: str, devices: int) -> dict:
        """Take down a call, its record as plain data; gives the step it belongs to."""
        last = self.found[-1] if self.found else None
        number = record["step"]
        if number is None:
            number = last["step"] + (record["sigma"] < self._lowest) if last else 0
        self._lowest = min(self._lowest, record["sigma"])
        times = device_times(record, devices)
        rel_mae = record["rel_mae"] if math.isfinite(record["rel_mae"] or 0.0) else None
        moved = record["bytes_sent"] + record["bytes_received"]
        if last is None or last["step"] != number:
            last = {"step": number, "stage": None if mode == "exact" else record["stage"], "work": record["work"]}
            last |= {"rel_mae": rel_mae, "seconds": record["seconds"], "bytes": moved, "times": times}
            last["way"] = record["way"] if record["helpers"] else None
            self.found.append(last)
            return last
        if last["rel_mae"] is None:
            last["rel_mae"] = rel_mae
        last["seconds"] += record["seconds"]
        last["bytes"] += moved
        for mine, more in zip(last["times"], times):
            for kind, seconds in more.items():
                mine[kind] += seconds
        return last


def timeline(report: Mapping) -> dict:
    """What a picture of the run shows, as plain data."""
    steps = Steps()
    for record in report["steps"]:
        steps.add(record, report["mode"], len(report["devices"]))
    return {
        "mode": report["mode"],
        "devices": list(report["devices"]),
        "lines": list(report["lines"]),
        "total": report["total"],
        "steps": steps.found,
        "speed_up": speed_up(report),
        "done": True,
    }


def way_of(steps: Sequence[Mapping]) -> str:
    """How the last calls were shared where that was not by prompts, as it follows a mode's name."""
    ways = [step["way"] for step in steps if step["way"]][-1:]
    return "".join(f", by {way.replace('rows', 'images')}" for way in ways if way != "conds")


def bands(steps: Sequence[Mapping]) -> list[tuple[str | None, int, int]]:
    """The stages, and the first and last step of each, in order."""
    found = []
    for stage, of_stage in groupby(steps, key=lambda step: step["stage"]):
        numbers = [step["step"] for step in of_stage]
        found.append((stage, numbers[0], numbers[-1]))
    return found


def one_device_call_s(report: Mapping) -> float | None:
    """How long one device would take for a call, from what its part took in shared exact calls; None if unknown."""
    shared = [
        record["compute_s"][0] / share
        for record in report["steps"][SETTLED_AFTER:]
        if record["work"] == "exact"
        and record["helpers"]
        and record["lanes"][:1] == [0]
        and (share := _own_share(record))
    ]
    alone = [
        record["seconds"]
        for record in report["steps"][SETTLED_AFTER:]
        if record["work"] == "exact" and not record["helpers"]
    ]
    found = shared or alone
    return statistics.median(found) if found else None


def _own_share(record: Mapping) -> float:
    """This process's part of what a call takes: by conds where nothing else is told."""
    if record["share"] is not None:
        return record["share"]
    return record["conds"][0] / sum(record["conds"])


def speed_up(report: Mapping) -> float | None:
    """Estimated: one device's time for the run's calls, each computed whole, over the time they took here.

    The first call is left out, in which workers start.
    """
    each, counted = one_device_call_s(report), report["steps"][SETTLED_AFTER:]
    took = sum(record["seconds"] for record in counted)
    return len(counted) * each / took if each and took else None


def table(report: Mapping) -> str:
    """The run in words: stages with steps and times, speed-up, bytes moved, and why something was not shared."""
    steps = timeline(report)["steps"]
    rows = [("stage", "steps", "from", "to", "seconds", "a step", "MiB moved")]
    for stage, first, last in bands(steps):
        mine = [step for step in steps if first <= step["step"] <= last]
        seconds, moved = sum(step["seconds"] for step in mine), sum(step["bytes"] for step in mine)
        rows.append((
            WORDS[stage], str(len(mine)), str(first), str(last), f"{seconds:.2f}", f"{seconds / len(mine):.3f}",
            f"{moved / 2**20:.2f}",
        ))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    text = [" ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    faster = speed_up(report)
    text += [
        "",
        f"mode: {report['mode']}{way_of(steps)}",
        f"devices: {', '.join(report['devices'])}",
        f"model calls: {report['calls']}, shared: {report['shared_calls']}",
        f"speed-up against one device, estimated: {f'{faster:.2f}x' if faster else 'not known'}",
        f"moved between devices: {report['bytes'] / 2**20:.2f} MiB",
    ]
    if report["first_step_s"] is not None:
        text.append(f"before the first step: {report['first_step_s']:.2f} s")
    if report["lines"]:
        text += ["", "what was said:", *(f"- {line}" for line in report["lines"])]
    return "\n".join(text)
