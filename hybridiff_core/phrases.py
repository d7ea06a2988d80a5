"""What the live view, the report and the figure say: one set of words, in English.

The page has them in four languages, from locales/*/main.json, whose English part `python dev/messages.py` writes.
"""

from __future__ import annotations

PHRASES: dict[str, str] = {
    # the live view
    "empty": "Run the workflow, and the result shows here.",
    "will_use": "will use {devices}",
    "will_use_alone": "will use {device} alone",
    "processor": "the processor",
    "second_process": "a second process",
    "seconds": "{s} s",
    "minutes": "{m} min {s} s",
    "step": "step {step} of {total}",
    "gain_measured": "{times}x as fast as one (measured)",
    "gain_estimated": "{times}x as fast as one (estimated)",
    "gpu": "1 GPU",
    "gpus": "{count} GPUs",
    "device": "1 device",
    "devices": "{count} devices",
    "with_gain": "{who}, {times}x",
    "with_reason": "{who}: {reason}",
    "starting": "starting {devices}",
    "joins_later": "one device begins; {devices} joins when it is ready",
    "sending": "{file} is being sent to {machine}: {percent} %",
    "failed": "failed at step {step} of {total}",
    "failed_early": "failed before the first step",
    "stopped": "stopped at step {step} of {total}",
    "stopped_early": "stopped before the first step",
    "same_picture": "the same picture as KSampler's",
    "predicted": "close to KSampler's picture: {count} of {total} steps predicted",
    "in_parts": "close to KSampler's picture: {count} of {total} steps in the mode {mode}",
    "shared_all": "every step shared",
    "shared_some": "{count} of {total} steps shared",
    "shared_none": "no step shared",
    "by_images": "by images of the batch",
    "by_tokens": "by parts of the image",
    "by_images_and_tokens": "by images and parts of them",
    "no_figure_same": "both processes use one device, so no gain is shown",
    "no_figure_cpu": "a helper on the processor is for tests, so no gain is shown",
    "way_out": "What to do: {way}",
    "details": "Curve, stages and all messages",
    # the curve and the lanes
    "all_steps": "all steps",
    "warm_up": "start",
    "middle": "middle",
    "finish": "end",
    "band": "{stage}: steps {first} to {last}",
    "curve": "what the prompt changes (rel-MAE)",
    "no_curve": "one prompt, so there is no difference to show",
    "point": "step {step}: {value}",
    "not_measured": "not measured",
    "compute": "computing",
    "transfer": "sending",
    "wait": "waiting",
    # the plan's preview
    "all_fields": "All fields, for experts",
    "last_curve": "the last run's difference",
    "typical_curve": "a typical curve (no run of {total} steps yet)",
    "too_long": "too long for {total} steps: lower parallel_steps",
    "all_whole": "all {total} steps computed",
    "stages": "start {start}, middle {middle}, end {end} of {total} steps",
    # the widgets' choices and the menu
    "same_as_ksampler": "same as KSampler",
    "close_to_it": "close to it, faster",
    "this_machine": "this machine",
    "every_machine": "this machine and others",
    "their_nodes": "run their nodes in the worker too",
    "their_nodes_off": "off",
    "exact_only": "exact only",
    "use": "Use two GPUs (Hybridiff)",
    "back": "Back to one GPU (no Hybridiff)",
    "used_within": "The samplers in this subgraph use two GPUs now.",
    "back_within": "The samplers in this subgraph use one GPU again.",
    # how close two pictures are
    "identical": "the same, value for value",
    "rounding": "the same but for rounding: {decibels} dB",
    "practically": "practically the same: {decibels} dB",
    "close": "close: {decibels} dB; small differences can be seen side by side",
    "alike": "alike: {decibels} dB; differences can be seen",
    "different": "two different pictures: {decibels} dB",
    "figures": "PSNR {decibels} dB, SSIM {ssim}, largest difference {largest}",
}


def say(phrase: str, **fields: object) -> str:
    """A phrase with its fields filled in. Raises KeyError for one that is not there."""
    return PHRASES[phrase].format(**fields)


def clock(seconds: float) -> str:
    """A time as a user reads it: "8.2 s", "12 s", "2 min 5 s"."""
    if seconds < 9.95:
        return say("seconds", s=f"{seconds:.1f}")
    whole = round(seconds)
    return say("minutes", m=whole // 60, s=whole % 60) if whole >= 60 else say("seconds", s=whole)
