"""Whatever comes in, by a pipe or from a workflow, is a value or a refusal; and costs no more than it weighs."""

import io
import json
import struct
import tracemalloc

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hybridiff_core import schedule
from hybridiff_core.plan import HybridPlan
from hybridiff_core.workers.frames import FRAME_LIMIT, FramePipe
from hybridiff_core.workers.ledger import Ledger
from hybridiff_core.workers.wire import CannotCross, Kind, decode, encode

numbers = st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), 2**64, 0.1, -0.0])
leaves = st.none() | st.booleans() | numbers | st.text(max_size=8)
anything = st.recursive(
    leaves,
    lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=8), v, max_size=4),
    max_leaves=12,
)
FORMS = ["tuple", "set", "dict", "uuid", "dtype", "tensor", "kind", "of"]
# near to what `encode` writes
forms = st.recursive(
    leaves | st.sampled_from(["float32", "point", "00000000000000000000000000000000"]),
    lambda v: (
        st.lists(v, max_size=4)
        | st.dictionaries(st.sampled_from(FORMS), v, min_size=1, max_size=2)
        | st.fixed_dictionaries({"kind": st.just("point"), "of": v})
        | st.fixed_dictionaries({"dict": st.lists(st.tuples(v, v).map(list), max_size=3)})
        | st.fixed_dictionaries({"tensor": st.integers(-1, 3)})
    ),
    max_leaves=12,
)


class Point:
    def __init__(self, x):
        if not isinstance(x, float):
            raise TypeError(f"{x!r} is no number")
        self.x = x


KINDS = {Point: Kind("point", lambda point: point.x, Point)}


def frame(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def receive_all(data: bytes) -> list:
    """The frames in `data`, up to its end or the first refusal."""
    pipe, found = FramePipe(io.BytesIO(data), io.BytesIO()), []
    try:
        while (message := pipe.receive()) is not None:
            assert type(message) is dict
            found.append(message)
    except ValueError as error:
        found.append(error)
    return found


@settings(max_examples=400)
@given(st.lists(st.binary(max_size=40) | st.binary(max_size=40).map(frame), max_size=3).map(b"".join))
@example(b"\xff\xff\xff\xff")
@example(b"\xff\xff\xff\x03{}")  # announces almost the limit, and ends
@example(frame(b"\xff\xfe"))
@example(frame(b"[" * 100_000))
@example(frame(b'{"a":' * 100_000))
@example(frame(b'{"a":' + b"9" * 5000 + b"}"))
@example(frame(b'{"a":NaN,"b":1e999,"c":-Infinity}'))
def test_bytes_on_the_pipe_are_frames_or_a_refusal(data):
    receive_all(data)


@settings(max_examples=200)
@given(anything, st.integers(0, 3))
def test_json_on_the_pipe_is_a_frame_or_a_refusal(value, cut):
    data = frame(json.dumps(value).encode())
    found = receive_all(data[: len(data) - cut])
    if isinstance(value, dict) and not cut:
        assert same(found, [value])
    else:
        assert not any(isinstance(message, dict) for message in found)


@pytest.mark.parametrize("announced", [FRAME_LIMIT, FRAME_LIMIT + 1, 2**32 - 1])
def test_what_is_only_announced_takes_no_memory(announced):
    pipe = io.BufferedReader(io.BytesIO(struct.pack("<I", announced) + b"{" * 1000))
    tracemalloc.start()
    try:
        try:
            assert FramePipe(pipe, io.BytesIO()).receive() is None
        except ValueError:
            assert announced > FRAME_LIMIT
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_frame_comes_whole_from_a_pipe_that_gives_it_in_pieces():
    class Dripping(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 7))

    message = {"text": "x" * 100}
    assert FramePipe(Dripping(frame(json.dumps(message).encode())), io.BytesIO()).receive() == message


@settings(max_examples=500)
@given(anything | forms)
@example({"set": [[1]]})
@example({"dict": [[{"dict": []}, 1]]})
@example({"dict": [1]})
@example({"dict": [["a", "b", "c"]]})
@example({"tensor": 7})
@example({"kind": "point", "of": "text"})
@example({"kind": "os.system", "of": "true"})
@example({"uuid": "no"})
def test_json_decodes_to_a_value_or_a_refusal(value):
    tensors = {0: torch.zeros(2), 1: torch.ones(1)}
    try:
        decoded = decode(value, tensors.__getitem__, KINDS)
    except ValueError:
        return
    written = encode(decoded, lambda tensor: int(tensor is tensors[1]), KINDS)
    assert same(decode(written, tensors.__getitem__, KINDS), decoded)


