"""What auto does, and why: the rule, checked against the rows that quality.py kept."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.block import table
from hybridiff_core.rules import (
    AUTO_START,
    AUTO_TOLERANCE,
    FAR,
    HIGHER_ORDER,
    LAST_STEPS,
    LEAST_STEPS,
    MOST_PREDICTED,
    NOISE_SHARE,
    REACH,
    STEPS_PER_CFG,
)

FLOOR = 40.0  # dB, that auto's worst 5 % must keep in every row
RIVALS = {"fewer exact steps": " steps", "EasyCache": "EasyCache", "paper": "paper", "pipeline": "pipeline in groups"}

RULE = f"""This section's figures are from before the expected error followed how errors grew, a change made for
samplings where they grow fast ([every sampling](samplings.md)). On the DiT at 20 steps of euler, 8 captions, it made 9
predicted steps 9 at CFG 1, and 4.0 of them 3.8 at CFG 5; it cost most with dpmpp_2m at 50 steps and CFG 5: 10 for 17, 4
captions.

Pictures are compared with KSampler's on one device. The first 16 captions are combinations of a colour and
a thing that no training had. The rule's numbers were chosen on the DiT's first 48 captions and the U-Net's first 32. On
the U-Net's next 32, which had played no part in that choice, the rule fell short: 35 dB at euler, 20 steps, CFG 1. It
had predicted too many steps at the beginning, where a small error can lead to another picture ([what one predicted
step costs](samplings.md)). It was corrected for models that are not flows; its two new numbers were chosen on 12
captions, the worst among them, with 20 and 28 steps. Captions that played no part in any choice have a separate table
([held out](quality_unet.md)). The rule:

1. Of the modes, auto takes the one with the best worst-5 % PSNR at equal cost: *predict*. It takes it with any number
   of devices, so that adding or losing one does not change the picture.
2. The first {AUTO_START} steps are computed, and the last {LAST_STEPS}. Of those between, up to {MOST_PREDICTED} in
   a row are predicted, as long as their estimated errors in the picture add up to no more than the tolerance. A step's
   part is its expected error times the step's change of sigma, {NOISE_SHARE:g} times that where the model is not a
   flow (below sigma 1 up to twice as much), and {HIGHER_ORDER:g} times where the sampler is not Euler's; a prediction
   that is expected to be off by more than {FAR:.0%} is not used at all. Where the model is not a flow, the tolerance is
   released gradually: up to each step no more than that step's share of the middle.
   The expected error is scaled from those measured last by how far the step is from the two computed ones (the product
   of both distances), and grows with the noise level as they grew. No step is predicted that is further beyond the
   later one than {REACH:g} times their distance, or far from the last measured error: where there is much noise, by
   more than a factor of 2.1 in sigma. Once a later error was measured, it rates the predicted steps before it; if they
   turn out beyond the tolerance, the rest of the run is exact, and a line says so.
3. A step's part counts for more where the guidance is strong and the steps are few: with CFG above 1 and fewer than
   {STEPS_PER_CFG:g} steps for each unit of CFG, in proportion.
