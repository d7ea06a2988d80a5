"""How far one predicted step puts the picture off, by its place in the run: what auto's rule is based on.

    python benchmarks/places.py WEIGHTS [--models dit unet] [--steps 20] [--cfg 1] [--prompts 8] [--json FILE]

One step of euler is predicted, and all others are computed. Its error is how far the step's predicted output is from
the computed one, as a share of it, known from a run that computes the step; `off` is the RMS difference of the decoded
pictures, 0 to 1, from those of the exact run: the median and the worst of the prompts. The last columns are the
median and the worst `off` for each unit of error and of the step's change of sigma: they would be equal if all steps
counted alike.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

PACK = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACK))
from benchmarks.block import heading, keep, line, table  # noqa: E402
from benchmarks.inside import enter_comfyui, run_inside  # noqa: E402
from benchmarks.quality import SEED, Studio  # noqa: E402

FIRST, LAST = 3, 2  # steps at a run's beginning and end that are not predicted
COLUMNS = [
    ("model", lambda row: row["model"]),
    ("step", lambda row: row["step"]),
    ("sigma", lambda row: f"{row['sigma']:.2f}"),
    ("change of sigma", lambda row: f"{row['change']:.3f}"),
    ("error", lambda row: f"{row['error']:.4f}"),
    ("off", lambda row: f"{row['off']:.4f}"),
    ("off, worst", lambda row: f"{row['off_worst']:.4f}"),
    ("a unit", lambda row: f"{row['unit']:.2f}"),
    ("a unit, worst", lambda row: f"{row['unit_worst']:.2f}"),
]


def render(block: dict) -> str:
    return table(block["rows"], COLUMNS)


def draw(studio: Studio, plan: dict, *run) -> tuple:
    """The picture of the studio's one prompt under a plan of predict, and the report's steps."""
    acceleration = studio.host.acceleration.Acceleration(studio.host.run.HybridPlan(mode="predict", **plan), ())
    picture = studio.pictures(acceleration.apply(studio.model), *run)
    return picture, acceleration.report.steps


def rows_of(studios: list[Studio], steps: int, cfg: float) -> list[dict]:
    """A row for each place."""
    run = ("euler", steps, cfg)
    exact = [studio.pictures(studio.model, *run) for studio in studios]
    at_the_end = {"warmup": "fixed", "start_step": steps - 1, "parallel_steps": 1}
    known = [draw(studio, at_the_end, *run)[1] for studio in studios]
    rows = []
    for place in range(FIRST, steps - LAST):
        sigma, after = (known[0][step].sigma for step in (place, place + 1))
        plan = {"warmup": "fixed", "start_step": place, "parallel_steps": 1}
        off, errors = [], []
        for studio, right, seen in zip(studios, exact, known):
            picture, done = draw(studio, plan, *run)
            assert [step.work for step in done].index("predicted") == place
            off.append((picture - right).square().mean().sqrt().item())
            errors.append(seen[place].error)
        off, errors = (studios[0].torch.tensor(values) for values in (off, errors))
        unit = off / errors / (sigma - after)
        rows.append({
            "model": studios[0].name, "step": place, "sigma": sigma, "change": sigma - after,
            "error": errors.median().item(), "off": off.median().item(), "off_worst": off.max().item(),
            "unit": unit.median().item(), "unit_worst": unit.max().item(),
        })  # fmt: skip
        print(line(rows[-1], COLUMNS), flush=True)
    return rows


def measure(options: argparse.Namespace, root: Path) -> None:
    host = enter_comfyui(root)
    sys.path.insert(0, str(PACK / "training"))
    from check import load_models
    from data import load

    shown, held_out = load()
    captions = [*held_out, *list(shown)[::7]]
    captions = captions[:: len(captions) // options.prompts][: options.prompts]
    loaded = load_models(options.weights)
    print(f"{heading(SEED)}\n\n{table([], COLUMNS)}")
    rows = []
    for name in options.models:
        studios = [
            Studio(name, loaded[name], [caption], host, SEED + number) for number, caption in enumerate(captions)
        ]
        rows += rows_of(studios, options.steps, options.cfg)
        keep(options.json, rows, f"{SEED} and on, one a prompt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, help="where training/ put its models")
    parser.add_argument("--models", nargs="+", default=["dit", "unet"], choices=["dit", "unet"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=1.0)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--json", type=Path)
    run_inside(__file__, parser.parse_args(), measure)


if __name__ == "__main__":
    main()
