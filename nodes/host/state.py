"""Whether the code of other nodes in a network keeps something from call to call, or draws random numbers.

It then computes something else on two devices than on one, on each of them alike, so that comparing does not show it.
What the code can reach is walked through after each of this process's forwards: closures, attributes, containers, the
globals that it names. What changes from one call to the next is state.
"""

from __future__ import annotations

import collections
import dis
import functools
import itertools
import logging
import random
import re
import types
from collections.abc import Callable, Iterator

import numpy
import torch
from comfy.model_patcher import ModelPatcher

from ...hybridiff_core import lines
from . import content
from .foreign import MODULE_INTERNALS

log = logging.getLogger("hybridiff")

MOST = 20_000  # values looked at; what lies beyond is not known
DEPTH = 12
SAMPLED = 8  # numbers of each tensor
PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
# code and objects of these are the host's and the libraries'
SETTLED = re.compile(
    r"(torch|comfy|comfy_api|comfy_execution|numpy|builtins|typing|collections|functools|logging|threading|asyncio|abc|enum"
    r"|re|os|pathlib|weakref|einops|PIL|aiohttp|transformers|diffusers|tqdm|server|execution|nodes|folder_paths|app|main"
    r"|latent_preview|node_helpers)(\.|$)"
)
MODULES = 200  # of classes of other packs, whose attributes are looked at
NETWORK = ("network",)
CALLS = 2  # the first may make things ready


class Watching:
    """Watches a run's forwards in this process, with the `leaves` of code (content.py) in `patcher`'s network.

    `fault` is why they are not to be shared, in words for users; None for nothing so far.
    """

    def __init__(self, patcher: ModelPatcher, leaves: content.Leaves):
        network = patcher.model.diffusion_model
        self.device: torch.device = patcher.load_device
        self.roots = {where: value for where, value in leaves.items() if not isinstance(value, content.PLAIN)}
        self.roots[NETWORK] = Hung(network)
        self.calls = 0
        self.fault: str | None = None
        self._before: dict[tuple, Print] = {}

    @property
    def names(self) -> str:
        """How a line calls all of the code."""
        code = dict.fromkeys(_name(value) for value in self.roots.values() if callable(value))
        return ", ".join(code) or _name(self.roots[NETWORK])

    @property
    def proven(self) -> bool:
        """Whether calls enough were seen."""
        return self.calls >= CALLS and self.fault is None

    def around(self, executor: Callable, whole: bool = True) -> Callable:
        """`executor`, watched. `whole` says that it computes one of the sampler's calls, and no extra one of a node."""

        def watched(*args, **kwargs):
            drawn = _generators(self.device)
            out = executor(*args, **kwargs)
            if not self.fault and not _alike(drawn, _generators(self.device)):
                self.fault = lines.DRAWS_RANDOM_NUMBERS(name=self.names)
            self._look(whole)
            return out

        return watched

    def _look(self, whole: bool) -> None:
        now = {where: Print(value) for where, value in self.roots.items()}
        for where, found in now.items():
            if self._before and not self.fault and found.marks != self._before[where].marks:
                self.fault = lines.KEEPS_FROM_CALL_TO_CALL(name=_name(self.roots[where]))
        self._before = now  # and what it holds: an id is another's once its object is gone
        self.calls += whole


class Hung:
    """What other packs hung on a network: attributes that are no modules, and modules of classes of their own.

    What the host's own classes write into themselves (Anima's notes of its last call) is not looked at: a worker's
    network has the same code.
    """

    def __init__(self, network: torch.nn.Module):
        self.network = network
        odd = (module for module in network.modules() if not _is_settled(type(module)))
        self.modules = [network, *itertools.islice((module for module in odd if module is not network), MODULES)]

    def values(self) -> Iterator[object]:
        for module in self.modules:
            own = MODULE_INTERNALS | _written(type(module))
            yield {name: value for name, value in vars(module).items() if name not in own}
            yield dict(module._buffers)


HOLDERS = (dict, list, tuple, set, frozenset, collections.deque, types.MethodType, functools.partial, Hung)


class Print:
    """A value's fingerprint: `marks` differ where anything that can be reached from it does. It holds what it saw."""

    def __init__(self, value: object):
        self.marks: list[object] = []
        self._held: list[object] = []
        self._seen: set[int] = set()
        self._walk(value, 0)

    def _walk(self, value: object, depth: int) -> None:
        if isinstance(value, PLAIN):
            self.marks.append(value if value == value else "nan")
            return
        # what only holds others is known by them
        self.marks.append(type(value).__name__ if isinstance(value, HOLDERS) else id(value))
        if id(value) in self._seen or depth > DEPTH or len(self._seen) > MOST:
            return
        self._seen.add(id(value))
        self._held.append(value)
        if isinstance(value, torch.Tensor):
            self.marks.append(_of_tensor(value))
        elif isinstance(value, torch.Generator):
            self.marks.append(value.get_state().numpy().tobytes())
        elif isinstance(value, random.Random):
            self.marks.append(hash(value.getstate()))
        elif isinstance(value, numpy.ndarray):
            self.marks.append((value.shape, value.ravel()[: SAMPLED * 8].tobytes()))
        else:
            for part in _parts(value):
                self._walk(part, depth + 1)


