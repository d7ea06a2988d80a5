"""What a run took, step by step and stage by stage, read from its report's plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby

from .gain import gain_of, name_of, obstacle_of, workers_of
from .phrases import clock, say
from .telling import told

# the phrases for the stages; None is a run without a middle
STAGES = {None: "all_steps", "warm-up": "warm_up", "parallelism": "middle", "fully-connecting": "finish"}
# and for ways of sharing a call other than by prompts
WAYS = {"rows": "by_images", "tokens": "by_tokens", "rows and tokens": "by_images_and_tokens"}
# lines that say why a device does not help, though nothing is to be done about it
LEFT_OUT = {
    "RAN_ON_ONE_DEVICE", "TOO_SLOW", "SHARING_LOST_TIME", "STILL_TOO_SLOW", "ANOTHER_PICTURE", "NOT_READY",
    "BEING_SENT",
}  # fmt: skip


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
    return {**head(report), "steps": steps.found}


def head(report: Mapping, starting: Sequence[str] = (), sending: Sequence[Mapping] = ()) -> dict:
    """The same without the steps: what a run came to, or is about.

    `starting` are devices that are not ready yet; `sending` the files on their way to other machines, each with its
    name, the machine and a share of 1.

    `gain` is (times, measured) or None, `no_gain` why a gain would mean nothing; `workers` the places of the devices
    that computed something; `told` each line as telling.py has it, and whether it `matters`; those that do are first.
    """
    gain = gain_of(report) if report.get("seconds") is not None else None
    return {
        "run": report["run"],
        "mode": report["mode"],
        "devices": list(report["devices"]),
        "total": report["total"],
        "state": report["state"],
        "starting": list(starting),
        "sending": [dict(file) for file in sending],
        "seconds": report["seconds"],
        "calls": len(report["steps"]),
        "shared": sum(record["helpers"] > 0 for record in report["steps"]),
        "workers": workers_of(report),
        "gain": list(gain) if gain else None,
        "no_gain": obstacle_of(report),
        "told": sorted(({**told(line), "matters": _matters(told(line))} for line in report["lines"]), key=_rank),
    }


def _matters(said: Mapping) -> bool:
    """Whether a line is shown at once: why a device does not help, and what a user can do something about."""
    return said["group"] != "NOTHING" or said["key"] in LEFT_OUT


def _rank(said: Mapping) -> int:
    """Why the run had one device comes first."""
    return (said["key"] != "RAN_ON_ONE_DEVICE") * (2 - said["matters"])


def way_of(steps: Sequence[Mapping]) -> str | None:
    """How the last calls were shared where that was not by prompts, as a phrase's name."""
    ways = [step["way"] for step in steps if step["way"]][-1:]
    return WAYS.get(ways[0]) if ways else None


def headline(view: Mapping) -> list[str]:
    """What a run came to, in lines: time and gain; devices and picture; why it was not shared, and the way out."""
    step = view["steps"][-1]["step"] + 1 if view["steps"] else 0
    if view["state"] in ("failed", "stopped"):
        first = say(view["state"] if step else f"{view['state']}_early", step=step, total=view["total"])
    else:
        first = clock(view["seconds"] or 0.0)
    if view["gain"] and (len(view["workers"]) > 1 or _not_computed(view)):
        times, measured = view["gain"]
        first += ", " + say("gain_measured" if measured else "gain_estimated", times=f"{times:.2f}")
    found = [first, f"{who(view)}: {what(view)}"]
    if view["no_gain"]:
        found.append(say(f"no_figure_{view['no_gain']}"))
    for said in view["told"]:
        if said["matters"]:
            found += [said["text"], say("way_out", way=said["way_out"])] if said["way_out"] else [said["text"]]
    return found


def who(view: Mapping) -> str:
    """The devices that computed: "2 GPUs"."""
    names = [name_of(view["devices"][place]) for place in view["workers"]]
    kind = "device" if any(name.split()[-1] == "cpu" for name in names) else "gpu"
    return say(kind) if len(names) == 1 else say(f"{kind}s", count=len(names))


def what(view: Mapping) -> str:
    """What they did: how many steps were shared, in which way, and what picture that makes."""
    total, shared = view["calls"], view["shared"]
    part = "shared_all" if shared == total else "shared_some" if shared else "shared_none"
    parts = [say(part, count=shared, total=total)]
    if way := way_of(view["steps"]):
        parts.append(say(way))
    if count := _not_computed(view):
        mode = view["mode"]
        parts.append(say("predicted" if mode == "predict" else "in_parts", count=count, total=total, mode=mode))
    elif view["state"] == "done":
        parts.append(say("same_picture"))
    return ", ".join(parts)


def _not_computed(view: Mapping) -> int:
    """How many steps are not exact."""
    return sum(step["work"] != "exact" for step in view["steps"])


def bands(steps: Sequence[Mapping]) -> list[tuple[str | None, int, int]]:
    """The stages, and the first and last step of each, in order."""
    found = []
    for stage, of_stage in groupby(steps, key=lambda step: step["stage"]):
        numbers = [step["step"] for step in of_stage]
        found.append((stage, numbers[0], numbers[-1]))
    return found


def table(report: Mapping) -> str:
    """The run in words: what it came to, then stages with steps and times, bytes moved, and all that was said."""
    view = timeline(report)
    steps = view["steps"]
    rows = [("stage", "steps", "from", "to", "seconds", "a step", "MiB moved")]
    for stage, first, last in bands(steps):
        mine = [step for step in steps if first <= step["step"] <= last]
        seconds, moved = sum(step["seconds"] for step in mine), sum(step["bytes"] for step in mine)
        rows.append((
            say(STAGES[stage]), str(len(mine)), str(first), str(last), f"{seconds:.2f}", f"{seconds / len(mine):.3f}",
            f"{moved / 2**20:.2f}",
        ))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    text = [*headline(view), ""]
    text += [" ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    text += [
        "",
        f"mode: {report['mode']}",
        f"devices: {', '.join(report['devices'])}",
        f"model calls: {report['calls']}, shared: {report['shared_calls']}",
        f"moved between devices: {report['bytes'] / 2**20:.2f} MiB",
    ]
    if report["first_step_s"] is not None:
        text.append(f"before the first step: {report['first_step_s']:.2f} s")
    if report["lines"]:
        text += ["", "what was said:", *(f"- {line}" for line in report["lines"])]
    return "\n".join(text)
