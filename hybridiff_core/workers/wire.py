"""Plain data on a wire: JSON in which a tensor is only a number, and tensors as raw bytes. No pickle."""

from __future__ import annotations

import numbers
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from .. import lines

_DTYPE_NAMES = (
    "float64 float32 float16 bfloat16 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu "
    "int64 int32 int16 int8 uint8 uint16 uint32 uint64 bool"
)
DTYPES = {name: getattr(torch, name) for name in _DTYPE_NAMES.split() if hasattr(torch, name)}


class CannotCross(Exception):
    """A value that has no safe form on the wire. The text names where it stands and what it is."""


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

    root = where

    def place(where: str) -> str:
        return where if where == root or where.startswith(f"{root}[") else f"{where} in {root}"

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
            return {"dict": [[walk(key, where), walk(item, str(key))] for key, item in value.items()]}
        if isinstance(value, uuid.UUID):
            return {"uuid": value.hex}
        if isinstance(value, torch.dtype):
            return {"dtype": _dtype_name(value, place(where))}
        if isinstance(value, torch.Tensor):
            if type(value) not in (torch.Tensor, torch.nn.Parameter) or value.layout != torch.strided or value.is_meta:
                raise CannotCross(lines.TENSOR_CANNOT_CROSS(where=place(where), kind=type(value).__name__))
            _dtype_name(value.dtype, place(where))
            return {"tensor": tensor(value)}
        if callable(value):
            raise CannotCross(lines.CODE_CANNOT_CROSS(where=where))
        raise CannotCross(lines.OBJECT_CANNOT_CROSS(where=place(where), kind=type(value).__name__))

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
        raise ValueError(lines.NO_SUCH_FORM(value=str(value)[:80]))

    try:
        return walk(value)
    except RecursionError as error:
        raise ValueError(lines.VALUE_TOO_DEEP()) from error
    except (TypeError, LookupError) as error:  # a key that is a list, a tensor that never came, ...
        raise ValueError(lines.NO_SUCH_VALUE(error=repr(error))) from error


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
    raise ValueError(lines.NO_SHAPE(value=str(told)[:80]))


def _dtype_name(dtype: torch.dtype, where: str) -> str:
    name = dtype_name(dtype)
    if name not in DTYPES:
        raise CannotCross(lines.DTYPE_CANNOT_CROSS(where=where, dtype=name))
    return name


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor`'s elements as a flat uint8 tensor; a view where its memory is contiguous."""
    flat = tensor.contiguous().reshape(-1)
    # a single element counts as contiguous whatever its stride, but only stride 1 can be viewed as bytes
    return flat.as_strided((flat.numel(),), (1,)).view(torch.uint8)
