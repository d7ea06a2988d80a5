"""What a GPU takes for its part of a forward that two divide by tokens, and for the exchange: measured on one GPU.

    python benchmarks/gpu_tokens.py [--models flux qwen_image wan_14b z_image] [--repeats 5] [--json FILE]
    python benchmarks/gpu_tokens.py --device cpu --small      # tiny networks, to try the script out

Networks of the true sizes with random weights (gpu.py); one that does not fit is made with fewer blocks, and its times
and bytes are scaled up by their number. A part is computed against a stand-in for the other device that has answered
already: its time has no waiting in it. Keys and values of the true sizes then cross between this process and a real
worker on the same GPU, both ways at once. Two GPUs are PROJECTED from that (gpu_token_rows.py).
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.block import heading
from benchmarks.gpu import SEED, Bench, arguments
from benchmarks.gpu_networks import SIZES, SMALL_BY_TOKENS, TITLES, TRUE_BY_TOKENS, depth, shallower
from benchmarks.gpu_token_rows import render, scaled
from benchmarks.inside import run_on_device

HALF = (0, 2048, 4096)  # bounds of two equal parts, in SHARES
PARTS = (1, 2, 4, 8)  # one in so many of the blocks is made, where more do not fit
CROSSINGS = 12  # attentions whose keys and values cross; the first two are not counted


class Answered:
    """A Way to a device that has sent all already: what is received lies on this device. Counts both ways' bytes."""

    def __init__(self, device):
        self.device, self.sent, self.received = device, 0, 0
        self._kept: dict[tuple, object] = {}

    def stow(self, tensors: Sequence) -> list:
        self.sent += sum(tensor.nbytes for tensor in tensors)
        return [tensor.contiguous() for tensor in tensors]

    def send(self, stowed: object) -> None:
        from hybridiff_pack.hybridiff_core.waiting import wait_for

        wait_for(self.device)  # as a channel does

    def expect(self, parts: Sequence) -> Sequence:
        return parts

    def receive(self, expected: Sequence) -> list:
        found = [self._tensor(tuple(shape), dtype) for shape, dtype in expected]
        self.received += sum(tensor.nbytes for tensor in found)
        return found

    def release(self, expected: object) -> None:
        pass

    def _tensor(self, *key):
        import torch

        if key not in self._kept:
            shape, dtype = key
            self._kept[key] = torch.zeros(shape, dtype=dtype, device=self.device)
        return self._kept[key]


class Attention:
    """An override of the host's attention that times the calls over at least `tokens` keys."""

    def __init__(self, device, tokens: int):
        self.device, self.tokens = device, tokens
        self._marks: list[tuple] = []

    def __call__(self, function, *args, **kwargs):
        k = args[1]
        if k.shape[2 if kwargs.get("skip_reshape") else 1] < self.tokens:
            return function(*args, **kwargs)
        before = self._mark()
        found = function(*args, **kwargs)
        self._marks.append((before, self._mark()))
        return found

    def seconds(self) -> list[float]:
        """Of each call since this was last asked."""
        import torch

        marks, self._marks = self._marks, []
        if self.device.type != "cuda":
            return [after - before for before, after in marks]
        torch.cuda.synchronize(self.device)
        return [before.elapsed_time(after) / 1e3 for before, after in marks]

    def _mark(self):
        import torch

        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


