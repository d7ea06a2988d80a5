"""The three stages over real worker processes, against plain one-process recomputations of the same schedule."""

from __future__ import annotations

import dataclasses
import os
import signal
import time

import pytest
import torch

from hybridiff_core.demo.demo_backend import DemoBackend
from hybridiff_core.demo.model import ModelConfig, sample_euler, sigmas, words_to_context
from hybridiff_core.discrepancy import rel_mae
from hybridiff_core.engine import Engine
from hybridiff_core.extrapolation import factor
from hybridiff_core.modes import mode_for
from hybridiff_core.modes.estimates import Predictor, difference_gain
from hybridiff_core.modes.groups import Group, form_groups
from hybridiff_core.modes.sandwich import FETCHED
from hybridiff_core.network.split import Pass, Reached, central_openings
from hybridiff_core.plan import HybridPlan
from hybridiff_core.report import RunReport
from hybridiff_core.rules import AUTO_START, LAST_STEPS, MADE_UP, MOST_PREDICTED
from hybridiff_core.schedule import Schedule, parse
from hybridiff_core.setting import Setting
from hybridiff_core.share import Unit
from hybridiff_core.workers.devices import Place
from hybridiff_core.workers.pool import Pool

from ..tiers import full

CPU = torch.device("cpu")
CONFIG = ModelConfig(size=16, width=32, depth=8, heads=2)
CONDS = [words_to_context(text, CONFIG) for text in ("a cat", "", "a dog")]
NOISE = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
STEPS = 14


@pytest.fixture(scope="module")
def workers():
    pool = Pool("demo", lambda place: {"threads": 1})
    leases = []

    def some(count):
        while len(leases) < count:
            place = Place(f"cpu#{len(leases)}", f"cpu (process {len(leases) + 2})", "cpu")
            leases.append(pool.prepare(place, CPU, {"config": dataclasses.asdict(CONFIG)}))
        exchanges = [lease.ready(lambda: None) for lease in leases[:count]]
        for exchange in exchanges:
            exchange.drain()
            exchange.begin({"conds": CONDS})
        return exchanges

    yield some
    pool.close()


@pytest.fixture(scope="module")
def network():
    backend = DemoBackend({"device": "cpu"})
    backend.load({"config": dataclasses.asdict(CONFIG)})
    backend.begin({"conds": CONDS}, fresh=True)
    return backend


class Counted(Schedule):
    """A schedule for calls that are all at one sigma: every call is a step."""

    def locate(self, sigma):
        self._step += 1
        return self._step - 1


def run(network, exchanges, plan, branches=2, cfg=3.0, steps=STEPS, known=None, freeze=False):
    """Euler through the engine: the latent, the engine, and every call's predictions."""
    report = RunReport("", ["here"])
    setting = Setting(plan, sigmas(steps).tolist(), cfg, openings=central_openings, name="demo", **(known or {}))
    engine = Engine(exchanges, report, setting)
    if freeze:
        engine.state.schedule = Counted(plan, setting.sigmas, earliest=5)
    units = [Unit(branch, 0) for branch in range(branches)]
    seen = []

    def predict(x, sigma):
        x, sigma = (NOISE, torch.full_like(sigma, 0.5)) if freeze else (x, sigma)
        here = here_of(network, x, sigma)
        done = engine.step(x, sigma, units, here, no_weight)
        seen.append((x.clone(), done))
        return done[0], done.get(1, done[0])

    with torch.inference_mode():
        latent = sample_euler(predict, NOISE, sigmas(steps), cfg)
    return latent, engine, seen


def here_of(network, x, sigma):
    """What computes units at (x, sigma) in this process."""

    def here(mine, through=None, rows=None):
        first, end, _ = rows or (0, len(x), 0)
        predictions = network.predict(
            x[first:end], sigma[first:end], [(u.branch, u.index) for u in mine], through, rows
        )
        return {unit.branch: prediction for unit, prediction in zip(mine, predictions)}

    return here


def no_weight(units):
    raise AssertionError("no branch is taken apart here")


# -- a plain recomputation: no Pass, no Lead, no History


