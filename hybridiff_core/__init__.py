"""Hybridiff's engine: one image, its guidance branches shared between processes.

Needs torch and the standard library; knows nothing of ComfyUI.
"""

__version__ = "0.1.0"
