"""What the other side of a wire holds: each tensor is sent once, and forgotten when nothing needs it."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from .wire import Kinds, as_bytes, dtype_name, encode


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
    kept by the host between runs). With `keeps` the other side may go on holding what a value no
    longer needs, until it says that it does not (`forgotten`), or the tensor is gone here.
    """

    def __init__(self, by_content: bool, first_number: int = 0, keeps: bool = False):
        self.by_content, self.keeps = by_content, keeps
        self._numbers: dict[object, tuple[int, weakref.ref]] = {}
        self._next = first_number
        self._before = self._numbers, self._next

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
        if self.keeps:
            alive = {key: known for key, known in self._numbers.items() if known[1]() is not None}
            kept = {**alive, **kept}
        used = {number for number, _ in kept.values()}
        forget = sorted(number for number, _ in self._numbers.values() if number not in used)
        self._before = self._numbers, self._next
        self._numbers, self._next = kept, following
        return Parcel(encoded, list(new.items()), forget)

    def forgotten(self, numbers: Iterable[int]) -> None:
        """The other side let these go."""
        gone = set(numbers)
        self._numbers = {key: known for key, known in self._numbers.items() if known[0] not in gone}

    def take_back(self) -> None:
        """What `pack` gave last was not sent."""
        self._numbers, self._next = self._before

    def _key(self, tensor: torch.Tensor) -> object:
        shape = (tuple(tensor.shape), tensor.dtype, tensor.device)
        if self.by_content:
            data = as_bytes(tensor.detach().cpu()).numpy()
            return (hashlib.blake2b(data, digest_size=20).digest(), *shape)
        version = 0 if tensor.is_inference() else tensor._version
        if isinstance(tensor, torch.nn.Parameter):  # its module moves it between devices
            return (id(tensor), version, *shape[:2])
        return (id(tensor), version, tensor.data_ptr(), *shape)
