"""What crosses between processes: frames of JSON on a pipe, and plain data with tensors in it.

No pickle. A frame is four bytes of length and that many bytes of JSON. A value is written as JSON
in which a tensor is only a number; the tensors themselves go through the channel as raw bytes.
"""

from __future__ import annotations

import hashlib
import json
import numbers
import re
import struct
import threading
import uuid
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO

import torch

FRAME_LIMIT = 64 << 20
READ_SIZE = 1 << 20
_DTYPE_NAMES = (
    "float64 float32 float16 bfloat16 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu "
    "int64 int32 int16 int8 uint8 uint16 uint32 uint64 bool"
)
DTYPES = {name: getattr(torch, name) for name in _DTYPE_NAMES.split() if hasattr(torch, name)}

# what comes before tensors that a worker computed
HEADER = ((4,), torch.int64)  # number, status, microseconds of computing, error in millionths (-1: none)
RIGHT, FAILED, GROUP_LOST = 0, 1, 2  # status


class CannotCross(Exception):
    """A value that has no safe form on the wire. The text names where it stands and what it is."""


class FramePipe:
    """Both directions of a pipe, a frame at a time. `send` may be called from any thread."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO):
        self.incoming, self.outgoing = incoming, outgoing
        self._lock = threading.Lock()

    def send(self, message: dict) -> None:
        """Raises OSError or ValueError when the other end is gone, CannotCross for too large a message."""
        self.write(self.pack(message))

    @staticmethod
    def pack(message: dict) -> bytes:
        """The frame that `write` sends. Raises CannotCross."""
        data = json.dumps(message, separators=(",", ":")).encode()
        if len(data) > FRAME_LIMIT:
            raise CannotCross(f"a message of {len(data)} bytes is over the limit of {FRAME_LIMIT}")
        return struct.pack("<I", len(data)) + data

    def write(self, frame: bytes) -> None:
        with self._lock:
            self.outgoing.write(frame)
            self.outgoing.flush()

    def receive(self) -> dict | None:
        """The next frame, or None at the pipe's end. Raises ValueError on what is not a frame."""
        head = self._read(4)
        if len(head) < 4:
            return None
        (size,) = struct.unpack("<I", head)
        if size > FRAME_LIMIT:
            raise ValueError(f"a frame announces {size} bytes, over the limit of {FRAME_LIMIT}")
        data = self._read(size)
        if len(data) < size:
            return None
        try:
            message = json.loads(data)
        except RecursionError as error:
            raise ValueError("a frame is nested too deeply") from error
        if not isinstance(message, dict):
            raise ValueError(f"a frame holds {type(message).__name__} instead of an object")
        return message

    def _read(self, size: int) -> bytes:
        """`size` bytes, or fewer at the pipe's end. What is announced takes no memory before it is there."""
        parts = []
        while size and (part := self.incoming.read(min(size, READ_SIZE))):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


@dataclass(frozen=True)
class Kind:
    """How objects of a class cross: as `name` and a plain value.

    `plain(obj)` gives the value, `build(value)` makes the object again on the other side.
    """

    name: str
    plain: Callable[[object], object]
    build: Callable[[object], object]


Kinds = Mapping[type, Kind]


def encode(value: object, tensor: Callable[[torch.Tensor], int], kinds: Kinds | None = None, where: str = "it"):
    """Turn `value` into JSON; `tensor` is given each tensor and answers with its number.

    Raises CannotCross for anything but None, bool, numbers, text, lists, tuples, sets, dicts,
    UUIDs, dtypes, dense tensors and the classes in `kinds`.
    """

    def walk(value: object, where: str):
        if value is None or isinstance(value, (bool, str)):
            return value
        if type(value) in (kinds or {}):
            kind = kinds[type(value)]
            return {"kind": kind.name, "of": walk(kind.plain(value), where)}
        if isinstance(value, numbers.Integral):
            return int(value)
        if isinstance(value, numbers.Real):
            return float(value)
        if isinstance(value, list):
            return [walk(item, f"{where}[{i}]") for i, item in enumerate(value)]
        if isinstance(value, tuple):
            return {"tuple": [walk(item, f"{where}[{i}]") for i, item in enumerate(value)]}
        if isinstance(value, (set, frozenset)):
            return {"set": [walk(item, where) for item in sorted(value, key=repr)]}
        if type(value) is dict:
            return {"dict": [[walk(key, where), walk(item, f"{where}.{key}")] for key, item in value.items()]}
        if isinstance(value, uuid.UUID):
            return {"uuid": value.hex}
        if isinstance(value, torch.dtype):
            return {"dtype": _dtype_name(value, where)}
        if isinstance(value, torch.Tensor):
            if type(value) not in (torch.Tensor, torch.nn.Parameter) or value.layout != torch.strided or value.is_meta:
                raise CannotCross(f"{where} is a tensor of the special kind {type(value).__name__}")
            _dtype_name(value.dtype, where)
            return {"tensor": tensor(value)}
        module = re.split(r"[/\\]", type(value).__module__)[-1]  # a pack's module is called by its file's path
        raise CannotCross(f"{where} is of the class {module}.{type(value).__qualname__}")

    return walk(value, where)