class Plain:
    """The demo's network in three pieces."""

    def __init__(self, network, bounds):
        self.model = network._model
        self.first, self.last = bounds[0], bounds[-1]

    def exact(self, x, sigma, branch):
        """eps and z."""
        from hybridiff_core.network.split import Cut, Whole

        through = Whole(Cut((self.first, self.last)))
        v = self.model(x, sigma, CONDS[branch].expand(2, -1, -1), through)
        return v, through.z[0]

    def h(self, x, sigma, branch):
        return self._stop(x, sigma, branch, self.first)

    def inner(self, h, sigma, branch):
        time = self._time(sigma)
        for block in self.model.blocks[self.first : self.last]:
            h = block(h, CONDS[branch].expand(2, -1, -1), time)
        return h

    def outer(self, x, sigma, branch, z):
        import torch.nn.functional as f

        time, h = self._time(sigma), z
        for block in self.model.blocks[self.last :]:
            h = block(h, CONDS[branch].expand(2, -1, -1), time)
        v = self.model.final(f.layer_norm(h, h.shape[-1:])).transpose(1, 2)
        return f.pixel_shuffle(v.unflatten(2, (8, -1)), 2)

    def _time(self, sigma):
        from hybridiff_core.demo.model import _waves

        return self.model.time(_waves(sigma))

    def _stop(self, x, sigma, branch, at):
        class Stop(Pass):
            def at(self, block, state, run):
                if block == at:
                    raise Reached(state)
                return run(state)

        try:
            self.model(x, sigma, CONDS[branch].expand(2, -1, -1), Stop())
        except Reached as reached:
            return reached.state[0]
        raise AssertionError("no such block")


def line(t0, a, t1, b, t):
    return b + factor(t0, t1, t) * (b - a)


def recompute(network, bounds, works, branches=2, cfg=3.0, delays=None, steps=STEPS, last=None, made_up=0.0):
    """The latent for given works of steps; `delays[branch]` is how many steps a branch's z is behind."""
    guessed = []
    plain, t = Plain(network, bounds[0]), sigmas(steps)
    plains = {b: Plain(network, bounds[min(b, len(bounds) - 1)]) for b in range(branches)}
    x, zs, hs, eps_known, ds = NOISE, {b: [] for b in range(branches)}, {}, [], []
    turns, turn_of = {0: [], 1: []}, 0
    for i, work in enumerate(works):
        s = t[i].expand(2)
        time = float(t[i])
        if work == "exact":
            eps = {}
            for b in range(branches):
                eps[b], z = plains[b].exact(x, s, b)
                zs[b].append((i, time, z))
            if branches > 1:
                ds.append((time, eps[0] - eps[1]))
                for b in (0, 1):
                    turns[b].append((time, eps[b]))
        elif work == "predicted":
            (t0, e0), (t1, e1) = eps_known[-2:]
            f = factor(t0, t1, time)
            # branches beside the first follow the mean of their own slope and of its
            eps = {b: e1[b] + f * ((e1[b] - e0[b]) + (e1[0] - e0[0])) / 2 for b in range(branches)}
            guessed.append((i, time, eps))
        elif work == "pipeline":
            eps = {}
            for b in range(branches):
                for j in [j for j in hs if j <= i - delays[b]]:  # these came back
                    h, then = hs[j].get(b, (None, None))
                    if h is not None:
                        zs[b].append((j, float(then[0]), plains[b].inner(h, then, b)))
                        del hs[j][b]
                (_, t0, a), (_, t1, z) = zs[b][-2:]
                eps[b] = plains[b].outer(x, s, b, line(t0, a, t1, z, time))
                hs.setdefault(i, {})[b] = (plains[b].h(x, s, b), s)
        elif work == "alternating":
            turn_of += 1
            me = turn_of % 2
            if me in hs:
                h, then = hs.pop(me)
                zs[me].append((i, float(then[0]), plain.inner(h, then, me)))
            if turn_of == 1:  # uncond was computed by the worker, and not all of its z cross
                zs[1] = zs[1][-FETCHED:]
            (_, t0, a), (_, t1, z) = (zs[me] * 2)[-2:]
            mine = plain.outer(x, s, me, line(t0, a, t1, z, time))
            if i + 2 <= last:
                hs[me] = (plain.h(x, s, me), s)
            sign = 1 if me == 0 else -1
            t_o, other = turns[1 - me][-1]
            t_m, before = turns[me][-1]
            if t_o != t_m:
                at = before + (t_o - t_m) / (time - t_m) * (mine - before)
                ds.append((t_o, sign * (at - other)))
            (d0, da), (d1, db) = ds[-2:]
            d = db + difference_gain(steps) * factor(d0, d1, time) * (db - da)
            turns[me].append((time, mine))
            eps = {me: mine, 1 - me: mine - sign * d}
        elif work == "paper":
            for j in [j for j in hs if j <= i - 2]:
                h, then = hs.pop(j)
                zs[0].append((j, float(then[0]), plain.inner(h, then, 1)))
            mine = plain.outer(x, s, 0, zs[0][-1][2])
            hs[i] = (plain.h(x, s, 0), s)
            eps = {0: mine, 1: mine}
        if work != "predicted":
            computed = eps
            for j, then, wrong in guessed if made_up else ():
                (t1, e1), moved = eps_known[-1], (t[j + 1] - t[j]) / (t[i + 1] - t[i])
                right = {b: e1[b] + (then - t1) / (time - t1) * (computed[b] - e1[b]) for b in range(branches)}
                eps = {b: eps[b] + made_up * moved * (right[b] - wrong[b]) for b in range(branches)}
            guessed.clear()
            eps_known.append((time, computed))
        guided = eps[1] + cfg * (eps[0] - eps[1]) if branches > 1 else eps[0]
        x = x + guided * (t[i + 1] - t[i])
    return x


