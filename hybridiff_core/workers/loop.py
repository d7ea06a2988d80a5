"""The worker's loop: frames in, predictions out. What a prediction is, a Backend knows."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from .. import lines
from ..call import Rows
from ..network.lead import Lead, measure
from ..network.split import Cut, Inner, Pass, Reached, State
from ..network.tokens import Look, NotDivided, Shard
from ..share import Unit
from ..waiting import wait_for
from .channel import ChannelBroken, Expected
from .endpoint import Endpoint, PeerLink
from .messages import DOUBTED, FAILED, GROUP_LOST, NOT_NUMBERS, RIGHT, head
from .pieces import receive_whole
from .wire import DTYPES, Kinds, decode, describe_tensor

log = logging.getLogger("hybridiff.worker")

MESSAGE_LIMIT_S = 60.0  # for a message whose frame is here
OUT_OF_MEMORY = (torch.cuda.OutOfMemoryError, MemoryError)
# other errors of torch's that say it in words: on the processor, and on a GPU outside of its allocator
OUT_OF_MEMORY_WORDS = re.compile(r"(out of|can't allocate|not enough)\smemory", re.IGNORECASE)


class FailedBefore(RuntimeError):
    """A request failed, so a step cannot be computed; the text is that failure's, for users."""


class Shelf(Protocol):
    """Where models' files that come from another machine are put."""

    def take(self, frame: dict, piece: Callable[[], torch.Tensor]) -> dict:
        """Do what a frame of `bringing.py` asks for; `piece` gives the bytes that come behind it."""


class Backend(Protocol):
    """What a worker computes with: ComfyUI's model, or the demo's."""

    device: torch.device
    kinds: Kinds
    remarks: Sequence[str]  # what users must know of this process, in their words
    shelf: Shelf | None  # takes files that come, where ComfyUI's process is on another machine
    doubt: str | None  # why predictions may not be those of a single device from now on, in words for users

    def load(self, recipe: object) -> dict:
        """Hold the model that `recipe` describes; the answer goes back as information.

        But "holds" in it: tensors of earlier recipes that models it keeps are made of. Others are forgotten. And
        "details": what is said of the loading; "packs" in that, where code came into the process by it.
        """

    def begin(self, run: object, fresh: bool) -> None:
        """Take a run's conditioning and options; `fresh` is False where a run's conditioning changed."""

    def predict(
        self,
        x: torch.Tensor,
        sigma: torch.Tensor,
        units: Sequence[tuple[int, int]],
        through: Pass | Look | Shard | None = None,
        rows: Rows | None = None,
    ) -> list[torch.Tensor]:
        """The prediction for each branch in `units` (branch, cond), in the order of branches.

        `through` is asked at each of the network's blocks; a network without such blocks ignores it. A Look or a
        Shard (network/tokens.py) comes with a single unit. `rows` are the batch items of the run's latent that x and
        sigma are, None for all: conds that are another for each item are sliced by them.
        """

    def end(self) -> None:
        """The run is over."""

    def make_room(self) -> None:
        """Give back what of the device's memory the run can do without; it goes on, maybe slower."""

    def unload(self) -> None:
        """Give the memory of the model back, the device's and the system's. `load` comes before it is asked again."""


