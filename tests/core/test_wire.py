import gc
import io
import uuid

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybridiff_core.workers.frames import FramePipe
from hybridiff_core.workers.ledger import Ledger
from hybridiff_core.workers.wire import DTYPES, CannotCross, Kind, as_bytes, decode, encode


def there_and_back(value, kinds=None):
    tensors = []

    def number(tensor):
        tensors.append(tensor)
        return len(tensors) - 1

    return decode(encode(value, number, kinds), tensors.__getitem__, kinds)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(plain)
def test_plain_data_comes_back_the_same(value):
    assert there_and_back(value) == value


def test_the_other_forms():
    key = uuid.uuid4()
    value = {"dtype": torch.bfloat16, "uuid": key, "set": {1, 2}, "shape": torch.Size([1, 2]), (1, "a"): [float("inf")]}
    assert there_and_back(value) == {**value, "shape": (1, 2)}


def test_objects_cross_by_their_kind():
    class Point:
        def __init__(self, x):
            self.x = x

    kinds = {Point: Kind("point", lambda point: point.x, Point)}
    assert there_and_back([Point(3)], kinds)[0].x == 3
    with pytest.raises(CannotCross, match=r"it\[0\] is an object \(Point\) that cannot be sent to a second process"):
        encode([Point(3)], lambda tensor: 0)


@pytest.mark.parametrize(
    "value, words",
    [
        (len, "a node put code of its own into it, and it is not in the second process"),
        ({"mask": torch.eye(2).to_sparse()}, "mask in it is a tensor of the special kind"),
        ([torch.empty(2, device="meta")], "special kind"),
        ([torch.zeros(1, dtype=torch.complex64)], "complex64"),
    ],
)
def test_what_cannot_cross_is_named(value, words):
    with pytest.raises(CannotCross, match=words):
        encode(value, lambda tensor: 0)


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_bytes_of_every_dtype(dtype):
    tensor = torch.zeros(3, 5, dtype=DTYPES[dtype])
    data = as_bytes(tensor.t())
    assert data.dtype == torch.uint8
    assert data.numel() == tensor.numel() * tensor.element_size()


def test_bytes_of_an_expanded_single_element():
    assert as_bytes(torch.tensor(1.5).expand(1)).view(torch.float32).tolist() == [1.5]


def test_frames_come_back_one_by_one():
    buffer = io.BytesIO()
    FramePipe(buffer, buffer).send({"op": "a", "n": 1})
    FramePipe(buffer, buffer).send({"op": "b"})
    buffer.seek(0)
    pipe = FramePipe(buffer, buffer)
    assert [pipe.receive(), pipe.receive(), pipe.receive()] == [{"op": "a", "n": 1}, {"op": "b"}, None]


@pytest.mark.parametrize(
    "data, words",
    [
        (b"\xff\xff\xff\xff", "announces 4294967295 bytes"),
        (b"\x02\0\0\0[]", "holds list"),
        (b"\x01\0\0\0{", "Expecting"),
    ],
)
def test_bad_frames_are_refused(data, words):
    with pytest.raises(ValueError, match=words):
        FramePipe(io.BytesIO(data), io.BytesIO()).receive()


def test_weights_are_sent_once_and_forgotten_when_gone():
    ledger = Ledger(by_content=False)
    down, up = torch.ones(2, 2), torch.ones(2, 2)
    first = ledger.pack({"lora": (1.0, down, up, down)})
    assert [number for number, _ in first.tensors] == [0, 1]
    stronger = ledger.pack({"lora": (0.5, down, up, down)})
    assert stronger.tensors == [] and stronger.forget == [] and stronger.value != first.value
    assert ledger.pack({"lora": (0.5, down)}).forget == [1]
    down.add_(1)  # changed in place: it is another tensor to the other side
    changed = ledger.pack({"lora": (0.5, down)})
    assert [number for number, _ in changed.tensors] == [2] and changed.forget == [0]


def test_conditioning_is_known_by_its_content():
    ledger = Ledger(by_content=True)
    assert len(ledger.pack([torch.ones(3), torch.ones(3), torch.zeros(3)]).tensors) == 2
    assert ledger.pack([torch.ones(3)]).tensors == []
    assert len(ledger.pack([torch.ones(3), torch.full((3,), 2.0)]).tensors) == 1


def test_a_failed_packing_leaves_the_books_unchanged():
    ledger = Ledger(by_content=True)
    ledger.pack([torch.ones(3)])
    with pytest.raises(CannotCross):
        ledger.pack([torch.zeros(3), len])
    again = ledger.pack([torch.zeros(3)])
    assert len(again.tensors) == 1 and again.forget == [0]


def test_a_ledger_that_keeps_forgets_what_it_is_told_and_what_is_gone():
    """Two models in turn: neither is sent twice, until the other side says that it let one go."""
    ledger = Ledger(by_content=False, keeps=True)
    one, two = torch.zeros(3), torch.ones(3)
    assert [number for number, _ in ledger.pack([one]).tensors] == [0]
    assert [number for number, _ in ledger.pack([two]).tensors] == [1]
    again = ledger.pack([one])
    assert (again.tensors, again.forget) == ([], [])
    ledger.forgotten([1])
    assert [number for number, _ in ledger.pack([two]).tensors] == [2]
    del one
    gc.collect()
    assert ledger.pack([two]).forget == [0]
