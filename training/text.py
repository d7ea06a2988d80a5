"""Captions to conditioning: the package's own way, for scripts that are run by their path."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # last: ComfyUI has a `nodes` of its own

from hybridiff_core.demo.text import conditioning, encode, words

__all__ = ["conditioning", "encode", "words"]