def same(a: object, b: object) -> bool:
    """Whether two values are written alike: NaN is then NaN, and 1 not True."""
    return json.dumps(encode(a, id, KINDS)) == json.dumps(encode(b, id, KINDS))


def test_deep_values_are_refused():
    value = []
    for _ in range(5000):
        value = {"tuple": [value]}
    with pytest.raises(ValueError, match="nested too deeply"):
        decode(value, {}.__getitem__)


keys = st.text(max_size=8) | st.integers() | st.tuples(st.integers(), st.text(max_size=3))
values = st.recursive(
    leaves | st.uuids() | st.sampled_from([torch.float16, torch.int64]),
    lambda v: (
        st.lists(v, max_size=4)
        | st.lists(v, max_size=4).map(tuple)
        | st.dictionaries(keys, v, max_size=4)
        | st.sets(keys, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=300)
@given(values)
def test_values_come_back_through_a_frame(value):
    buffer = io.BytesIO()
    pipe = FramePipe(buffer, buffer)
    pipe.send({"value": encode(value, lambda tensor: 0)})
    buffer.seek(0)
    assert same(decode(pipe.receive()["value"], {}.__getitem__), value)


fields = st.dictionaries(st.sampled_from(list(HybridPlan().to_dict())), leaves).map(lambda v: {**v, "version": 2})


@settings(max_examples=500)
@given(anything | fields | st.dictionaries(leaves, leaves, max_size=3))
@example({"version": 2, "start_step": float("nan")})
@example({"version": 2, "start_step": float("inf")})
@example({"version": 2, "tolerance": 10**400})
@example({"version": 2, "mode": ["auto"]})
def test_anything_is_a_plan_or_a_short_refusal(value):
    try:
        plan = HybridPlan.from_dict(value)
    except ValueError as error:
        assert len(str(error)) < 250 and "\n" not in str(error)
        return
    assert HybridPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


@given(
    st.builds(HybridPlan, start_step=st.integers(1, 99), warmup=st.sampled_from(["slope", "fixed"])),
    st.integers(-1, 60),
)
def test_a_plan_fits_a_run_or_is_refused(plan, steps):
    try:
        used = plan.for_run(steps)
    except ValueError:
        return
    assert used.interval >= 1 and steps >= 1 and (used.start is None or used.start + used.interval <= steps)


words = st.sampled_from(["warm-up", "parallelism", "exact", "predicted", "-", "nan", "1e9", "0.5", "3", "\u0663"])


@settings(max_examples=300)
@given(st.text(max_size=80) | st.lists(st.lists(words, max_size=7).map(" ".join), max_size=3).map("\n".join))
@example("9" * 5000 + " 1 warm-up exact - -")
def test_text_is_a_schedule_or_a_refusal(text):
    try:
        lines = schedule.parse(text)
    except ValueError:
        return
    again = schedule.parse("\n".join(map(str, lines)))
    assert [(line.step, line.stage, line.work) for line in again] == [(x.step, x.stage, x.work) for x in lines]


shelf = st.lists(st.integers(0, 5), max_size=6)


@pytest.mark.parametrize("by_content", [True, False])
@given(runs=st.lists(st.tuples(shelf, st.booleans(), st.integers(0, 5)), max_size=6))
def test_the_other_side_holds_what_the_ledger_says(by_content, runs):
    """Each time some of six tensors are packed; one may be changed before, or something be there that cannot cross."""
    ledger, held = Ledger(by_content, first_number=10), {}
    tensors = [torch.full((2,), float(i)) for i in range(6)]
    for chosen, fails, changed in runs:
        tensors[changed].add_(10.0)
        value = [tensors[i] for i in chosen]
        if fails:
            with pytest.raises(CannotCross):
                ledger.pack([*value, len])
            continue
        parcel = ledger.pack(value)
        assert not held.keys() & dict(parcel.tensors).keys() and set(parcel.forget) <= held.keys()
        for number in parcel.forget:
            del held[number]
        held |= {number: tensor.clone() for number, tensor in parcel.tensors}
        assert len(held) == len(set(chosen))
        for got, sent in zip(decode(parcel.value, held.__getitem__), value, strict=True):
            assert torch.equal(got, sent)
        assert not ledger.pack(value).tensors  # nothing is sent twice
