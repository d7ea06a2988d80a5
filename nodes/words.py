"""The demo models' text input: their words are no text encoder's."""

from __future__ import annotations

from comfy_api.latest import io

from ..hybridiff_core.demo.text import conditioning, words
from .plan import CATEGORY


class HybridiffDemoWords(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HybridiffDemoWords",
            display_name="Hybridiff Demo Words",
            category=CATEGORY,
            description="A prompt for Hybridiff's small demo models (emoji_dit, emoji_unet), and for no other model.",
            search_aliases=["emoji", "demo", "prompt"],
            is_dev_only=True,  # for trying things out; the models are in the repository, not in what is installed
            inputs=[
                io.String.Input(
                    "text",
                    default="red heart",
                    tooltip="An emoji's name, such as red heart or birthday cake; at most eight words. "
                    "Empty for the negative prompt.",
                )
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def validate_inputs(cls, text: str) -> bool | str:
        if text.strip() and not words(text):
            return f"text is {text[:40]!r}, which has no English words; use an emoji's name, such as red heart"
        return True

    @classmethod
    def execute(cls, text: str) -> io.NodeOutput:
        return io.NodeOutput(conditioning(text))
