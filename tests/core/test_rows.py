"""Some batch items of a call: asked of a worker by themselves, and put together again."""

from __future__ import annotations

import pytest
import torch

from hybridiff_core.call import Piece, merge
from hybridiff_core.demo.demo_backend import DemoBackend
from hybridiff_core.demo.model import ModelConfig, words_to_context
from hybridiff_core.share import Unit
from hybridiff_core.workers.devices import Place
from hybridiff_core.workers.pool import Pool

CPU = torch.device("cpu")
SMALL = {"size": 16, "width": 32, "depth": 2, "heads": 2}
BATCH = 5
TEXTS = [words_to_context(text, ModelConfig(**SMALL)) for text in ("a cat", "a dog", "", "two", "three")]
CONDS = [torch.cat(TEXTS), TEXTS[0]]  # a prompt for each image, and one for all
X = torch.randn(BATCH, 4, 16, 16, generator=torch.Generator().manual_seed(0))
SIGMA = torch.linspace(0.5, 0.9, BATCH)
UNITS = [Unit(0, 0), Unit(1, 0)]
A, B = Unit(0, 0), Unit(0, 1)
WHOLE = torch.arange(4.0)


def unasked(units):
    raise AssertionError("no branch is taken apart here")


# -- merging


def piece(units, values, first, end):
    return Piece(units, torch.tensor(values), (first, end))


def test_a_branch_from_one_device_is_taken_as_it_is():
    assert merge([Piece([A, B], WHOLE)], unasked, 4)[0] is WHOLE
    assert merge([Piece([A, B], WHOLE, (0, 4))], unasked, 4)[0] is WHOLE


def test_batch_items_are_joined_in_their_order():
    parts = [piece([A, B], [3.0], 3, 4), piece([A, B], [0.0], 0, 1), piece([A, B], [1.0, 2.0], 1, 3)]
    assert merge(parts, unasked, 4)[0].tolist() == WHOLE.tolist()


def test_conds_are_meant_item_by_item():
    masks = {0: torch.tensor([1.0, 1.0, 0.0, 1.0]), 1: torch.tensor([1.0, 0.0, 2.0, 3.0])}
    parts = [
        piece([A], [2.0, 2.0, 0.0], 0, 3),  # one cond by rows cut after the third,
        piece([A], [8.0], 3, 4),
        piece([B], [4.0], 0, 1),  # the other by rows cut after the first
        piece([B], [9.0, 6.0, 4.0], 1, 4),
        Piece([Unit(1, 0)], WHOLE),
    ]
    merged = merge(parts, lambda units: sum(masks[unit.index] for unit in units), 4)
    assert merged[0].tolist() == [3.0, 2.0, 6.0, 5.0]
    assert merged[1] is WHOLE


def test_a_cond_whole_and_another_by_rows():
    parts = [Piece([A], torch.tensor([2.0, 4.0])), piece([B], [4.0], 0, 1), piece([B], [6.0], 1, 2)]
    assert merge(parts, lambda units: torch.ones(2), 2)[0].tolist() == [3.0, 5.0]


def test_the_same_conds_here_and_there_in_part():
    parts = [piece([A, B], [1.0, 1.0], 0, 2), piece([A], [2.0], 2, 3), piece([B], [4.0], 2, 3)]
    assert merge(parts, lambda units: float(len(units)) * torch.ones(3), 3)[0].tolist() == [1.0, 1.0, 3.0]


@pytest.mark.parametrize(
    "parts",
    [
        [piece([A], [0.0], 0, 1), piece([A], [0.0], 2, 3)],
        [piece([A], [0.0], 0, 1), piece([A], [0.0], 1, 2)],
        [piece([A], [0.0, 0.0], 1, 3)],
        [piece([A, B], [0.0, 0.0], 0, 2), piece([A], [0.0], 2, 3)],
        [piece([A], [0.0, 0.0], 0, 2), piece([A], [0.0, 0.0], 1, 3)],
    ],
    ids=["between", "at the end", "at the beginning", "a cond", "twice"],
)
def test_an_item_that_was_not_computed_once_is_an_error(parts):
    with pytest.raises(RuntimeError, match="of a batch of 3, prompt 0 was not computed exactly once"):
        merge(parts, lambda units: torch.ones(3), 3)


# -- workers


@pytest.fixture(scope="module")
def local():
    backend = DemoBackend({"device": "cpu"})
    backend.load({"config": SMALL})
    backend.begin({"conds": CONDS}, fresh=True)
    return backend


@pytest.fixture(scope="module")
def exchange():
    pool = Pool("demo", lambda place: {"threads": 1})
    exchange = pool.prepare(Place("cpu#0", "cpu (process 2)", "cpu"), CPU, {"config": SMALL}).ready(lambda: None)
    exchange.begin({"conds": CONDS})
    yield exchange
    pool.close()


def test_a_worker_computes_the_rows_it_is_asked_for(exchange, local):
    whole = local.predict(X, SIGMA, [(0, 0), (1, 0)])
    asked = [(0, 2, BATCH), (2, 3, BATCH), (3, 5, BATCH)]
    with torch.inference_mode():
        for rows in asked:
            exchange.submit(X, SIGMA, UNITS, rows)
        answers = [exchange.collect() for _ in asked]
    for (first, end, _), answer in zip(asked, answers):
        assert [part.units for part in answer.parts] == [[unit] for unit in UNITS]
        assert all(part.rows == (first, end) and len(part.prediction) == end - first for part in answer.parts)
        rows = X[first:end].nbytes
        assert answer.bytes_sent == rows + -(-SIGMA[first:end].nbytes // 16) * 16
        assert answer.bytes_received == 32 + 2 * rows
    merged = merge([part for answer in answers for part in answer.parts], unasked, BATCH)
    for branch, expected in enumerate(whole):
        assert (merged[branch] - expected).abs().max() < 1e-6


def test_whole_steps_and_rows_take_turns(exchange, local):
    whole = local.predict(X, SIGMA, [(0, 0), (1, 0)])
    exchange.submit(X, SIGMA, UNITS[:1])
    exchange.submit(X, SIGMA, UNITS[1:], (4, 5, BATCH))
    ((_, first, no_rows),) = exchange.collect().parts
    ((_, second, rows),) = exchange.collect().parts
    assert no_rows is None and rows == (4, 5)
    assert (first - whole[0]).abs().max() < 1e-6 and (second - whole[1][4:]).abs().max() < 1e-6


def test_a_measured_step_takes_rows_too(exchange, local):
    exchange.submit(X, SIGMA, UNITS[:1], (1, 4, BATCH), kind="measure")
    ((units, prediction, rows),) = exchange.collect().parts
    assert units == UNITS[:1] and rows == (1, 4)
    assert (prediction - local.predict(X, SIGMA, [(0, 0)])[0][1:4]).abs().max() < 1e-6
