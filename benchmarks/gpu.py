"""What a GPU takes for the parts of a shared step, and what sharing brings: measured on two GPUs, projected on one.

    python benchmarks/gpu.py [--models sdxl sd3 wan] [--sizes 1024 1536 2048 2560] [--repeats 5] [--json FILE]
    python benchmarks/gpu.py --device cpu --small      # tiny networks, to try the script out

Networks of the true sizes with random weights, made on the device by ComfyUI's own classes. Forwards of batch 2
and 1, of the cut's outer and inner part; messages to a worker and back, with an idle main thread and while it launches
kernels, and the worker's start. With two GPUs each mode is
timed through real workers (the models are then written to a file, which a worker reads). With one, the speed-up of
two is PROJECTED from those parts and was not measured; what predicted steps bring on that one GPU is measured, at the
first size of each model. Wan has its own sizes: 480p and 720p, of 33 and 81 frames. Forwards divided by tokens are
gpu_tokens.py's.
"""

from __future__ import annotations

import argparse
import importlib
import math
import statistics
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

PACK = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACK))
from benchmarks.block import heading, keep  # noqa: E402
from benchmarks.gpu_networks import DTYPES, SMALL, TITLES, TRUE  # noqa: E402
from benchmarks.gpu_rows import bound, projection, render  # noqa: E402
from benchmarks.inside import run_on_device  # noqa: E402
from tests.host.comfy_server import MODELS  # noqa: E402
from tests.host.families import conditioning, load, weights  # noqa: E402

STEPS, START, K = 50, 15, 10  # of the runs that are timed or projected
ALONE_START, ALONE_K = 10, 38  # of those on one GPU: predicted steps are all that helps there
MODES = ("exact", "predict", "pipeline", "auto")
SMALL_STEPS = (8, 3, 4)
SMALL_ALONE = (3, 4)
VIDEOS = {"480p": (480, 832), "720p": (720, 1280)}
SEED = 0
OPERATIONS = 20  # between two looks for an answer