class Loop:
    """Does what frames ask for, one after the other. How they come and answers go, `endpoint` knows."""

    def __init__(self, endpoint: Endpoint, backend: Backend):
        self.endpoint, self.backend = endpoint, backend
        self.tensors: dict[int, torch.Tensor] = {}
        self.of_models: set[int] = set()  # those that came with a model
        self.needed: set[int] = set()  # those in the value that was unpacked last
        self.failure: str | None = None
        self.lead: Lead | None = None
        self.measured: dict = {}

    def run(self) -> None:
        while True:
            self.take(*self.endpoint.receive())

    def take(self, frame: dict, parts: list | None) -> None:
        """Do what one frame asks for; `parts` are the shapes and dtypes of the message that it announces."""
        match frame["op"]:
            case "step":
                self.step(frame, self.endpoint.expect(frame, parts))
            case "inner":
                self.inner(frame, parts)
            case _:
                self.answer(frame)

    # -- requests

    def answer(self, frame: dict) -> None:
        try:
            info = self.request(frame) or {}
        except Exception as error:
            log.exception("%s failed", frame["op"])
            self.failure = describe(error)
            info = {"error": self.failure}
        self.endpoint.send({"op": "reply", "id": frame["id"], **info})
        if frame["op"] == "history" and "error" not in info:
            values = self.lead.recall(frame["unit"], frame["count"])
            self.endpoint.parent.send([tensor for _, state in values for tensor in state])

    def request(self, frame: dict) -> dict | None:
        match frame["op"]:
            case "connect":
                return self.endpoint.connect("", 1, frame, self.backend.device)
            case "link":
                return self.endpoint.connect(frame["peer"], frame["rank"], frame, self.backend.device)
            case "tokens":
                try:
                    return self.endpoint.connect_tokens(frame, self.backend.device)
                except ChannelBroken as error:  # whoever was to be at the other end: what was given before still holds
                    return {"refused": str(error)}
            case "idle":
                pass
            case "memory":
                return self.endpoint.enlarge(frame)
            case "file" if self.backend.shelf:
                return self.backend.shelf.take(frame, lambda: self.received(frame["tensors"][0]))
            case "load":
                self.failure = None
                info = dict(self.backend.load(self.unpack(frame)))
                holds = info.pop("holds", ())
                return {**info, "forgotten": self.let_go(frame, holds)}
            case "begin" | "renew" as op:
                self.failure, self.measured = None, {}
                self.backend.begin(self.unpack(frame), fresh=op == "begin")
            case "measured":
                return self.measured
            case "cut":
                cut = Cut(tuple(frame["bounds"]))
                link = PeerLink(self.endpoint, cut, frame["route"]) if frame["route"] else None
                self.lead = Lead(cut, link, frame["delay"], frame["extrapolate"])
            case "history":
                values = self.lead.recall(frame["unit"], frame["count"])
                return {"values": [[time, [describe_tensor(tensor) for tensor in state]] for time, state in values]}
            case "end":
                self.lead = None
                self.endpoint.tokens.end_all()
                self.backend.end()
            case "unload":
                self.tensors.clear()
                self.of_models.clear()
                self.backend.unload()
            case op:
                raise ValueError(lines.UNKNOWN_REQUEST(op=op))
        return None

    def unpack(self, frame: dict) -> object:
        for number in frame["forget"]:
            self.tensors.pop(number, None)
        for item in frame["tensors"]:
            tensor = self.received(item)
            self.tensors[item["number"]] = tensor.to(self.backend.device) if item["on_device"] else tensor
        self.needed.clear()
        return decode(frame["value"], self.needed_tensor, self.backend.kinds)

    def received(self, item: dict) -> torch.Tensor:
        return receive_whole(self.endpoint.parent, item["shape"], DTYPES[item["dtype"]])

    def needed_tensor(self, number: int) -> torch.Tensor:
        """A tensor that the value which is being unpacked has in it."""
        self.needed.add(number)
        return self.tensors[number]

    def let_go(self, frame: dict, holds: Sequence[torch.Tensor]) -> list[int]:
        """Forget models' tensors, but those that `frame` needs and those in `holds`; gives the numbers."""
        self.of_models |= {item["number"] for item in frame["tensors"]}
        held = set(map(id, holds))
        kept = self.needed | {number for number, tensor in self.tensors.items() if id(tensor) in held}
        gone = sorted(self.of_models - kept)
        for number in gone:
            self.tensors.pop(number, None)
        self.of_models &= kept
        return gone

    # -- steps

    def step(self, frame: dict, expected: Expected) -> None:
        number, units = frame["number"], [Unit(branch, index) for branch, index in frame["units"]]
        # the message's memory is kept until the step is done, so nobody need wait for its copies
        x, sigma = (tensor.to(self.backend.device, non_blocking=True) for tensor in expected.wait(MESSAGE_LIMIT_S))
        started = time.perf_counter()
        status, error, waited_s = RIGHT, None, 0.0
        try:
            if self.failure:
                raise FailedBefore(self.failure)
            if frame.get("kind") == "tokens":
                predictions, waited_s = self.part(frame, x, sigma, units)
            else:
                predictions, error = self.predict_again(frame, x, sigma, units)
        except Exception as reason:
            log.exception("step %d failed", number)
            self.endpoint.send({"op": "failed", "number": number, "text": describe(reason)})
            status = GROUP_LOST if isinstance(reason, (ChannelBroken, NotDivided)) else FAILED
            predictions = [torch.zeros_like(x)] * answers_to(frame, units)
        result = [prediction.to(x.dtype) for prediction in predictions]
        if not are_finite(result) and status == RIGHT:  # asking waits for the device
            status = NOT_NUMBERS
        if status == RIGHT and self.backend.doubt:
            self.endpoint.send({"op": "failed", "number": number, "text": self.backend.doubt})
            status = DOUBTED
        self.endpoint.parent.send([head(number, status, time.perf_counter() - started - waited_s, error), *result])
        expected.release()

    def predict_again(self, frame: dict, x, sigma, units: list[Unit]) -> tuple[list[torch.Tensor], float | None]:
        """What `predict` gives; where memory runs out, once more after room was made."""
        try:
            return self.predict(frame, x, sigma, units)
        except Exception as error:
            if not is_out_of_memory(error) or "kind" in frame:  # a pipeline's step may have been handed on already
                raise
            log.warning("step %d: %s; it is tried once more", frame["number"], describe(error))
        self.backend.make_room()  # not before the error is gone: it holds the forward's tensors
        return self.predict(frame, x, sigma, units)

    def predict(self, frame: dict, x, sigma, units: list[Unit]) -> tuple[list[torch.Tensor], float | None]:
        """The predictions that the frame asks for, and the error of expected inner results."""
        rows = tuple(frame["rows"]) if "rows" in frame else None

        def forward(unit: Unit, through: Pass) -> torch.Tensor:
            return self.backend.predict(x, sigma, [(unit.branch, unit.index)], through, rows)[0]

        match frame.get("kind"):
            case None:
                return self.backend.predict(x, sigma, [(unit.branch, unit.index) for unit in units], rows=rows), None
            case "measure":
                predictions = []
                for unit in units:
                    prediction, self.measured = measure(forward, unit, self.settle, self.measured)
                    predictions.append(prediction)
                return predictions, None
            case "take":
                done = [self.lead.whole(unit, frame["time"], forward) for unit in units]
            case "outer":
                self.lead.link.at(x, sigma)
                done = [self.lead.outer(unit, frame["time"], forward, frame["hand_on"]) for unit in units]
            case kind:
                raise ValueError(lines.UNKNOWN_STEP(kind=kind))
        return done, self.lead.take_error()

    def part(self, frame: dict, x, sigma, units: list[Unit]) -> tuple[list[torch.Tensor], float]:
        """This device's part of each unit's forward, divided by tokens: the lead's predictions, the seconds waited.

        Where it fails the channels are closed, so that the other devices hear of it at once.
        """
        predictions, waited_s = [], 0.0
        rows = tuple(frame["rows"]) if "rows" in frame else None
        try:
            for unit in units:
                shard = self.endpoint.tokens.shard(frame, self.endpoint.own_name)
                with contextlib.suppress(Reached):
                    (prediction,) = self.backend.predict(x, sigma, [(unit.branch, unit.index)], shard, rows)
                    predictions.append(prediction)
                if not shard.gathered or len(predictions) * bool(shard.rank):
                    raise NotDivided(lines.NOT_DIVIDED())
                waited_s += shard.waited_s
            self.settle()
        except BaseException:
            self.endpoint.tokens.end(frame["connection"])
            raise
        return predictions, waited_s

    def inner(self, frame: dict, parts: list) -> None:
        """A segment of the inner part, and its result on to the next device or back to the lead."""
        number = frame["number"]
        following = frame["route"][0][0] if frame["route"] else frame["back"]
        try:
            expected = self.endpoint.expect(frame, parts)
            came = expected.wait(MESSAGE_LIMIT_S)
            try:
                x, *h = (tensor.to(self.backend.device, copy=True) for tensor in came)
            finally:
                expected.release()
            started = time.perf_counter()
            if self.failure:
                raise FailedBefore(self.failure)
            z = self.segment(frame, x, tuple(h))
            self.settle()
            if frame["route"]:
                (peer, *segment), *others = frame["route"]
                state = [describe_tensor(tensor) for tensor in (x, *z)]
                via = {"via": self.endpoint.own_name, "state": state, "segment": segment, "route": others}
                self.endpoint.send_to(peer, {**frame, **via})
                self.endpoint.to(peer).send((x, *z), MESSAGE_LIMIT_S)
            else:
                if [describe_tensor(tensor) for tensor in z] != frame["answer"]:
                    raise RuntimeError(lines.INNER_SHAPE())
                answer = [head(number, RIGHT, time.perf_counter() - started), *z]
                self.endpoint.to(following).send(answer, MESSAGE_LIMIT_S)
        except Exception as error:
            log.exception("an inner part failed")
            whose = following if isinstance(error, ChannelBroken) else self.endpoint.own_name
            self.endpoint.send({"op": "failed", "number": number, "text": describe(error), "inner": whose})

    def segment(self, frame: dict, x: torch.Tensor, h: State) -> State:
        values, sigma_dtype = frame["sigma"]
        sigma = torch.tensor(values, dtype=DTYPES[sigma_dtype], device=self.backend.device)
        try:
            self.backend.predict(x, sigma, [tuple(frame["unit"])], Inner(frame["first"], tuple(frame["segment"]), h))
        except Reached as reached:
            return reached.state
        raise RuntimeError(lines.NO_INNER_PART())

    def settle(self) -> None:
        wait_for(self.backend.device)


def answers_to(frame: dict, units: Sequence[Unit]) -> int:
    """How many predictions the step has that `frame` starts."""
    if "kind" not in frame:
        return len({unit.branch for unit in units})
    return 0 if frame.get("rank") else len(units)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python could not allocate what it needed."""
    in_words = isinstance(error, RuntimeError) and OUT_OF_MEMORY_WORDS.search(str(error))
    return isinstance(error, OUT_OF_MEMORY) or bool(in_words)


def are_finite(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether all numbers are; a device is asked once."""
    if not tensors:
        return True
    sums = torch.stack([tensor.sum(dtype=torch.float32) for tensor in tensors])
    # a sum of numbers that are finite may not be
    return bool(sums.isfinite().all()) or all(bool(tensor.isfinite().all()) for tensor in tensors)


def describe(error: BaseException) -> str:
    """One line for users: the kind of error and its first line."""
    if isinstance(error, FailedBefore):
        return str(error)
    if is_out_of_memory(error):
        return lines.OUT_OF_MEMORY()
    return lines.WORKER_ERROR(kind=type(error).__name__, words="".join(str(error).splitlines()[:1]))
