"""ComfyUI's process on machine "a": samplings beside other machines' devices, and what they were. Run by its Python.

    python in_comfyui.py COMFYUI_ROOT

Reads a case a line (JSON) and prints a line of JSON for it: {"model": "trained" or a depth, "size", "steps", "devices",
"wait", "mode", "sends"}. The first of a model's runs is stock's, which all of them are compared with.
"""

import json
import os
import runpy
import sys
import time
from pathlib import Path

PACK = Path(__file__).resolve().parents[2]


def enter(root: str):
    runpy.run_path(str(PACK / "nodes" / "host" / "worker.py"))["register_pack"]()
    sys.path.insert(0, root)
    sys.argv = [os.path.join(root, "main.py")]
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    import torch

    torch.set_num_threads(1)
    import hybridiff_pack.nodes.host.acceleration as acceleration

    return acceleration


class Bench:
    def __init__(self, acceleration, models: Path):
        import folder_paths
        import torch

        self.torch, self.acceleration, self.models = torch, acceleration, models
        self.loaded: dict = {}
        self.stock: dict = {}
        folder_paths.add_model_folder_path("diffusion_models", str(models))

    def model(self, name):
        import comfy.sd

        if name not in self.loaded:
            if name == "trained":
                from hybridiff_pack.hybridiff_core.demo import trained

                file = self.models / "trained.safetensors"
                if not file.exists():
                    file.write_bytes(Path(trained.NETWORK).read_bytes())
            else:
                file = self.made(name)
            self.loaded[name] = comfy.sd.load_diffusion_model(str(file))
        return self.loaded[name]

    def made(self, depth: int) -> Path:
        """SD3's layout, random weights; also where machine "b" looks for models."""
        import comfy.ops
        from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT
        from safetensors.torch import save_file

        make = runpy.run_path(str(PACK / "tests" / "host" / "make_models.py"))
        operations = comfy.ops.disable_weight_init
        network = MMDiT(**make["sd3_config"](depth), dtype=self.torch.float32, device="cpu", operations=operations)
        make["fill"](network, seed=depth, last=("final_layer.linear.weight",))
        positions = 0.1 * self.torch.randn(1, 64 * 64, 64 * depth, generator=self.torch.Generator().manual_seed(1))
        file = self.models / f"depth{depth}.safetensors"
        save_file({**network.state_dict(), "pos_embed": positions}, file)
        if theirs := os.environ.get("HYBRIDIFF_THEIR_MODELS"):
            (Path(theirs) / "another name.safetensors").write_bytes(file.read_bytes())
        return file

    def conds(self, name):
        torch = self.torch
        if name == "trained":
            from hybridiff_pack.hybridiff_core.demo import text

            return [text.conditioning("a red apple"), text.conditioning("")]
        made = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        return [
            [[torch.randn(1, 16, 4096, generator=g), {"pooled_output": torch.randn(1, 2048, generator=g)}]]
            for g in made
        ]

    def sample(self, model, case):
        import comfy.sample

        torch = self.torch
        size = [8, 16, 16] if case["model"] == "trained" else [16, case["size"], case["size"]]
        if case["model"] == "trained":
            from hybridiff_pack.hybridiff_core.demo import trained

            size = list(trained.LATENT)
        noise = torch.randn(case.get("batch", 1), *size, generator=torch.Generator().manual_seed(0))
        positive, negative = self.conds(case["model"])

        def tell(step, *_):
            if step % 20 == 0:
                print(f"step {step}.", flush=True)

        started = time.perf_counter()
        latent = comfy.sample.sample(
            model, noise, case["steps"], case.get("cfg", 5.0), "euler", "simple", positive, negative,
            torch.zeros_like(noise), disable_pbar=True, seed=0, callback=tell,
        )  # fmt: skip
        return latent, time.perf_counter() - started

    def run(self, case: dict) -> dict:
        from hybridiff_pack.hybridiff_core.plan import HybridPlan

        os.environ["HYBRIDIFF_WAIT"] = "1" if case.get("wait") else ""
        model = self.model(case["model"])
        key = json.dumps([case.get(name) for name in ("model", "size", "steps", "batch", "cfg")])
        if key not in self.stock or case.get("again"):  # the machine may be busier than before
            self.sample(model, {**case, "steps": 1})
            self.stock[key] = self.sample(model, case)
        stock, alone_s = self.stock[key]
        ours = self.acceleration.Acceleration(
            HybridPlan(mode=case.get("mode", "exact")), tuple(case["devices"]), sends=case.get("sends", False)
        )
        print("begins", flush=True)
        latent, seconds = self.sample(ours.apply(model), case)
        report = ours.report
        steps = [step.seconds for step in report.steps]
        return {
            "off": ((latent - stock).abs().max() / stock.abs().max()).item(),
            "seconds": seconds, "alone_s": alone_s, "shared": report.shared_steps, "lines": report.lines,
            "devices": report.devices, "longest_s": max(steps), "step_s": sorted(steps)[len(steps) // 2],
            "ray": "ray" in sys.modules, "ways": [step.way for step in report.steps],
            "helpers": [step.helpers for step in report.steps],
        }  # fmt: skip


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent)
    acceleration = enter(sys.argv[1])
    import torch

    with torch.inference_mode():
        bench = Bench(acceleration, Path(os.environ["HYBRIDIFF_TEST_MODELS"]))
        print("ready", flush=True)
        for line in sys.stdin:
            print("done " + json.dumps(bench.run(json.loads(line))), flush=True)
        from hybridiff_pack.nodes.host.leases import pool

        pool().close()
    print("over", flush=True)