def fixed(mode, start=5, k=5, **more):
    return HybridPlan(mode=mode, warmup="fixed", start_step=start, parallel_steps=k, **more)


def works_of(engine):
    return [line.work.value for line in parse(engine.report.schedule)]


CASES = {
    # name: plan, branches, workers, works of the stage, delay of each branch's z
    "predict": (fixed("predict"), 2, 1, ["predicted", "exact"] * 2 + ["predicted"], None),
    "predict m=3, one device": (
        fixed("predict", k=6, predict_stride=3), 2, 0, ["predicted", "predicted", "exact"] * 2, None
    ),
    "predict, CFG 1": (fixed("predict"), 1, 0, ["predicted", "exact"] * 2 + ["predicted"], None),
    "alternating": (fixed("pipeline"), 2, 1, ["alternating"] * 5, None),
    "alternating, first step only": (fixed("pipeline", k=1), 2, 1, ["alternating"], None),
    "alternating to the end": (fixed("pipeline", k=9), 2, 1, ["alternating"] * 9, None),
    "paper": (fixed("paper"), 2, 1, ["paper"] * 5, None),
    "CFG 1, two devices": (fixed("pipeline"), 1, 1, ["pipeline"] * 5, [1]),
    "CFG 1, two devices, one step": (fixed("pipeline", k=1), 1, 1, ["pipeline"], [1]),
    "CFG 1, two devices, to the end": (fixed("pipeline", k=9), 1, 1, ["pipeline"] * 9, [1]),
    "CFG 1, three devices": (fixed("pipeline"), 1, 2, ["pipeline"] * 5, [2]),
    "CFG 1, four devices": (fixed("pipeline", k=8), 1, 3, ["pipeline"] * 8, [3]),
    "CFG, four devices": (fixed("pipeline"), 2, 3, ["pipeline"] * 5, [1, 1]),
    "three branches, four devices": (fixed("pipeline"), 3, 3, ["pipeline"] * 5, None),
    "CFG, six devices": (fixed("pipeline", k=8), 2, 5, ["pipeline"] * 8, [2, 2]),
    "pipeline and predict, CFG 1": (
        fixed("pipeline", k=6, predict_stride=2), 1, 1, ["predicted", "pipeline"] * 3, [1]
    ),
}  # fmt: skip
PREDICTING = [name for name in CASES if "predict" in name]


@pytest.mark.parametrize("name", PREDICTING)
def test_predicted_steps_are_made_up_for_where_the_sampler_is_eulers(workers, network, name):
    plan, branches, count, stage, delays = CASES[name]
    first, engine, _ = run(network, workers(count), plan, branches, known={"first_order": True})
    bounds = [cut["bounds"] for cut in engine.report.cuts] or [(2, 6)]
    works, last = works_of(engine), plan.start_step + len(stage) - 1
    with torch.inference_mode():
        expected = recompute(network, bounds, works, branches, delays=delays, last=last, made_up=MADE_UP)
    assert (first - expected).abs().max() < 1e-5
    if plan.mode == "pipeline":  # how far it is off hangs on where the measured times let it cut
        return
    exact, _, _ = run(network, [], HybridPlan(mode="exact"), branches)
    other, _, _ = run(network, workers(count), plan, branches)
    assert (first - exact).square().mean() < (other - exact).square().mean()


