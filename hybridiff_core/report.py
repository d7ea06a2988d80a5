"""What happened in a run: for the log, the report and the tests."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field

from . import lines
from .share import Unit


@dataclass
class StepRecord:
    """One denoiser call. Seconds; bytes; `conds` is how many conds each device was given.

    `compute_s` has this process's time and that of each device that answered, `lanes` their places in
    the report's devices; `helpers` is how many devices beside this process's worked for the call, `way`
    how it was shared (share.py), `share` this process's part of what it takes. `step` is the sampler's
    step, `stage`, `work`, `rel_mae` and `error` as in schedule.py; `seconds` is the whole call's time.
    """

    sigma: float
    conds: list[int]
    compute_s: list[float] = field(default_factory=list)
    lanes: list[int] = field(default_factory=list)
    wait_s: float = 0.0
    bytes_sent: int = 0
    bytes_received: int = 0
    helpers: int = 0
    step: int | None = None
    stage: str | None = None
    work: str = "exact"
    rel_mae: float | None = None
    error: float | None = None
    seconds: float = 0.0
    way: str = "conds"
    share: float | None = None

    def took(self, lane: int, seconds: float) -> None:
        """A device computed for the call, maybe once more."""
        if lane in self.lanes:
            self.compute_s[self.lanes.index(lane)] += seconds
            return
        self.lanes.append(lane)
        self.compute_s.append(seconds)


@dataclass
class RunReport:
    """A run's record.

    `devices[0]` is this process's; `lines` are the plain sentences for the user; `loadings` says per
    worker what giving it the model took; `first_step_s` is counted from the node's call; `schedule`
    is the printed Schedule; `cuts` says for each branch group where it was cut and on what times;
    `total` is the sampler's number of steps. `state` is "running", "done", "failed" or "stopped" (by the user);
    `seconds` the whole time from the node's call, `waited_s` what of it was waiting for workers before the first step;
    `run` tells it from others, and is greater than those of earlier ones.
    """

    mode: str
    devices: list[str]
    lines: list[str] = field(default_factory=list)
    steps: list[StepRecord] = field(default_factory=list)
    called_at: float = field(default_factory=time.perf_counter)
    first_step_s: float | None = None
    loadings: list[dict] = field(default_factory=list)
    schedule: str = ""
    cuts: list[dict] = field(default_factory=list)
    total: int = 0
    state: str = "running"
    seconds: float | None = None
    waited_s: float = 0.0
    run: int = field(default_factory=time.time_ns)

    def end(self, finished: bool) -> None:
        """The sampling is over; where it was stopped, `state` says so already."""
        self.seconds = time.perf_counter() - self.called_at
        if self.state == "running":
            self.state = "done" if finished else "failed"

    def note(self, line: str) -> None:
        if line not in self.lines:
            self.lines.append(line)

    def open_step(self, sigma: float, shares: list[list[Unit]]) -> StepRecord:
        if self.first_step_s is None:
            self.first_step_s = time.perf_counter() - self.called_at
        self.steps.append(StepRecord(sigma, [len(mine) for mine in shares]))
        return self.steps[-1]

    @property
    def shared_steps(self) -> int:
        """Denoiser calls for which another device than this process's worked."""
        return sum(step.helpers > 0 for step in self.steps)

    def to_dict(self) -> dict:
        """Plain data for JSON; None in the place of NaN and infinity, which it does not have."""
        return _finite({
            "mode": self.mode,
            "total": self.total,
            "devices": self.devices,
            "lines": self.lines,
            "calls": len(self.steps),
            "shared_calls": self.shared_steps,
            "first_step_s": self.first_step_s,
            "run": self.run,
            "state": self.state,
            "seconds": self.seconds,
            "waited_s": self.waited_s,
            "loadings": self.loadings,
            "bytes": sum(step.bytes_sent + step.bytes_received for step in self.steps),
            "schedule": self.schedule,
            "cuts": self.cuts,
            "steps": [vars(step) for step in self.steps],
        })  # fmt: skip

    def summary(self) -> str:
        """One line for the log."""
        works = Counter(step.work for step in self.steps)
        kinds = ", ".join(f"{count} {work}" for work, count in works.items() if work != "exact")
        kinds = f" ({kinds})" if kinds else ""
        if not self.shared_steps:
            return lines.SUMMARY_ALONE(calls=len(self.steps), kinds=kinds)
        shared = [step for step in self.steps if step.helpers and step.compute_s]
        own = statistics.median(step.compute_s[0] for step in shared)
        wait = statistics.median(step.wait_s for step in shared)
        kilobytes = statistics.median(step.bytes_sent + step.bytes_received for step in shared) / 1024
        return lines.SUMMARY_SHARED(
            shared=len(shared), calls=len(self.steps), kinds=kinds, devices=", ".join(self.devices),
            own_ms=own * 1e3, wait_ms=wait * 1e3, kib=kilobytes,
        )  # fmt: skip


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