4. The tolerance is one that keeps the worst 5 % at {FLOOR:g} dB or better in every row measured:
   {AUTO_TOLERANCE:g}. Where nothing can be predicted within it, auto is exact, as it always is under {LEAST_STEPS}
   steps."""


def speed(row: dict) -> float:
    """Against KSampler on one device, by what is computed."""
    return row["steps"] * (2 if row["cfg"] > 1 else 1) / row["cost"]


def setting_of(row: dict) -> tuple:
    return (row["model"], row["sampler"], row["steps"], row["cfg"])


def of(rows: Sequence[dict], setting: tuple) -> list[dict]:
    return [row for row in rows if setting_of(row) == setting]


def settings(rows: Sequence[dict]) -> list[tuple]:
    found = {setting_of(row) for row in rows if row["what"] == "auto"}
    return sorted(found)


def best_rival(rows: Sequence[dict], words: str, auto: dict) -> dict | None:
    """The rival that costs least of those that cost what auto does or more; None where it costs much more."""
    named = [row for row in rows if words in row["what"] and row["cost"] >= auto["cost"] - 0.01]
    dear = min(named, key=lambda row: (row["cost"], -row["psnr_worst"]), default=None)
    return dear if dear and dear["cost"] <= 1.25 * auto["cost"] else None


def _cell(row: dict | None) -> str:
    return f"{row['cost']:.1f}: {row['psnr']:.1f} / {row['psnr_worst']:.1f}" if row else "-"


def beside_rivals(rows: Sequence[dict]) -> str:
    lines = []
    for setting in settings(rows):
        here = of(rows, setting)
        auto = next(row for row in here if row["what"] == "auto")
        rivals = {name: best_rival(here, words, auto) for name, words in RIVALS.items()}
        lines.append({"auto": auto, **rivals})
    columns = [
        ("model", lambda line: line["auto"]["model"]),
        ("sampler", lambda line: line["auto"]["sampler"]),
        ("steps", lambda line: line["auto"]["steps"]),
        ("CFG", lambda line: f"{line['auto']['cfg']:g}"),
        ("prompts", lambda line: line["auto"]["prompts"]),
        ("speed by cost", lambda line: f"{speed(line['auto']):.2f}x"),
        ("auto", lambda line: f"**{_cell(line['auto'])}**"),
        *((name, lambda line, name=name: _cell(line[name])) for name in RIVALS),
    ]
    return table(lines, columns)


def tolerances(rows: Sequence[dict]) -> str:
    """For every tolerance that was tried, its lowest row and what it saves."""
    named = {f"auto, tolerance {AUTO_TOLERANCE:g}" if row["what"] == "auto" else row["what"] for row in rows}
    lines = []
    for name in sorted(name for name in named if name.startswith("auto, tolerance")):
        wanted = "auto" if name.endswith(f" {AUTO_TOLERANCE:g}") else name
        chosen = [row for row in rows if row["what"] == wanted]
        lowest = min(chosen, key=lambda row: row["psnr_worst"])
        lines.append({
            "tolerance": name.rsplit(" ", 1)[1], "rows": len(chosen), "lowest": lowest["psnr_worst"],
            "where": f"{lowest['model']} {lowest['sampler']} {lowest['steps']} steps, CFG {lowest['cfg']:g}",
            "computed": sum(row["cost"] / row["steps"] for row in chosen) / len(chosen),
        })  # fmt: skip
    columns = [
        ("tolerance", lambda line: line["tolerance"]),
        ("rows", lambda line: line["rows"]),
        ("lowest worst 5 %", lambda line: f"{line['lowest']:.1f} dB"),
        ("where", lambda line: line["where"]),
        ("steps computed, mean", lambda line: f"{line['computed']:.0%}"),
    ]
    return table(lines, columns)


def _setting(row: dict) -> str:
    return f"{row['model']}, {row['sampler']}, {row['steps']} steps, CFG {row['cfg']:g}"


def _fixed_plans(rows: Sequence[dict], chosen: Sequence[dict]) -> str:
    """Where a plan of fixed numbers is better than auto on as many devices at the same cost or less."""
    found = []
    for row in chosen:
        plans = [
            plan for plan in of(rows, setting_of(row))
            if plan["what"].startswith(("predict", "pipeline", "paper")) and plan["devices"] <= row["devices"]
            and plan["cost"] <= row["cost"] + 0.01 and plan["psnr_worst"] > row["psnr_worst"]
        ]  # fmt: skip
        if plans:
            best = max(plans, key=lambda plan: plan["psnr_worst"])
            found.append(
                f"{best['what']} ({_setting(row)}: {best['psnr_worst']:.1f} dB at cost {best['cost']:.1f} on "
                f"{best['prompts']} captions, auto {row['psnr_worst']:.1f} at {row['cost']:.1f} on {row['prompts']})"
            )
    if not found:
        return ""
    return f"A plan of fixed numbers that costs no more is better in {len(found)}: {'; '.join(found)}. "


def verdict(rows: Sequence[dict]) -> str:
    """Whether auto keeps its promise, and where a rival is better at the same cost or less."""
    chosen = [row for row in rows if row["what"] == "auto"]
    low = [row for row in chosen if row["psnr_worst"] < FLOOR]
    text = f"In {len(chosen) - len(low)} of {len(chosen)} rows auto keeps the worst 5 % at {FLOOR:g} dB or better"
    text += f"; the lowest is {min(row['psnr_worst'] for row in chosen):.1f} dB. " if chosen else ". "
    text += _fixed_plans(rows, chosen)
    better = []
    for row in chosen:
        here = of(rows, setting_of(row))
        wins = [
            rival for rival in here
            if any(words in rival["what"] for words in (" steps", "EasyCache"))
            and rival["cost"] <= row["cost"] + 0.01 and rival["psnr_worst"] > row["psnr_worst"]
        ]  # fmt: skip
        better += wins[:1]
    if better:
        names = "; ".join(f"{row['what']} ({_setting(row)})" for row in better)
        return f"{text}A rival that costs no more is better in {len(better)}: {names}."
    text += "No rival that costs as little or less, fewer exact steps or EasyCache, is better in any."
    dearer = []
    for row in chosen:
        here = of(rows, setting_of(row))
        rivals = [best_rival(here, words, row) for words in (" steps", "EasyCache")]
        dearer += [(row, rival) for rival in rivals if rival and rival["psnr_worst"] > row["psnr_worst"]]
    named = "; ".join(
        f"{rival['what']} for {rival['cost'] / row['cost'] - 1:.0%} more ({_setting(row)}: "
        f"{rival['psnr_worst']:.1f} against {row['psnr_worst']:.1f} dB)"
        for row, rival in dearer
    )
    return f"{text} For up to a quarter more cost, better in the worst 5 % are: {named}." if dearer else text


def text(rows: Sequence[dict]) -> str:
    """The page about auto, from quality.py's rows."""
    rows = [row for row in rows if row["sampler"] != "ddim"]
    return "\n\n".join([
        RULE, verdict(rows), tolerances(rows),
        "auto compared with what costs the same or up to a quarter more; the others' rows can be of the first of "
        "auto's captions alone. Cells are cost: mean / worst 5 % PSNR in dB; EasyCache's as on the two devices of "
        "ComfyUI's split; the pipeline's on four devices with guidance, on two without.",
        beside_rivals(rows),
    ])  # fmt: skip