@pytest.mark.parametrize("branches", [2, 1])
def test_auto_predicts_more_steps_in_a_row_step_by_step_and_never_the_last_two(network, monkeypatch, branches):
    monkeypatch.setattr("hybridiff_core.schedule.FAR", 100.0)  # the random network is not smooth
    latent, engine, _ = run(network, [], HybridPlan(tolerance=1.0), branches, known={"first_order": True})
    works = works_of(engine)
    # after computed steps one, then as many as lie within REACH of the distance between the last two computed
    assert works[: AUTO_START + 2] == ["exact"] * AUTO_START + ["predicted", "exact"]
    row = ["predicted"] * MOST_PREDICTED + ["exact"]
    middle = STEPS - AUTO_START - 2 - LAST_STEPS
    assert works[AUTO_START + 2 :] == [*(row * middle)[:middle], *["exact"] * LAST_STEPS]
    with torch.inference_mode():
        expected = recompute(network, [(2, 6)], works, branches, last=STEPS - 1 - LAST_STEPS, made_up=MADE_UP)
    assert (latent - expected).abs().max() < 1e-5


@pytest.mark.parametrize("stride", [1, 3])
def test_auto_takes_no_notice_of_a_stride(network, monkeypatch, stride):
    monkeypatch.setattr("hybridiff_core.schedule.FAR", 100.0)  # the random network is not smooth
    _, plain, _ = run(network, [], HybridPlan(tolerance=1.0))
    _, engine, _ = run(network, [], HybridPlan(tolerance=1.0, predict_stride=stride))
    assert works_of(engine) == works_of(plain) and "predicted" in works_of(plain)


def test_a_line_is_off_by_the_product_of_the_distances():
    predictor = Predictor()
    for at in (0.0, 1.0, 3.0):
        eps = {0: torch.full((1, 2), 1.0 + at**2)}
        if at == 3.0:
            assert predictor.error(at, eps, 1.0) == pytest.approx(3 * 2 / 10)
            assert predictor.spread(at) == pytest.approx(3 * 2)
        predictor.observe(at, eps)
    assert predictor.spread(5.0) == pytest.approx(4 * 2)


@pytest.mark.parametrize("name", CASES)
def test_a_run_is_what_a_plain_recomputation_gives(workers, network, name):
    plan, branches, count, stage, delays = CASES[name]
    latent, engine, _ = run(network, workers(count), plan, branches)
    works = works_of(engine)
    start = plan.start_step
    assert works == ["exact"] * start + stage + ["exact"] * (STEPS - start - len(stage))
    assert not [text for text in engine.report.lines if "left out" in text or "took over" in text]
    bounds = [cut["bounds"] for cut in engine.report.cuts] or [(2, 6)]
    if name == "three branches, four devices":
        grouped = {cut["branches"][0]: len(cut["devices"]) for cut in engine.report.cuts}
        assert list(grouped.values()) == [2]
        return  # whose group is larger is for the clock to say; the latent is checked by the other cases
    last = start + len(stage) - 1
    with torch.inference_mode():
        expected = recompute(network, bounds, works, branches, delays=delays, last=last)
    assert (latent - expected).abs().max() < 1e-5
    exact, _, _ = run(network, [], HybridPlan(mode="exact"), branches)
    assert (latent - exact).abs().max() > 1e-6  # the stage does something


def test_exact_mode_is_exact_with_many_devices(workers, network):
    latent, engine, _ = run(network, workers(4), HybridPlan(mode="exact"))
    exact, _, _ = run(network, [], HybridPlan(mode="exact"))
    assert (latent - exact).abs().max() < 1e-5
    assert set(works_of(engine)) == {"exact"}


@pytest.mark.parametrize("count", [1, 2])
def test_with_frozen_inputs_the_pipeline_becomes_the_exact_prediction(workers, network, count):
    _, _, seen = run(network, workers(count), fixed("pipeline", k=9), branches=1, freeze=True)
    exact = seen[0][1][0]
    for _, done in seen[5 + 3 :]:
        assert (done[0] - exact).abs().max() < 1e-4


