"""Step events to the browser: what a run's live view shows."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from comfy_execution.utils import get_executing_context
from server import PromptServer

from ...hybridiff_core.account import Steps, head
from ...hybridiff_core.report import RunReport

log = logging.getLogger("hybridiff")

EVENT = "hybridiff.step"
LEAST_S = 0.05  # very fast steps are sent together


def executing_node() -> str | None:
    """The execution id of the node that runs now, "1:2" within a subgraph; None outside an execution."""
    context = get_executing_context()
    return None if context is None else context.node_id


class StepEvents:
    """A run's events, to the page that queued it. One that fails ends the events, never the run."""

    def __init__(self, node: str | None, report: RunReport):
        self.node, self.report = node, report
        self._steps, self._taken, self._unsent = Steps(), 0, {}
        self._sent_at = float("-inf")
        server = getattr(PromptServer, "instance", None)
        self._page = getattr(server, "client_id", None)
        self._on = node is not None and self._page is not None and self._page in server.sockets
        self._workflow = _workflow_id(server) if self._on else None
        self._about: Callable[[], dict] = dict

    def begin(self, about: Callable[[], dict]) -> None:
        """Tell that a run begins. `about` gives what account.head is told of workers to come, each time it is asked."""
        self._about = about
        if self._on:
            self._send(done=False)

    def step(self) -> None:
        """Tell of a call that is done."""
        if self._on and time.monotonic() - self._sent_at >= LEAST_S:
            self._send(done=False)

    def finish(self, finished: bool) -> None:
        """The run is over: tell of all of it, once more."""
        self.report.end(finished)
        if self._on:
            self._send(done=True)
        self._about = dict  # what was given holds the run, which holds this

    def _send(self, done: bool) -> None:
        self._sent_at = time.monotonic()
        report = self.report
        try:
            for record in report.steps[self._taken :]:
                step = self._steps.add(vars(record), report.mode, len(report.devices))
                self._unsent[step["step"]] = step
            self._taken = len(report.steps)
            fresh = self._steps.found if done else self._unsent.values()  # a page that was opened late has not all
            steps = [{**step, "times": [dict(t) for t in step["times"]]} for step in fresh]
            run = {"node": self.node, "workflow": self._workflow, "steps": steps, "done": done}
            whole = {**vars(report), "steps": [vars(record) for record in report.steps]}
            told = head(whole, **({} if done else self._about())) | run
            self._unsent = {}
            PromptServer.instance.send_sync(EVENT, told, self._page)
        except Exception:
            log.debug("no step events any more", exc_info=True)
            self._on = False


def _workflow_id(server: PromptServer) -> str | None:
    """The id of the workflow that runs: the page may show another one by now, with the same node ids."""
    for item in list(server.prompt_queue.currently_running.values()):
        return item[3].get("extra_pnginfo", {}).get("workflow", {}).get("id")
    return None
