"""A demo worker whose device fails as its start frame says. Run in the real one's place, by its path."""

import os
import signal
import sys
import time

if __name__ == "__main__":
    from core_alone import register

    register()

    import torch

    from hybridiff_core.demo.demo_backend import DemoBackend
    from hybridiff_core.workers.worker import serve

    class Failing(DemoBackend):
        """`fault` is what happens in a step, "load: ..." in loading; with `times`, so often at first."""

        def __init__(self, start: dict):
            super().__init__(start)
            self.where, _, self.fault = start.get("fault", "").rpartition(": ")
            self.left = start.get("times", 1 << 30)

        def fail(self):
            if not self.fault or not self.left:
                return
            self.left -= 1
            match self.fault:
                case "no kernel image":
                    raise RuntimeError("CUDA error: no kernel image is available for execution on the device")
                case "out of memory":
                    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
                case "cannot allocate":  # a real one: no machine has an exabyte
                    torch.empty(1 << 60, dtype=torch.uint8)
                case "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "ended":
                    os.kill(os.getpid(), signal.SIGTERM)
                case seconds:
                    time.sleep(float(seconds))

        def load(self, recipe):
            if self.where == "load":
                self.fail()
            return super().load(recipe)

        def predict(self, x, sigma, units, through=None, rows=None):
            if not self.where:
                self.fail()
            return super().predict(x, sigma, units, through, rows)

        def make_room(self):
            print("room was made", file=sys.stderr, flush=True)

    serve(Failing)