def test_two_runs_with_fixed_boundaries_are_bit_for_bit_the_same(workers, network):
    known = {"cuts": {}, "paces": None}  # by measured times a call is divided in other ways, which round otherwise
    for plan in (fixed("pipeline"), fixed("predict")):
        first, _, _ = run(network, workers(1), plan, known=known)
        second, _, _ = run(network, workers(1), plan, known=known)
        assert torch.equal(first, second)


def test_the_discrepancy_is_that_of_the_predictions(workers, network):
    _, engine, seen = run(network, workers(1), HybridPlan(mode="exact"))
    measured = [line.rel_mae for line in parse(engine.report.schedule)]
    for (x, done), value in zip(seen, measured):
        assert value == pytest.approx(rel_mae(done[0], done[1], x), abs=1e-5)


def test_a_tight_tolerance_keeps_every_step_exact_and_a_loose_one_none(workers, network, monkeypatch):
    monkeypatch.setattr("hybridiff_core.schedule.FAR", 10.0)  # the random network is not smooth
    for mode in ("predict", "pipeline"):
        for branches in (2, 1):
            plan = fixed(mode, tolerance=1e-9)
            latent, engine, _ = run(network, workers(1), plan, branches)
            exact, _, _ = run(network, [], HybridPlan(mode="exact"), branches)
            assert set(works_of(engine)) == {"exact"} and (latent - exact).abs().max() < 1e-5
            _, engine, _ = run(network, workers(1), dataclasses.replace(plan, tolerance=1.0), branches)
            assert set(works_of(engine)) != {"exact"}


def test_an_interrupt_in_the_stage_leaves_the_workers_usable(workers, network):
    for count, branches in ((1, 2), (1, 1), (3, 2)):

        class Stop(Exception):
            pass

        def stopped(mine, through=None):
            raise Stop

        exchanges = workers(count)
        report = RunReport("", ["here"])
        engine = Engine(
            exchanges, report, Setting(fixed("pipeline"), sigmas(STEPS).tolist(), openings=central_openings)
        )
        units = [Unit(branch, 0) for branch in range(branches)]
        x, t = NOISE, sigmas(STEPS)
        with torch.inference_mode(), pytest.raises(Stop):
            for i in range(STEPS):
                sigma = t[i].expand(2)
                here = stopped if i == 8 else here_of(network, x, sigma)
                engine.step(x, sigma, units, here, no_weight)
        for exchange in exchanges:
            exchange.drain()
            exchange.end()
        latent, _, _ = run(network, workers(count), HybridPlan(mode="exact"), branches)
        exact, _, _ = run(network, [], HybridPlan(mode="exact"), branches)
        assert (latent - exact).abs().max() < 1e-5


CAN_STOP = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no signal that stops a process")


@pytest.mark.parametrize(
    ("count", "branches", "victim", "fault"),
    [
        *(
            (1, 2, 0, "dead"),
            (1, 1, 0, "dead"),
            (2, 1, 1, "dead"),
            (3, 2, 0, "dead"),
            (3, 2, 1, "dead"),
            (3, 2, 2, "dead"),
        ),
        *(full(*row, "stuck", marks=[CAN_STOP]) for row in ((1, 2, 0), (3, 2, 0), (3, 2, 2))),
    ],
)
def test_a_worker_that_fails_in_the_stage_does_not_cost_the_picture(network, count, branches, victim, fault):
    pool = Pool("demo", lambda place: {"threads": 1})
    try:
        places = [Place(f"cpu#{i}", f"cpu (process {i + 2})", "cpu") for i in range(count)]
        leases = [pool.prepare(place, CPU, {"config": dataclasses.asdict(CONFIG)}) for place in places]
        exchanges = [lease.ready(lambda: None) for lease in leases]
        for exchange in exchanges:
            exchange.begin({"conds": CONDS})
        report = RunReport("", ["here"])
        setting = Setting(fixed("pipeline", k=9), sigmas(STEPS).tolist(), 3.0, openings=central_openings)
        engine = Engine(exchanges, report, setting)
        units, t, x = [Unit(branch, 0) for branch in range(branches)], sigmas(STEPS), NOISE
        with torch.inference_mode():
            for i in range(STEPS):
                sigma = t[i].expand(2)
                if i == 8 and fault == "dead":
                    exchanges[victim].process.stop(0.0)
                if i == 8 and fault == "stuck":
                    os.kill(exchanges[victim].process.pid, signal.SIGSTOP)
                    stopped_at = time.perf_counter()
                here = here_of(network, x, sigma)
                done = engine.step(x, sigma, units, here, no_weight)
                if works_of(engine)[i] == "exact":
                    for branch in range(branches):
                        exact = network.predict(x, sigma, [(branch, 0)])[0]
                        assert (done[branch] - exact).abs().max() < 1e-5
                x = x + (x - done[0]) / sigma[0] * (t[i + 1] - t[i])
        assert works_of(engine)[5:8] != ["exact"] * 3 and set(works_of(engine)[10:]) == {"exact"}
        assert any(" out: " in text for text in report.lines)
        assert [exchange for exchange in exchanges if exchange not in engine.exchanges] == [exchanges[victim]]
        if fault == "stuck":
            assert exchanges[victim].lost_at - stopped_at < 12.0
    finally:
        pool.close()