class Bench:
    """One device with its networks, and a worker."""

    def __init__(self, options: argparse.Namespace, host):
        import torch
        from hybridiff_pack.hybridiff_core.workers.devices import places

        self.torch, self.host, self.options = torch, host, options
        gpu = options.device == "cuda"
        self.device = torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")
        others = places(["auto"], self.device)[0] if gpu else []
        (self.place, *_) = others or places(["same"], self.device)[0]
        self.measured, self.projected = bool(others) or options.device == "cpu", not others
        self.families = SMALL if options.small else TRUE
        self.rows: list[dict] = []
        self.steps, self.start, self.k = SMALL_STEPS if options.small else (STEPS, START, K)

    def add(self, part: str, **row) -> None:
        self.rows.append({"part": part, **row})
        print(part, row, file=sys.stderr, flush=True)
        keep(self.options.json, self.rows, SEED)  # kept as they come

    def leave_out(self, line: str) -> None:
        self.add("left out", line=f"Left out: {line}.")

    def seconds(self, call) -> float:
        """The median of `repeats` calls after two to warm up."""
        taken = []
        for _ in range(self.options.repeats + 2):
            if self.device.type == "cuda":
                started, ended = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
                started.record()
                call()
                ended.record()
                self.torch.cuda.synchronize(self.device)
                taken.append(started.elapsed_time(ended) / 1e3)
            else:
                since = time.perf_counter()
                call()
                taken.append(time.perf_counter() - since)
        return statistics.median(taken[2:])

    def network(self, name: str):
        """The network of a model, with random weights, on the device."""
        import comfy.ops

        torch, family = self.torch, self.families[name]
        module, cls = family.network.split(":")
        dtype = torch.float32 if self.device.type == "cpu" else getattr(torch, DTYPES[name])
        make = {"device": self.device, "dtype": dtype, "operations": comfy.ops.disable_weight_init}
        network = getattr(importlib.import_module(module), cls)(**family.config, **make).eval()
        torch.manual_seed(SEED)
        for parameter in network.parameters():
            parameter.data.normal_(std=1 / math.sqrt(parameter[0].numel()) if parameter.ndim > 1 else 0.02)
        for buffer in network.buffers():
            if buffer.is_floating_point() and buffer.ndim == 3:  # SD3's pos_embed, which a file would fill
                buffer.normal_(std=0.1)
        return network, dtype

    def shapes(self, name: str) -> dict[str, tuple[int, ...]]:
        """The latents' shapes by the sizes' names."""
        channels = self.families[name].latent[1]
        if name != "wan":
            return {f"{size}": (1, channels, size // 8, size // 8) for size in self.options.sizes}
        if self.options.small:
            return {"tiny video": (1, channels, 3, 8, 8)}
        return {
            f"{title}, {frames} frames": (1, channels, (frames - 1) // 4 + 1, height // 8, width // 8)
            for title, (height, width) in VIDEOS.items()
            for frames in (33, 81)
        }

    def parts(self, name: str, network, dtype, latent: tuple[int, ...]) -> tuple[dict, tuple]:
        """Times of a forward's parts, and the state that crosses."""
        from hybridiff_pack.hybridiff_core.network.split import Cut, Inner, Outer, Pass, Reached, Whole, balance

        torch, family = self.torch, self.families[name]
        splitter = self.host.cuts.splitter_for(network)
        tokens, width, pooled = family.text["tokens"], family.text["width"], family.config.get("adm_in_channels")
        random = {"device": self.device, "dtype": dtype}

        def forward(batch: int, through: Pass | None = None):
            more = {"y": torch.zeros(batch, pooled, **random)} if pooled else {}
            hooks = splitter.hooks(through) if through else {}
            return network(
                torch.ones(batch, *latent[1:], **random), torch.full((batch,), 500.0, device=self.device),
                context=torch.ones(batch, tokens, width, **random), transformer_options=hooks, **more,
            )  # fmt: skip

        whole = {"two_s": self.seconds(lambda: forward(2)), "one_s": self.seconds(lambda: forward(1))}
        settle = (lambda: torch.cuda.synchronize(self.device)) if self.device.type == "cuda" else (lambda: None)
        for _ in range(2):  # the first shows the splitter what its blocks change
            timed = Whole(settle=settle)
            forward(1, timed)
        openings = splitter.openings(len(timed.times), 1)
        rest = max(whole["one_s"] - sum(timed.times), 0.0)
        found = balance([timed.times] * 2, rest, openings)
        if found is None:
            raise ValueError("the network cannot be cut")
        cut: Cut = found[0]
        exact, states = Whole(cut), []
        forward(1, exact)

        def outer() -> None:
            forward(1, Outer(cut, lambda: exact.z, lambda h: states.append(tuple(part.clone() for part in h))))
            del states[1:]

        def inner() -> None:
            try:
                forward(1, Inner(cut.first, cut.segments[0], states[0]))
            except Reached:
                return
            raise AssertionError("the inner part did not end")

        whole |= {"outer_s": self.seconds(outer), "inner_s": self.seconds(inner)}
        return {**whole, "cut": list(cut.bounds), "blocks": len(timed.times)}, max(states[0], exact.z, key=size_of)

    def worker(self) -> None:
        """A ComfyUI worker's start."""
        from hybridiff_pack.hybridiff_core.workers.exchange import Exchange
        from hybridiff_pack.hybridiff_core.workers.launch_local import WorkerProcess

        taken = []
        for _ in range(min(self.options.repeats, 3)):
            since = time.perf_counter()
            exchange = Exchange(WorkerProcess("comfy", self.place), self.place, self.device)
            try:
                exchange.open(self.host.leases.pool().start(self.place))
                taken.append(time.perf_counter() - since)
            finally:
                exchange.close()
        self.add("worker", on=self.place.label, seconds=statistics.median(taken))

    def echo(self):
        """A worker that sends back what it is given, and the pool that holds it."""
        from hybridiff_pack.hybridiff_core.workers.pool import Pool

        pool = Pool("demo", lambda place: {"threads": 1})
        sizes = {"h": [[1]], "z": [[1]], "dtype": "float32"}
        exchange = pool.prepare(self.place, self.device, {"sizes": sizes}).ready(lambda: None)
        exchange.begin({"conds": [self.torch.zeros(1, 1, 1)]})
        return exchange, pool

    def exchange(self, worker, tensors, **where) -> float:
        """Seconds for `tensors` to the worker and back, as a step's go, while kernels are launched."""
        from hybridiff_pack.hybridiff_core.share import Unit

        message = self.torch.cat([tensor.reshape(1, -1) for tensor in tensors], 1)
        sigma = self.torch.ones(1, device=self.device)

        small = self.torch.ones(64, device=self.device)

        def there_and_back(busy: bool) -> float:
            since = time.perf_counter()
            worker.submit(message, sigma, [Unit(0, 0)])
            while busy and not worker.answered():  # as a forward does: Python's lock is taken and given all the time
                for _ in range(OPERATIONS):
                    small.mul(0.5)
            worker.collect()
            if self.device.type == "cuda":
                self.torch.cuda.synchronize(self.device)
            return time.perf_counter() - since  # by the clock: most of it is not the GPU's time

        taken = [(there_and_back(False), there_and_back(True)) for _ in range(self.options.repeats + 2)]
        idle, busy = (statistics.median(times) for times in zip(*taken[2:]))
        way = ("shared memory" if worker.channel.room else "sockets") + ", pinned" * worker.channel.pinned
        self.add(
            "exchange", **where, bytes=message.nbytes, seconds=idle, busy_s=busy, channel=way, on=self.place.label
        )  # fmt: skip
        return busy

    def sampler(self, name: str, latent: tuple[int, ...]):
        """A run of the host's sampler on a model: its seconds."""
        import comfy.sample

        torch, family = self.torch, self.families[name]
        noise = torch.randn(latent, generator=torch.Generator().manual_seed(SEED))
        texts = [conditioning(family, seed) for seed in (1, 2)]

        def run(model) -> float:
            since = time.perf_counter()
            comfy.sample.sample(
                model, noise, self.steps, 5.0, "euler", "normal", *texts, torch.zeros_like(noise), seed=SEED,
                disable_pbar=True,
            )  # fmt: skip
            return time.perf_counter() - since

        return run

    def side_by_side(self, model, run, mode: str, start: int, k: int, device: str) -> tuple[float, float, object]:
        """Seconds of the stock sampler and of ours, in turn, and our last report."""
        from hybridiff_pack.hybridiff_core.plan import HybridPlan

        plan = HybridPlan(mode=mode, warmup="fixed", start_step=start, parallel_steps=k)
        acceleration = self.host.acceleration.Acceleration(plan, (device,))
        run(acceleration.apply(model))  # the worker starts and reads the model
        stock, ours = [], []
        for _ in range(max(self.options.repeats // 2, 1)):
            stock.append(run(model))
            ours.append(run(acceleration.apply(model)))
        return statistics.median(stock), statistics.median(ours), acceleration.report

    def alone(self, name: str, size: str, latent: tuple[int, ...], network) -> None:
        """What this one device gains, and loses, without a worker."""
        import comfy.sd

        start, k = SMALL_ALONE if self.options.small else (ALONE_START, ALONE_K)
        model, run = comfy.sd.load_diffusion_model_state_dict(network.state_dict()), self.sampler(name, latent)
        run(model)
        for mode, limit in (("exact", 1.0), ("predict", self.steps / (self.steps - k // 2))):
            stock, ours, report = self.side_by_side(model, run, mode, start, k, "auto")
            predicted = [step.work for step in report.steps].count("predicted")
            if predicted != (k // 2 if mode == "predict" else 0):
                raise AssertionError(f"{mode}: {predicted} of {k} steps were predicted: {report.lines}")
            self.add(
                "alone", model=TITLES[name], size=size, mode=mode, k=0 if mode == "exact" else k, steps=self.steps,
                stock_s=stock, ours_s=ours, speed_up=stock / ours, bound=limit,
            )  # fmt: skip

    def speed_ups(self, name: str, size: str, latent: tuple[int, ...]) -> None:
        """Each mode through a real worker against one device; runs of the two alternate."""
        from safetensors.torch import save_file

        family = self.families[name]
        path = MODELS / family.kind / f"gpu_{name}{'_small' * self.options.small}.safetensors"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(weights(name, family), path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
        model, run = load(str(path), family), self.sampler(name, latent)
        run(model)
        helper = "same" if self.device.type == "cpu" else "auto"
        for mode in MODES:
            one, two, report = self.side_by_side(model, run, mode, self.start, self.k, helper)
            alone = sum(not step.helpers and step.work != "predicted" for step in report.steps)
            if alone:  # a time with a lost worker in it says nothing
                lines = "; ".join(report.lines)
                self.leave_out(f"{TITLES[name]}, {size}, {mode}: {alone} steps were not shared ({lines})")
                continue
            # of two devices at CFG above 1 auto is predict
            of = bound({"auto": "predict"}.get(mode, mode), self.steps, self.k)
            self.add(
                "measured", model=TITLES[name], size=size, mode=mode, k=0 if mode == "exact" else self.k,
                steps=self.steps, one_s=one, two_s=two, speed_up=one / two, bound=of, on=self.place.label,
            )  # fmt: skip

    def project(self, name: str, size: str, parts: dict, latent_s: float, features_s: float) -> None:
        for mode in ("exact", "predict", "pipeline"):
            self.add(
                "projected", model=TITLES[name], size=size, mode=mode, k=0 if mode == "exact" else self.k,
                steps=self.steps, bound=bound(mode, self.steps, self.k),
                speed_up=projection(mode, self.steps, self.k, parts, latent_s, features_s),
            )  # fmt: skip

    def one(self, name: str) -> None:
        """All of one model."""
        torch = self.torch
        try:
            network, dtype = self.network(name)
        except torch.cuda.OutOfMemoryError:
            self.leave_out(f"{TITLES[name]}: its weights do not fit in the GPU's memory")
            return
        worker, pool = self.echo()
        fitting = []
        try:
            for size, latent in self.shapes(name).items():
                where = {"model": TITLES[name], "size": size}
                try:
                    parts, state = self.parts(name, network, dtype, latent)
                    self.add("forward", **where, **parts)
                    x = torch.zeros(latent, device=self.device, dtype=torch.float32)  # as the sampler has it
                    latent_s = self.exchange(worker, [x], what="latent", **where)
                    features_s = self.exchange(worker, state, what="features", **where)
                except torch.cuda.OutOfMemoryError:
                    torch.cuda.empty_cache()
                    self.leave_out(f"{TITLES[name]}, {size}: it does not fit in the GPU's memory")
                    continue
                fitting.append((size, latent))
                if self.projected:
                    self.project(name, size, parts, latent_s, features_s)
        finally:
            pool.close()
        if self.projected and fitting:
            self.alone(name, *fitting[0], network)
        del network
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        for size, latent in fitting if self.measured else ():
            try:
                self.speed_ups(name, size, latent)
            except torch.cuda.OutOfMemoryError:
                self.leave_out(f"{TITLES[name]}, {size}, speed-up: it does not fit in the GPU's memory")


def size_of(state) -> int:
    return sum(tensor.nbytes for tensor in state)


def measure(options: argparse.Namespace, host) -> None:
    bench = Bench(options, host)
    bench.worker()
    for name in options.models:
        try:
            bench.one(name)
        except (RuntimeError, ValueError, AssertionError) as error:  # hours of rows may come before it
            traceback.print_exc()
            bench.leave_out(f"{TITLES[name]}: it failed ({type(error).__name__}: {error})")
    print(f"{heading(SEED)}\n\n{render({'rows': bench.rows})}")


def arguments(about: str, models: Sequence[str]) -> argparse.ArgumentParser:
    """What this script and gpu_tokens.py are given; `about` is their docstring."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(models), choices=list(models))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--small", action="store_true", help="tiny networks, to try the script out")
    return parser


def main() -> None:
    parser = arguments(__doc__, list(TRUE))
    parser.add_argument("--sizes", nargs="+", type=int, help="pixels; 1024 1536 2048 2560 unless given")
    options = parser.parse_args()
    options.sizes = options.sizes or ([64] if options.small else [1024, 1536, 2048, 2560])
    run_on_device(options, measure)


if __name__ == "__main__":
    main()
