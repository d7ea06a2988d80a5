"""A demo worker that fails in the middle of a divided forward. Run in the real one's place, by its path.

A run's "fault" is what, and at which exchange of tokens, counted from 0 through all forwards since.
"""

import itertools
import os
import signal
import time

if __name__ == "__main__":
    from core_alone import register

    register()

    from hybridiff_core.demo.demo_backend import DemoBackend
    from hybridiff_core.network.tokens import Shard
    from hybridiff_core.workers.worker import serve

    class Failing(DemoBackend):
        def begin(self, run, fresh):
            super().begin(run, fresh)
            plain, exchange = Shard.plain, itertools.count()
            what, at = run.get("fault", ("", -1))

            def failing(self, pairs, dim, n):
                if next(exchange) == at:
                    if what == "exception":
                        raise RuntimeError("this block cannot be computed")
                    if what == "sleeps":
                        time.sleep(3.0)
                    else:
                        os.kill(os.getpid(), getattr(signal, what))
                return plain(self, pairs, dim, n)

            Shard.exchange = failing

    Shard.plain = Shard.exchange
    serve(Failing)