@pytest.mark.parametrize("at", [1, 3])  # while the blocks are timed, and after the network was cut
@pytest.mark.parametrize("mode", ["pipeline", "exact"])
def test_a_worker_that_dies_in_an_exact_step(network, mode, at):
    pool = Pool("demo", lambda place: {"threads": 1})
    try:
        place = Place("cpu#0", "cpu (process 2)", "cpu")
        exchange = pool.prepare(place, CPU, {"config": dataclasses.asdict(CONFIG)}).ready(lambda: None)
        exchange.begin({"conds": CONDS})
        engine = Engine(
            [exchange], RunReport("", ["here"]), Setting(fixed(mode), sigmas(STEPS).tolist(), openings=central_openings)
        )
        with torch.inference_mode():
            for i in range(STEPS):
                sigma = sigmas(STEPS)[i].expand(2)
                if i == at:
                    if engine.team.pacing:
                        engine.team.pacing.paces = [1.0, 1.5]  # found unequal
                    exchange.process.stop(0.0)
                here = here_of(network, NOISE, sigma)
                done = engine.step(NOISE, sigma, [Unit(0, 0), Unit(1, 0)], here, no_weight)
                for branch in (0, 1):
                    exact = network.predict(NOISE, sigma, [(branch, 0)])[0]
                    assert (done[branch] - exact).abs().max() < 1e-5
        assert set(works_of(engine)) == {"exact"}
    finally:
        pool.close()


@pytest.mark.parametrize(("count", "branches"), [(1, 2), (1, 1)])
def test_a_worker_that_dies_where_a_step_has_several_calls(network, count, branches):
    pool = Pool("demo", lambda place: {"threads": 1})
    try:
        place = Place("cpu#0", "cpu (process 2)", "cpu")
        exchange = pool.prepare(place, CPU, {"config": dataclasses.asdict(CONFIG)}).ready(lambda: None)
        exchange.begin({"conds": CONDS})
        setting = Setting(fixed("pipeline", k=9), sigmas(STEPS).tolist(), 3.0, openings=central_openings)
        engine, t = Engine([exchange], RunReport("", ["here"]), setting), sigmas(STEPS)
        units = [Unit(branch, 0) for branch in range(branches)]
        with torch.inference_mode():
            for i in range(STEPS - 1):
                if i == 8:
                    assert set(works_of(engine)[5:]) == {"alternating" if branches == 2 else "pipeline"}
                    exchange.process.stop(0.0)
                for sigma in (t[i].expand(2), ((t[i] + t[i + 1]) / 2).expand(2)):  # as dpm_2 calls
                    done = engine.step(NOISE, sigma, units, here_of(network, NOISE, sigma), no_weight)
                    if engine.report.steps[-1].work == "exact":  # a result that was on its way may still be used
                        for branch in range(branches):
                            exact = network.predict(NOISE, sigma, [(branch, 0)])[0]
                            assert (done[branch] - exact).abs().max() < 1e-5
        assert {record.work for record in engine.report.steps[18:]} == {"exact"}
    finally:
        pool.close()