def _parts(value: object) -> Iterator[object]:
    """What can be reached from a value in one step."""
    if isinstance(value, Hung):
        yield from value.values()
    elif isinstance(value, dict):
        yield from value.keys()
        yield from value.values()
    elif isinstance(value, (list, tuple, set, frozenset, collections.deque)):
        yield len(value)
        yield from value
    elif isinstance(value, types.MethodType):
        yield value.__self__
        yield value.__func__
    elif isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, types.FunctionType):
        yield from _of_function(value)
    elif isinstance(value, types.ModuleType):
        return
    elif isinstance(value, type):
        if not _is_settled(value):
            data = vars(value).items()
            yield {name: item for name, item in data if not name.startswith("__") and not callable(item)}
    elif not _is_settled(type(value)):
        yield type(value)
        yield getattr(value, "__dict__", {}) if not isinstance(value, torch.nn.Module) else Hung(value)
        slots = (name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ()) if isinstance(name, str))
        yield from (getattr(value, name) for name in slots if name != "__dict__" and hasattr(value, name))


def _of_function(function: types.FunctionType) -> Iterator[object]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # nothing in it yet
            yield "empty"
    yield from (function.__defaults__, function.__kwdefaults__, vars(function))
    if _of_settled(function.__module__):
        return
    if wrapped := getattr(function, "__wrapped__", None):
        yield wrapped
    pack = function.__module__.split(".")[0]
    for name in sorted(_names(function.__code__)):
        found = function.__globals__.get(name)
        if isinstance(found, (*PLAIN, torch.Tensor, *HOLDERS[:-3])) or _module_of(found).split(".")[0] == pack:
            yield found


def _module_of(value: object) -> str:
    named = value if isinstance(value, (type, types.FunctionType)) else type(value)
    return named.__module__ or ""


@functools.lru_cache(4096)
def _names(code: types.CodeType) -> frozenset[str]:
    """The globals and attributes that a function's code names, and those of the functions in it."""
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return frozenset(code.co_names).union(*inner)


@functools.lru_cache(1024)
def _written(cls: type) -> frozenset[str]:
    """The attributes that the host's own code in a class writes once it is made."""
    methods = (vars(base).items() for base in cls.__mro__ if _is_settled(base))
    code = (method for of_base in methods for name, method in of_base if name != "__init__")
    steps = (step for method in code if isinstance(method, types.FunctionType) for step in dis.get_instructions(method))
    return frozenset(step.argval for step in steps if step.opname == "STORE_ATTR")


def _of_tensor(tensor: torch.Tensor) -> object:
    """Within an execution tensors keep no count of changes in place; so some of the values."""
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout == torch.strided
    if not plain or tensor.is_meta or not tensor.numel():
        return tuple(tensor.shape)
    every = max(1, tensor.numel() // SAMPLED)
    values = tensor.detach().reshape(-1)[::every] if tensor.is_contiguous() else tensor.detach().flatten()[::every]
    return (tuple(tensor.shape), values.to("cpu", copy=True).view(torch.uint8).numpy().tobytes())


def _is_settled(cls: type) -> bool:
    return _of_settled(cls.__module__)


def _of_settled(module: str | None) -> bool:
    """Whether a module is the host's own or a library's; the host's extra nodes are named by their files."""
    return SETTLED.match(module or "") is not None


def _generators(device: torch.device) -> list[object]:
    """The states of the generators that all code shares."""
    found = [torch.get_rng_state().numpy().tobytes(), random.getstate(), numpy.random.get_state()[1:3]]
    if device.type == "cuda":
        found.append(torch.cuda.get_rng_state(device).numpy().tobytes())
    return found


def _alike(one: list[object], other: list[object]) -> bool:
    keys, places = one[2], other[2]
    return (one[:2], one[3:]) == (other[:2], other[3:]) and keys[1] == places[1] and bool((keys[0] == places[0]).all())


def _name(value: object) -> str:
    """How a line calls code of a node: by the class or function that it stands in."""
    if isinstance(value, Hung):
        return type(value.network).__name__
    function = getattr(value, "__func__", value)
    if isinstance(function, functools.partial):
        return _name(function.func)
    owner = getattr(value, "__self__", None)
    if owner is not None and not isinstance(owner, types.ModuleType):
        return (owner if isinstance(owner, type) else type(owner)).__name__
    return getattr(function, "__qualname__", type(value).__qualname__).split(".")[0]
