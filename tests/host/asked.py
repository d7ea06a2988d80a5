"""A script in ComfyUI's own Python that answers each line it is given with a line of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from pathlib import Path

from .comfy_server import MODELS, python_of


class Asked:
    """The script, given the folders of ComfyUI and of the test models; started by a question, after its end anew."""

    def __init__(self, root: Path, script: Path):
        self.command = [python_of(root), str(script), str(root), str(MODELS)]
        self.process: subprocess.Popen | None = None
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process

    def ask(self, question: str, limit_s: float = 600.0) -> dict:
        """The answer. Raises RuntimeError with the script's errors where it ends, or takes too long."""
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        watch = threading.Timer(limit_s, self.process.kill)
        watch.start()
        try:
            print(question, file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            watch.cancel()
        if not answer:
            self.process.wait()
            self.errors.seek(0)
            raise RuntimeError(f"no answer to {question}:\n{self.errors.read().decode(errors='replace')[-3000:]}")
        return json.loads(answer)

    def close(self) -> None:
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait(60)
        self.errors.close()