def decode(value: object, tensor: Callable[[int], torch.Tensor], kinds: Kinds | None = None) -> object:
    """Undo `encode`. `tensor` is given a number and answers with the tensor, or raises LookupError.

    Raises ValueError on a form that `encode` does not write.
    """
    builders = {kind.name: kind.build for kind in (kinds or {}).values()}

    def walk(value: object):
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, list):
            return [walk(item) for item in value]
        match value:
            case {"tuple": list(items)}:
                return tuple(walk(item) for item in items)
            case {"set": list(items)}:
                return {walk(item) for item in items}
            case {"dict": list(pairs)}:
                return {walk(key): walk(item) for key, item in pairs}
            case {"uuid": str(text)}:
                return uuid.UUID(hex=text)
            case {"dtype": str(name)} if name in DTYPES:
                return DTYPES[name]
            case {"tensor": int(number)}:
                return tensor(number)
            case {"kind": str(name), "of": plain} if name in builders:
                return builders[name](walk(plain))
        raise ValueError(f"no such form on the wire: {str(value)[:80]}")

    try:
        return walk(value)
    except RecursionError as error:
        raise ValueError("a value on the wire is nested too deeply") from error
    except (TypeError, LookupError) as error:  # a key that is a list, a tensor that never came, ...
        raise ValueError(f"no such value on the wire: {error!r}") from error


def dtype_name(dtype: torch.dtype) -> str:
    """ "float32" for torch.float32."""
    return str(dtype).removeprefix("torch.")


def describe_tensor(tensor: torch.Tensor) -> list:
    """Shape and dtype, as a frame announces a tensor."""
    return [list(tensor.shape), dtype_name(tensor.dtype)]


def read_description(told: object) -> tuple[tuple[int, ...], torch.dtype]:
    """Undo `describe_tensor`. Raises ValueError."""
    match told:
        case [list(shape), str(name)] if name in DTYPES and all(type(size) is int and size >= 0 for size in shape):
            return tuple(shape), DTYPES[name]
    raise ValueError(f"no shape and dtype: {str(told)[:80]}")


def inner_frame(
    number: int,
    unit: tuple[int, int],
    x: torch.Tensor,
    sigma: torch.Tensor,
    h: tuple[torch.Tensor, ...],
    z: tuple[torch.Tensor, ...],
    segments: list[tuple[int, int]],
    peers: list[str],
    lead: str,
) -> dict:
    """The frame that starts an inner part with the state `h`; `z` shows the result's shapes, x only its own.

    `peers` are the names of the workers after the first, a segment for each; `lead` is the name of
    the one that sends it and is answered, "" for the parent.
    """
    first, *others = segments
    return {
        "op": "inner",
        "number": number,
        "unit": list(unit),
        "x": describe_tensor(x),
        "sigma": [sigma.tolist(), dtype_name(sigma.dtype)],
        "state": [describe_tensor(tensor) for tensor in h],
        "answer": [describe_tensor(tensor) for tensor in z],
        "first": first[0],
        "segment": first,
        "route": [[peer, *segment] for peer, segment in zip(peers, others, strict=True)],
        "via": lead,
        "back": lead,
    }


def _dtype_name(dtype: torch.dtype, where: str) -> str:
    name = dtype_name(dtype)
    if name not in DTYPES:
        raise CannotCross(f"{where} has the dtype {name}")
    return name


@dataclass(frozen=True)
class Parcel:
    """An encoded value, the tensors the other side lacks, and the numbers it can forget."""

    value: object
    tensors: list[tuple[int, torch.Tensor]]
    forget: list[int]

    def describe(self, compute_device: torch.device) -> list[dict]:
        """One line of JSON a tensor: number, shape, dtype, and whether it belongs on the device.

        A parameter is its module's to place.
        """
        return [
            {
                "number": number,
                "shape": list(tensor.shape),
                "dtype": dtype_name(tensor.dtype),
                "on_device": tensor.device == compute_device and not isinstance(tensor, torch.nn.Parameter),
            }
            for number, tensor in self.tensors
        ]


class Ledger:
    """Which tensors the other side holds, so that each is sent once.

    `by_content=True` recognises a tensor by a digest of its bytes (conditioning: small, and made
    anew by the host in each run); otherwise by object identity and version (weights: large, and
    kept by the host between runs).
    """

    def __init__(self, by_content: bool, first_number: int = 0):
        self.by_content = by_content
        self._numbers: dict[object, tuple[int, weakref.ref]] = {}
        self._next = first_number

    def pack(self, value: object, kinds: Kinds | None = None, where: str = "it") -> Parcel:
        """Encode `value` and bring the books up to date. Raises CannotCross, the books unchanged."""
        kept: dict[object, tuple[int, weakref.ref]] = {}
        new: dict[int, torch.Tensor] = {}
        following = self._next

        def number_of(tensor: torch.Tensor) -> int:
            nonlocal following
            key = self._key(tensor)
            known = kept.get(key) or self._numbers.get(key)
            if known and (self.by_content or known[1]() is tensor):
                kept[key] = known
                return known[0]
            number, following = following, following + 1
            kept[key] = (number, weakref.ref(tensor))
            new[number] = tensor
            return number

        encoded = encode(value, number_of, kinds, where)
        used = {number for number, _ in kept.values()}
        forget = sorted(number for number, _ in self._numbers.values() if number not in used)
        self._numbers, self._next = kept, following
        return Parcel(encoded, list(new.items()), forget)

    def _key(self, tensor: torch.Tensor) -> object:
        shape = (tuple(tensor.shape), tensor.dtype, tensor.device)
        if self.by_content:
            data = as_bytes(tensor.detach().cpu()).numpy()
            return (hashlib.blake2b(data, digest_size=20).digest(), *shape)
        version = 0 if tensor.is_inference() else tensor._version
        if isinstance(tensor, torch.nn.Parameter):  # its module moves it between devices
            return (id(tensor), version, *shape[:2])
        return (id(tensor), version, tensor.data_ptr(), *shape)


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor`'s elements as a flat uint8 tensor; a view where its memory is contiguous."""
    flat = tensor.contiguous().reshape(-1)
    # a single element counts as contiguous whatever its stride, but only stride 1 can be viewed as bytes
    return flat.as_strided((flat.numel(),), (1,)).view(torch.uint8)