@pytest.mark.parametrize("at", [2, 4, 8])  # while the blocks are timed, after the cut, in the stage
@pytest.mark.parametrize(("count", "branches", "victim"), [(1, 2, 0), (3, 2, 2), (3, 2, 0), (1, 1, 0)])
def test_a_worker_that_is_asked_for_nothing_more(network, workers, count, branches, victim, at):
    """One that cannot take changed conditioning is left out in mid-run; it lives on.

    With three, the first leads a group: the second then has an inner result on its way here, and is asked for a branch.
    """
    exchanges = workers(count)
    setting = Setting(fixed("pipeline", k=9), sigmas(STEPS).tolist(), 3.0, openings=central_openings)
    engine = Engine(exchanges, RunReport("", ["here"]), setting)
    with torch.inference_mode():
        for i in range(STEPS):
            sigma = sigmas(STEPS)[i].expand(2)
            if i == at:
                engine.remove(exchanges[victim])
            here = here_of(network, NOISE, sigma)
            done = engine.step(NOISE, sigma, [Unit(branch, 0) for branch in range(branches)], here, no_weight)
            if works_of(engine)[i] == "exact":
                for branch in range(branches):
                    exact = network.predict(NOISE, sigma, [(branch, 0)])[0]
                    assert (done[branch] - exact).abs().max() < 1e-5
    if at > 2 or count == 1:
        assert set(works_of(engine)[at:]) == {"exact"}
    assert all(exchange.alive() for exchange in exchanges)


def test_times_stay_with_their_device_when_another_is_left_out(network, workers):
    exchanges = workers(2)
    setting = Setting(HybridPlan(mode="exact"), sigmas(STEPS).tolist(), 3.0)
    engine = Engine(exchanges, RunReport("", ["here"]), setting)
    with torch.inference_mode():
        for i in range(4):
            sigma = sigmas(STEPS)[i].expand(2)
            if i == 2:
                engine.remove(exchanges[0])
            here = here_of(network, NOISE, sigma)
            engine.step(NOISE, sigma, [Unit(branch, 0) for branch in range(3)], here, no_weight)
    assert [record.lanes for record in engine.report.steps] == [[0, 1, 2]] * 2 + [[0, 2]] * 2


def test_groups_and_modes():
    one, two, three = "abc"
    groups = form_groups([one, two, three], {0: 1.0, 1: 1.0})
    assert groups == [Group([0], None, [two]), Group([1], one, [three])]
    groups = form_groups([one, two, three, "d"], {0: 1.0, 1: 5.0})
    assert groups == [Group([0], None, [two]), Group([1], one, [three, "d"])]
    groups = form_groups([one, two], {0: 5.0, 1: 1.0})
    assert groups == [Group([0], None, [two]), Group([1], one, [])]
    auto = HybridPlan()
    assert mode_for(auto, 20) == "predict" and mode_for(auto, 7) == "exact"
    assert mode_for(HybridPlan(preset="exact only"), 50) == "exact"


@pytest.mark.parametrize(
    "first_order, steps, cfg, weight",
    [
        (True, 45, 7.5, 1.0), (True, 20, 7.5, 2.25), (True, 20, 1.0, 1.0), (True, 3, 1.0, 1.0),
        (False, 45, 7.5, 3.5), (False, 20, 5.0, 5.25), (False, 20, 1.0, 3.5),
    ],
)  # fmt: skip
def test_what_a_step_is_off_weighs_more_with_few_steps_for_the_guidance(first_order, steps, cfg, weight):
    setting = Setting(HybridPlan(), sigmas(steps).tolist(), cfg, first_order=first_order)
    assert setting.weight == pytest.approx(weight)


def test_the_weight_follows_guidance_that_is_raised_on_the_way(network):
    engine = Engine([], RunReport("", ["here"]), Setting(HybridPlan(), sigmas(20).tolist(), 1.0, first_order=True))
    weights = []
    with torch.inference_mode():
        for sigma, cfg in zip(sigmas(20)[:3], (1.0, 7.5, 7.5)):
            engine.guided(cfg)
            sigma = torch.full((2,), float(sigma))
            here = here_of(network, NOISE, sigma)
            engine.step(NOISE, sigma, [Unit(0, 0), Unit(1, 0)], here, no_weight)
            weights.append(engine.schedule.weight)
    assert weights == pytest.approx([1.0, 2.25, 2.25])
