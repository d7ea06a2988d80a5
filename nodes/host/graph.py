"""A model by its graph: the prompt's own nodes upstream of a sampler's `model` input, as plain data.

A worker runs them (graph_kitchen.py). It is told which class is of which pack, and looks that up in its own folders.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import nodes
from comfy.model_patcher import ModelPatcher

from ...hybridiff_core import lines
from ...hybridiff_core.plan import shown
from ...hybridiff_core.workers.wire import CannotCross
from . import content
from .loaders import GRAPH
from .packs import CORE, CUSTOM, EXTRAS

log = logging.getLogger("hybridiff")

# our own nodes with a model in and out: what they put on it is this process's
PASSED = {"HybridiffModel": "model"}
OWN = "Hybridiff"  # how our other nodes' names begin
ACCOUNTS = {"AUTH_TOKEN_COMFY_ORG", "API_KEY_COMFY_ORG"}  # hidden inputs of nodes that call paid services

STARTED = time.time()  # this process's packs are loaded now: a worker has their code only where it is of this time

Link = tuple[str, int]


@dataclass
class Origin:
    """Where a model comes from: the nodes that made it, and what was in it when they had.

    `refused` is why no worker may run these nodes, in words for users.
    """

    nodes: dict[str, dict]
    output: Link
    left: content.Leaves
    refused: str | None
    packs: dict[str, str] = field(default_factory=dict)  # of each class
    seen: dict[str, str] = field(default_factory=dict)  # what told the host that a node need not run again
    pnginfo: object = None

    @classmethod
    def of(cls, model: ModelPatcher, dynprompt: object, node: object, pnginfo: object = None) -> Origin | None:
        """The origin of what came in at the input `model` of `node` in `dynprompt`; None outside of a prompt."""
        if dynprompt is None or node is None or not hasattr(getattr(model, "model", None), "diffusion_model"):
            return None
        try:
            given = dynprompt.get_node(str(node))
            output = _passed(dynprompt, given["inputs"]["model"])
            found = dict(upstream(dynprompt, output))
        except Exception as error:  # noqa: BLE001 - other packs' executors have other forms of a prompt
            log.debug("the graph of node %s is not known: %r", node, error)
            return None
        origin = cls(
            nodes={
                name: {"class_type": one["class_type"], "inputs": _inputs(dynprompt, one)}
                for name, one in found.items()
            },
            output=output,
            left=content.of_model(model),
            refused=None,
            packs={one["class_type"]: pack_of(one["class_type"]) for one in found.values()},
            seen={name: repr(one["is_changed"]) for name, one in found.items() if one.get("is_changed", False)},
        )
        origin.refused = next(filter(None, (why_not(name, one) for name, one in found.items())), None)
        if any("EXTRA_PNGINFO" in hidden_of(kind) for kind in origin.packs):
            origin.pnginfo = pnginfo
        return origin

    def recipe(self, patcher: ModelPatcher, controls: Sequence[dict], other_packs: bool) -> dict:
        """The recipe by graph for `patcher`'s model. Raises CannotCross."""
        if self.refused:
            raise CannotCross(self.refused)
        others = sorted({of.removeprefix(CUSTOM) for of in self.packs.values() if of.startswith(CUSTOM)})
        if others and not other_packs:
            raise CannotCross(lines.OTHER_PACKS_OFF(packs=", ".join(others)))
        if where := content.changed(self.left, content.of_model(patcher)):
            raise CannotCross(lines.CHANGED_AFTER_ITS_NODE(what=where))
        try:
            plain = json.loads(json.dumps(self.nodes, allow_nan=False))
            pnginfo = json.loads(json.dumps(self.pnginfo, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise CannotCross(lines.GRAPH_NOT_PLAIN(node=self._title(self._not_plain()))) from error
        return {
            "loader": GRAPH, "path": "", "stamp": None, "options": {}, "weights": {}, "form": {}, "objects": {},
            "force_cast_weights": False, "patches": {}, "controls": list(controls),
            "graph": {
                "nodes": plain, "output": list(self.output), "classes": self.packs, "seen": self.seen,
                "pnginfo": pnginfo, "since": STARTED, "versions": {}, "size": patcher.model_size(),
            },
        }  # fmt: skip

    def strange(self, model_options: dict) -> str | None:
        """What code in a call's options is not of the model's own nodes, in words for users; None for none."""
        where = content.changed(content.in_options(self.left), content.of_options(model_options))
        return where and lines.ADDED_WHILE_SAMPLING(what=where)

    def _not_plain(self) -> str:
        for name, node in self.nodes.items():
            try:
                json.dumps(node, allow_nan=False)
            except (TypeError, ValueError, RecursionError):
                return name
        return self.output[0]

    def _title(self, name: str) -> str:
        return title(name, self.nodes[name])


def upstream(dynprompt: object, output: Link) -> Iterator[tuple[str, dict]]:
    """Every node that the one at `output` is made of, itself first, by its id."""
    seen, waiting = set(), [output[0]]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            node = dynprompt.get_node(name)
            yield name, node
            waiting += [link[0] for link in links_in(_inputs(dynprompt, node))]


def links_in(inputs: dict) -> Iterator[Link]:
    """The links among a node's inputs."""
    return (tuple(value) for value in inputs.values() if is_link(value))


def is_link(value: object) -> bool:
    """As the host sees it: comfy_execution/graph_utils.py, is_link."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and type(value[1]) in (int, float)


def title(name: str, node: dict) -> str:
    """How a line calls a node."""
    return f"{node['class_type']} (node {name})"


def pack_of(class_type: str) -> str:
    """Which module of the host or pack a class is from, as the host writes it: "custom_nodes.ComfyUI-GGUF"."""
    return getattr(nodes.NODE_CLASS_MAPPINGS.get(class_type), "RELATIVE_PYTHON_MODULE", None) or CORE


def hidden_of(class_type: str) -> set[str]:
    """The kinds of a class's hidden inputs."""
    try:
        hidden = nodes.NODE_CLASS_MAPPINGS[class_type].INPUT_TYPES().get("hidden") or {}
        kinds = [value[0] if isinstance(value, (tuple, list)) else value for value in hidden.values()]
        return {str(getattr(kind, "value", kind)) for kind in kinds}
    except Exception:  # noqa: BLE001 - a class of any pack's
        return set()


def why_not(name: str, node: dict) -> str | None:
    """Why no worker may run this node, in words for users; None where it may."""
    kind, called = node["class_type"], title(name, node)
    cls = nodes.NODE_CLASS_MAPPINGS.get(kind)
    if cls is None:
        return lines.NODE_NOT_KNOWN(node=called)
    if kind.startswith(OWN):
        return lines.SAMPLER_BEFORE_MODEL(node=called)
    if getattr(cls, "OUTPUT_NODE", False):
        return lines.OUTPUT_NODE_BEFORE_MODEL(node=called)
    module = pack_of(kind)
    if getattr(cls, "API_NODE", False) or ACCOUNTS & hidden_of(kind):
        return lines.PAID_NODE_BEFORE_MODEL(node=called)
    if module != CORE and not module.startswith((CUSTOM, EXTRAS)):
        return lines.NODE_NOT_KNOWN(node=called)
    seen = node.get("is_changed", False)
    if getattr(cls, "NOT_IDEMPOTENT", False) or not _equals_itself(seen):
        return lines.NEVER_THE_SAME(node=called)
    return None


def _equals_itself(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_equals_itself, value))
    try:
        return bool(value == value)
    except Exception:  # noqa: BLE001 - an object of any pack's
        return False


def _passed(dynprompt: object, link: object) -> Link:
    """Where a link leads, past our own nodes."""
    if not is_link(link):
        raise ValueError(f"no link: {shown(link)}")
    node = dynprompt.get_node(link[0])
    if node["class_type"] in PASSED:
        return _passed(dynprompt, node["inputs"][PASSED[node["class_type"]]])
    return str(link[0]), int(link[1])


def _inputs(dynprompt: object, node: dict) -> dict:
    """A node's inputs, with links that go past our own nodes."""
    inputs = node["inputs"].items()
    return {name: list(_passed(dynprompt, value)) if is_link(value) else value for name, value in inputs}
