"""Coverage-guided fuzzing of what a pipe can bring. Needs atheris, which nothing else here does.

python tests/fuzz/wire_atheris.py -max_total_time=180
"""

import contextlib
import io
import struct
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
with atheris.instrument_imports(
    include=["hybridiff_core.workers.frames", "hybridiff_core.workers.wire", "hybridiff_core.plan", "json"]
):
    from hybridiff_core.plan import HybridPlan
    from hybridiff_core.workers.frames import FramePipe
    from hybridiff_core.workers.wire import Kind, decode


class Point:
    def __init__(self, x):
        self.x = x


KINDS = {Point: Kind("point", lambda point: point.x, Point)}


def one_input(data: bytes) -> None:
    # as it is, and as the content of a frame: a length that fits is found too rarely
    for stream in (data, struct.pack("<I", len(data)) + data):
        pipe = FramePipe(io.BytesIO(stream), io.BytesIO())
        with contextlib.suppress(ValueError):
            while (message := pipe.receive()) is not None:
                assert type(message) is dict
                for value in message.values():
                    read(lambda value=value: decode(value, {0: None}.__getitem__, KINDS))
                read(lambda message=message: decode(message, {0: None}.__getitem__, KINDS))
                read(lambda message=message: HybridPlan.from_dict(message))


def read(what) -> None:
    with contextlib.suppress(ValueError):
        what()


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
