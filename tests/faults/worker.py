"""A worker process that does what the real one does, until it is told to fail. Started in the real one's place.

What to do stands in the file that HYBRIDIFF_FAULT names: {"fault", "moment", "sigma", "exchange"}; the last is at which
exchange of tokens, where the moment is "block". The moment at which it is done is written beside it, in seconds of this
machine's clock.
"""

import collections
import json
import os
import resource
import runpy
import signal
import struct
import time
from pathlib import Path

INSTRUCTION = Path(os.environ["HYBRIDIFF_FAULT"])


def due(moment: str, sigma: float = 0.0, exchange: int = 0) -> str | None:
    """The fault for this moment, if there is one; it happens once."""
    try:
        told = json.loads(INSTRUCTION.read_text())
    except OSError:
        return None
    if told["moment"] != moment or told["exchange"] != exchange:
        return None
    if moment in ("step", "block") and sigma > told["sigma"] + 1e-6:
        return None
    INSTRUCTION.rename(INSTRUCTION.with_suffix(".done"))
    INSTRUCTION.with_suffix(".at").write_text(repr(time.perf_counter()))
    return told["fault"]


def out_of_memory() -> None:
    """A real one: the address space is held at what it is, and a forward wants more."""
    import torch

    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (32 << 20),) * 2)
    torch.empty(1 << 30, dtype=torch.uint8).fill_(1)


def do(fault: str | None) -> str | None:
    """Fail at once where that is the fault; else say what has to be spoilt later."""
    match fault:
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "exception":
            raise RuntimeError("a forward that fails, for a test")
        case "out of memory":
            out_of_memory()
        case "corrupt" | "short" | "wrong step":
            return fault
    return None


if __name__ == "__main__":
    worker_script = Path(__file__).resolve().parents[2] / "nodes" / "host" / "worker.py"
    runpy.run_path(str(worker_script))["enter"](__file__)

    from hybridiff_pack.hybridiff_core.workers import channel, frames, worker

    spoilt: list[str] = []  # what to spoil in the next thing that is sent
    write, send = frames.FramePipe.write, channel.Channel.send

    def spoil_frame(self, frame: bytes) -> None:
        op = json.loads(frame[4:])["op"]
        if not spoilt or op not in ("ready", "reply"):
            return write(self, frame)
        match spoilt.pop():
            case "corrupt":
                frame = struct.pack("<I", 40) + os.urandom(40)
            case "short":
                frame = frame[: len(frame) // 2]
            case "wrong step":
                told = {**json.loads(frame[4:]), "id": 1 << 30, "op": "reply"}
                frame = frames.FramePipe.pack(told)
        return write(self, frame)

    def spoil_message(self, tensors, *limit):
        if not spoilt:
            return send(self, tensors, *limit)
        match spoilt.pop():
            case "corrupt":
                self._end.sendall(os.urandom(4096))
                return 0
            case "short":
                tensors = tensors[:1]
            case "wrong step":
                tensors = [tensors[0] + torch.tensor([1, 0, 0, 0]), *tensors[1:]]
        return send(self, tensors, *limit)

    frames.FramePipe.write, channel.Channel.send = spoil_frame, spoil_message

    from hybridiff_pack.hybridiff_core.network.tokens import Shard

    exchange, shards = Shard.exchange, collections.Counter()
    sigma_now = [0.0]

    def fail_in_block(self, pairs, dim, n):
        spoilt.extend(filter(None, [do(due("block", sigma_now[0], shards[id(self)]))]))
        shards[id(self)] += 1
        return exchange(self, pairs, dim, n)

    Shard.exchange = fail_in_block
    import torch

    def make_backend(start: dict):
        from hybridiff_pack.nodes.host.headless import enter

        enter(start)
        from hybridiff_pack.nodes.host.backend import ComfyBackend

        class Failing(ComfyBackend):
            def load(self, recipe):
                loaded = super().load(recipe)
                spoilt.extend(filter(None, [do(due("load"))]))
                return loaded

            def predict(self, x, sigma, units, through=None, rows=None):
                sigma_now[0] = float(sigma[0])
                shards.clear()
                spoilt.extend(filter(None, [do(due("step", sigma_now[0]))]))
                return super().predict(x, sigma, units, through, rows)

        backend = Failing(start)
        spoilt.extend(filter(None, [do(due("start"))]))
        return backend

    worker.serve(make_backend)