class Tokens(Bench):
    """One device that computes half of the tokens, and a worker that has the other half."""

    def __init__(self, options: argparse.Namespace, host):
        super().__init__(options, host)
        self.families = dict(SMALL_BY_TOKENS if options.small else TRUE_BY_TOKENS)
        self._full = dict(self.families)

    def forward(self, name: str):
        """A forward of the network, whole or through a Look or Shard; `attention` takes the host's place."""
        network, dtype = self.network(name)
        _offer_blocks(network, self.host)
        torch, family, splitter = self.torch, self.families[name], self.host.cuts.splitter_for(network)
        random = {"device": self.device, "dtype": dtype}
        x = torch.randn(family.latent, **random)
        words = torch.randn(1, family.text["tokens"], family.text["width"], **random)
        more = {"num_tokens": words.shape[1]}  # Z-Image's asks for it, others take no notice
        if family.text["pooled"]:
            more |= {"y": torch.zeros(1, family.text["pooled"], **random)}
        if "guidance" in family.extra:
            more |= {"guidance": torch.full((1,), family.extra["guidance"], **random)}
        sigma = torch.full((1,), 0.7, device=self.device)

        def run(through=None, attention: Attention | None = None):
            given = {"optimized_attention_override": attention} if attention else {}
            options = {"transformer_options": given}
            if through is not None:
                options = self.host.cuts.hooked(options, splitter, through)
            return network(x, sigma, context=words, transformer_options=options["transformer_options"], **more)

        return run

    def divided(self, name: str) -> dict:
        """Times of a whole forward and of one device's part of two, and the bytes that cross. Raises ValueError."""
        from hybridiff_pack.hybridiff_core.network.tokens import Look, Shard

        forward, look = self.forward(name), Look()
        forward(look)
        form = look.form
        if form is None:
            raise ValueError(look.reason)
        attention, way, first_halves = Attention(self.device, form.tokens), Answered(self.device), []

        def part(halves: int, attention: Attention | None = None) -> None:
            forward(Shard(form, 0, HALF, [None, way], halves), attention)

        part(1)
        sent, received = way.sent, way.received
        times = {
            "whole_s": self.seconds(forward), "part_s": self.seconds(lambda: part(1)),
            "halves_s": self.seconds(lambda: part(2)),
        }  # fmt: skip
        for _ in range(self.options.repeats):
            part(2, attention)
            taken = attention.seconds()
            first_halves.append(sum(taken[::2]) if len(taken) == 2 * len(form.attends) else 0.0)
        counted = {**times, "first_half_s": median(first_halves), "sent": sent, "received": received}
        counted |= {"attends": len(form.attends)}
        a_token = form.bytes_a_token // len(form.attends)
        blocks, made = depth(self._full[name]), depth(self.families[name])
        return {**scaled(counted, made, blocks), "tokens": form.tokens, "a_token": a_token}

    def crossing(self, tokens: int, a_token: int) -> list[tuple[str, float]]:
        """Seconds for an attention's keys and values to and from a worker, by the kind of channel; by sockets last."""
        from hybridiff_pack.hybridiff_core.workers import token_links
        from hybridiff_pack.hybridiff_core.workers.pool import Pool

        dtype = "float32" if self.device.type == "cpu" else "bfloat16"
        width = a_token // 2 // getattr(self.torch, dtype).itemsize
        sizes = {"h": [[1]], "z": [[1]], "dtype": dtype, "tokens": tokens, "width": width, "attends": CROSSINGS}
        pool = Pool("demo", lambda place: {"threads": 1})
        try:
            worker = pool.prepare(self.place, self.device, {"sizes": sizes}).ready(lambda: None)
            worker.begin({"conds": [self.torch.zeros(1, 1, 1)]})
            found = [self._cross(worker, sizes, a_token)]
            if found[0][0] != "sockets":
                with mock.patch.object(token_links, "first_memory", lambda each_way: None):
                    found.append(self._cross(worker, sizes, a_token))
            return found
        finally:
            pool.close()

    def _cross(self, worker, sizes: dict, a_token: int) -> tuple[str, float]:
        from hybridiff_pack.hybridiff_core.call import Call
        from hybridiff_pack.hybridiff_core.demo.sizes import Sizes
        from hybridiff_pack.hybridiff_core.network.tokens import Form
        from hybridiff_pack.hybridiff_core.share import Unit
        from hybridiff_pack.hybridiff_core.token_group import TokenGroup
        from hybridiff_pack.hybridiff_core.waiting import wait_for

        torch, units, taken, local = self.torch, [Unit(0, 0)], [], Sizes(**sizes)
        x, sigma = torch.zeros(1, 1, 1, device=self.device), torch.ones(1, device=self.device)

        def here(units, shard, rows):
            exchange = shard.exchange

            def timed(*given):
                wait_for(self.device)
                since = time.perf_counter()
                yield from exchange(*given)
                wait_for(self.device)
                taken.append(time.perf_counter() - since)

            shard.exchange = timed
            return {0: local.denoise(x, sigma, None, shard)}

        call = Call(x, sigma, units, here, None)
        form = Form(1, tuple(range(CROSSINGS)), sizes["tokens"], 0, a_token * CROSSINGS)
        group = TokenGroup([None, worker], self.device)
        try:
            group.submit(call, units, form, HALF)
            group.own(call)
            channel = group._links.channels[worker]
            kind = "shared memory" + ", pinned" * channel.pinned if channel.room else "sockets"
            group.collect()
        finally:
            group.abandon()
        return kind, median(taken[2:])

    def one(self, name: str) -> None:
        """All of one model."""
        size = "tiny" if self.options.small else SIZES[name]
        where, found = {"model": TITLES[name], "size": size}, None
        for part in PARTS:
            self.families[name] = shallower(self._full[name], part)
            with contextlib.suppress(self.torch.cuda.OutOfMemoryError):
                found = self.divided(name)
            gc.collect()
            if self.device.type == "cuda":
                self.torch.cuda.empty_cache()
            if found:
                break
        if found is None:
            self.leave_out(f"{TITLES[name]}: not even one in {PARTS[-1]} of its blocks fits in the GPU's memory")
            return
        attends, tokens, a_token = (found.pop(key) for key in ("attends", "tokens", "a_token"))
        self.add("forward", **where, **found)
        for channel, seconds in self.crossing(tokens, a_token):
            self.add(
                "crossing", **where, channel=channel, bytes=(tokens - tokens // 2) * a_token, seconds=seconds,
                forward_s=seconds * attends, on=self.place.label,
            )  # fmt: skip


def _offer_blocks(network, host) -> None:
    """Let the network ask the block hook, as a model's patcher does."""
    import comfy.utils
    import torch

    holder = torch.nn.Module()
    holder.diffusion_model = network
    patcher = SimpleNamespace(model=holder, object_patches={})
    patcher.add_object_patch = patcher.object_patches.__setitem__
    host.block_hooks.offer(patcher)
    for key, value in patcher.object_patches.items():
        comfy.utils.set_attr(holder, key, value)


def measure(options: argparse.Namespace, host) -> None:
    bench = Tokens(options, host)
    for name in options.models:
        try:
            bench.one(name)
        except Exception as error:  # noqa: BLE001 - the other models are measured all the same
            traceback.print_exc()
            bench.leave_out(f"{TITLES[name]}: it failed ({type(error).__name__}: {error})")
    print(f"{heading(SEED)}\n\n{render({'rows': bench.rows})}")


if __name__ == "__main__":
    run_on_device(arguments(__doc__, list(TRUE_BY_TOKENS)).parse_args(), measure)
