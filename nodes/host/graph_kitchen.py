"""A model from its graph (graph.py), in a worker: the host's own executor runs the nodes that made it.

The executor keeps what nodes gave, so that a changed setting runs what hangs on it and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import logging
import os
import time
from dataclasses import dataclass, field
from typing import ClassVar

import comfy.cli_args
import comfy.model_management
import execution
import nodes
import server
from comfy.model_patcher import ModelPatcher

from ...hybridiff_core import lines
from ...hybridiff_core.plan import shown
from .packs import Packs

log = logging.getLogger("hybridiff.worker")

KEEPER = "HybridiffKeptModel"
FIELDS = {
    "nodes": dict, "output": list, "classes": dict, "seen": dict, "pnginfo": (dict, type(None)),
    "since": (float, type(None)), "versions": dict, "size": int,
}  # fmt: skip

_prompts = itertools.count(1)


class KeptModel:
    """The output node that keeps what the graph made."""

    INPUT_IS_LIST, OUTPUT_NODE = True, True
    CATEGORY, FUNCTION, RETURN_TYPES = "hybridiff", "keep", ()
    came: ClassVar[list] = []

    @classmethod
    def INPUT_TYPES(cls) -> dict:  # noqa: N802
        return {"required": {"model": ("MODEL",)}}

    @classmethod
    def IS_CHANGED(cls, **_: object) -> float:  # noqa: N802
        return float("nan")  # it is run always

    def keep(self, model: list) -> dict:
        type(self).came = list(model)
        return {}


def check(graph: object) -> None:
    """Raise ValueError where this is no graph."""
    if not isinstance(graph, dict) or graph.keys() != FIELDS.keys():
        raise ValueError(lines.WRONG_VALUE(what="a graph", value=shown(graph)))
    for name, kind in FIELDS.items():
        if not isinstance(graph[name], kind):
            raise ValueError(lines.WRONG_VALUE(what=f"a graph's {name}", value=shown(graph[name])))
    for name, node in graph["nodes"].items():
        plain = isinstance(node, dict) and node.keys() == {"class_type", "inputs"} and isinstance(node["inputs"], dict)
        if not (isinstance(name, str) and plain and node["class_type"] in graph["classes"]):
            raise ValueError(lines.WRONG_VALUE(what="a node", value=shown(node)))
    if not all(isinstance(kind, str) and isinstance(of, str) for kind, of in graph["classes"].items()):
        raise ValueError(lines.WRONG_VALUE(what="a graph's classes", value=shown(graph["classes"])))


@dataclass
class Made:
    """A model, the graph that it is of, and the executor that keeps what its nodes gave."""

    graph: dict
    executor: execution.PromptExecutor
    patcher: ModelPatcher | None = None

    @property
    def on_device(self) -> int:
        """As of a model by parts (kitchen.py)."""
        known = self.patcher is not None and self.patcher.load_device.type != "cpu"
        return self.patcher.loaded_size() if known else 0


@dataclass
class Account:
    """What the last graph took: packs loaded for it, each with its seconds; nodes that ran; seconds in all."""

    packs: dict[str, float] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    graph_s: float = 0.0


class GraphKitchen:
    """Makes models by graphs, and keeps the last ones with what their nodes gave.

    `machine` is this one's name, where graphs come from another one.
    """

    def __init__(self, machine: str | None = None) -> None:
        self.machine = machine
        self.loop = asyncio.new_event_loop()
        self.server = self._server()
        self.packs = Packs(self.loop, machine)
        nodes.NODE_CLASS_MAPPINGS[KEEPER] = KeptModel
        self.made: list[Made] = []  # in the order of their use
        self.account = Account()

    check = staticmethod(check)

    def known(self, graph: dict) -> Made | None:
        """The one that is kept of just this graph."""
        return next((made for made in self.made if made.patcher is not None and made.graph == graph), None)

    def kin(self, graph: dict) -> Made | None:
        """The one that is kept of a graph with the same models at its beginning."""
        return next((made for made in reversed(self.made) if _loaders(made.graph) == _loaders(graph)), None)

    def make(self, graph: dict) -> ModelPatcher:
        """The patcher that the graph makes. Raises ValueError, in words for users, where it makes none."""
        started = time.perf_counter()
        self.account = Account()
        if made := self.known(graph):
            self.made.remove(made)
            self.made.append(made)
            return made.patcher
        self.account.packs = self.packs.load(graph["classes"], graph["since"], graph["versions"])
        made = self.kin(graph) or Made(graph, self._executor())
        if made in self.made:
            self.made.remove(made)
        made.graph, made.patcher = graph, None
        made.patcher = self._run(made.executor, graph)
        self.made.append(made)
        self._let_go_of_others()
        self.account.graph_s = round(time.perf_counter() - started, 3)
        log.info("made a model by its graph: %s", vars(self.account))
        return made.patcher

    # -- running

    def _run(self, executor: execution.PromptExecutor, graph: dict) -> ModelPatcher:
        outcome = self._execute(executor, graph)
        if outcome.get("exception_type", "").endswith("KeyError") and not self.packs.all_extras:
            self.packs.load_extras()  # a node came to be made of others
            outcome = self._execute(executor, graph)
        if outcome:
            words = " ".join(str(outcome.get("exception_message", "")).split())[:200]
            kind = str(outcome.get("exception_type", "")).rsplit(".", 1)[-1]
            node = lines.NODE_TITLE(kind=outcome.get("node_type"), id=outcome.get("node_id"))
            reason = f"{kind}: {words}"
            if self.machine:
                raise ValueError(lines.NODE_FAILED_ELSEWHERE(node=node, machine=self.machine, reason=reason))
            raise ValueError(lines.NODE_FAILED(node=node, reason=reason))
        came = [model for model in KeptModel.came if isinstance(model, ModelPatcher)]
        if len(KeptModel.came) > 1:
            raise ValueError(lines.SEVERAL_MODELS(count=len(KeptModel.came)))
        if not came or not hasattr(came[0].model, "diffusion_model"):
            raise ValueError(lines.GRAPH_WITHOUT_MODEL())
        return came[0]

    def _execute(self, executor: execution.PromptExecutor, graph: dict) -> dict:
        """Run the graph; gives what the host says of a failure, and nothing where there is none."""
        KeptModel.came = []
        keeper = next(
            name for name in itertools.chain(["kept"], map(str, itertools.count())) if name not in graph["nodes"]
        )
        prompt = {name: {**node, "inputs": dict(node["inputs"])} for name, node in graph["nodes"].items()}
        prompt[keeper] = {"class_type": KEEPER, "inputs": {"model": list(graph["output"])}}
        extra = {} if graph["pnginfo"] is None else {"extra_pnginfo": graph["pnginfo"]}
        try:
            executor.execute(prompt, f"hybridiff-{next(_prompts)}", extra, [keeper])
        except SystemExit as error:  # of a node; all else the host takes for that node's failure itself
            told = {"exception_type": type(error).__name__, "exception_message": str(error)}
            return {"node_type": "?", "node_id": "?", **told}
        finally:
            self._drain()
        told = dict(executor.status_messages)
        cached = told.get("execution_cached", {}).get("nodes", ())
        self.account.ran = [
            f"{name} {node['class_type']}" for name, node in graph["nodes"].items() if name not in cached
        ]
        if "execution_success" in told:
            return {}
        failed = told.get("execution_error") or told.get("execution_interrupted") or {}
        return {"node_type": "?", "node_id": "?", **failed}

    def _let_go_of_others(self) -> None:
        """Take off the device what the nodes loaded beside the models: encoders of text and pictures."""
        kept = [made.patcher.model for made in self.made]
        loaded = comfy.model_management.current_loaded_models
        keep = [one for one in loaded if one.model is not None and any(one.model.model is model for model in kept)]
        if len(keep) < len(loaded):
            comfy.model_management.free_memory(1e30, comfy.model_management.get_torch_device(), keep_loaded=keep)
            comfy.model_management.soft_empty_cache()

    def clear(self) -> None:
        """Let go of every model, and of what nodes gave."""
        self.made, KeptModel.came = [], []

    # -- the host's parts

    def _server(self) -> server.PromptServer:
        """A server object, for what packs register at it; it is never started."""
        args = comfy.cli_args.args
        before = getattr(args, "front_end_root", None)
        args.front_end_root = os.path.dirname(os.path.abspath(__file__))  # no page is served: none is looked for
        try:
            asyncio.set_event_loop(self.loop)
            return getattr(server.PromptServer, "instance", None) or server.PromptServer(self.loop)
        finally:
            args.front_end_root = before

    def _executor(self) -> execution.PromptExecutor:
        """One that keeps what the last graph's nodes gave."""
        if not hasattr(execution, "CacheType"):  # older releases
            return execution.PromptExecutor(self.server)
        given = {"cache_type": execution.CacheType.CLASSIC}
        if "cache_args" in inspect.signature(execution.PromptExecutor).parameters:
            given["cache_args"] = {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}
        return execution.PromptExecutor(self.server, **given)

    def _drain(self) -> None:
        """Throw away what was said to pages."""
        with contextlib.suppress(Exception):
            self.loop.run_until_complete(asyncio.sleep(0))
            while not self.server.messages.empty():
                self.server.messages.get_nowait()
        asyncio.set_event_loop(self.loop)


def _loaders(graph: dict) -> list[str]:
    """The nodes that make a model of no other node's output."""
    found = []
    for node in graph["nodes"].values():
        gives = getattr(nodes.NODE_CLASS_MAPPINGS.get(node["class_type"]), "RETURN_TYPES", ())
        if "MODEL" in gives and not any(isinstance(value, list) for value in node["inputs"].values()):
            found.append(repr(node))
    return sorted(found)
