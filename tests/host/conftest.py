from __future__ import annotations

import collections
import functools
import itertools
import os
import zlib

import pytest
from safetensors.torch import load_file

from hybridiff_core.plan import HybridPlan

from .asked import Asked
from .comfy_server import PACK, Comfy, Graph
from .families import FAMILIES

large = pytest.mark.skipif(
    os.environ.get("HYBRIDIFF_LARGE_MODELS") != "1",
    reason="gigabytes of weights (HYBRIDIFF_LARGE_MODELS=1 sh dev/test.sh --all)",
)


LIMIT = 1e-5  # how far a latent of ours may be from the host's, at unit scale


def plan_values(**values) -> dict:
    """Every input of the plan node: an API graph has to give them all."""
    return {name: value for name, value in {**HybridPlan().to_dict(), **values}.items() if name != "version"}


class Bench:
    """Graphs with a stock sampler and ours side by side, on one of the test models."""

    FAMILIES = {
        "sd3": {"channels": 16, "text": {"tokens": 16, "width": 4096, "pooled": 2048}},
        "sd15": {"channels": 4, "text": {"tokens": 8, "width": 768, "pooled": 768}},
        "sd15_large": {"channels": 4, "text": {"tokens": 8, "width": 768, "pooled": 768}},
    }
    _runs = itertools.count(1)
    _seeds: collections.Counter[str] = collections.Counter()

    def __init__(self, comfy: Comfy, family: str, size: int = 16, batch: int = 1):
        self.comfy, self.graph = comfy, Graph()
        self.load(family, size, batch)
        self.settings = {
            "seed": self.own_seed(), "steps": 4, "cfg": 5.0, "sampler_name": "euler", "scheduler": "normal",
            "denoise": 1.0,
        }  # fmt: skip
        self.devices: tuple[str, ...] = ("same",)
        self.other_packs: str | None = None
        self.plan: dict | None = {"mode": "exact"}

    @classmethod
    def own_seed(cls) -> int:
        """Another one each time, as the host runs no graph twice; a test's are the same in whatever order tests run."""
        test = os.environ.get("PYTEST_CURRENT_TEST", "").split(" ")[0]
        cls._seeds[test] += 1
        return zlib.crc32(f"{test} {cls._seeds[test]}".encode())

    def load(self, family: str, size: int, batch: int) -> None:
        """Begin the graph: the model, both prompts, the latent."""
        self.family = self.FAMILIES[family]
        if family == "sd3":
            self.model = self.graph.add("UNETLoader", unet_name="sd3_depth4.safetensors", weight_dtype="default")
        else:
            file = "sd15_narrow.safetensors" if family == "sd15" else self.comfy.make_family(family)
            self.model = self.graph.add("TestCheckpoint", ckpt_name=file)
        self.positive, self.negative = self.text(1), self.text(2)
        channels = self.family["channels"]
        self.latent = self.graph.add("TestLatent", seed=3, channels=channels, size=size, batch=batch)

    def text(self, seed: int) -> list:
        return self.graph.add("TestConditioning", seed=seed, **self.family["text"])

    def device_chain(self) -> dict:
        """The inputs `devices` and `plan` of our nodes, with the nodes behind them."""
        chain = None
        for device in self.devices:
            more = {"devices": chain, "other_packs": self.other_packs}
            more = {name: value for name, value in more.items() if value}
            chain = self.graph.add("HybridiffDevices", device=device, **more)
        given = {"devices": chain} if chain else {}
        if self.plan is not None:
            given["plan"] = self.graph.add("HybridiffPlan", **plan_values(**self.plan))
        return given

    def sampler(self, kind: str, **more) -> list:
        return self.graph.add(
            kind, model=self.model, positive=self.positive, negative=self.negative, latent_image=self.latent,
            **self.settings, **more,
        )  # fmt: skip

    def save(self, latent: list) -> str:
        return self.graph.add("SaveLatent", samples=latent, filename_prefix=f"run{next(self._runs)}")[0]

    def latent_of(self, outputs: dict, node: str):
        (file,) = outputs[node]["latents"]
        return load_file(self.comfy.base / "output" / file["subfolder"] / file["filename"])["latent_tensor"]

    def compare(self) -> tuple[float, dict]:
        """Run KSampler and ours; gives the latents' largest difference, at unit scale, and our report.

        KSampler itself rounds otherwise where memory has it compute the prompts one by one, and a sampler of adaptive
        steps makes much of that. Beyond LIMIT the latent is compared with the one that KSampler then gives.
        """
        stock = self.save(self.sampler("KSampler"))
        ours = self.sampler("HybridiffKSampler", **self.device_chain())
        saved = self.save(ours)
        outputs = self.comfy.run(self.graph.nodes)
        (report,) = outputs[ours[0]]["hybridiff"]
        difference = self.difference(outputs, stock, saved)
        if difference > LIMIT:
            model, self.model = self.model, self.graph.add("TestOtherPack", model=self.model, way="prompts_apart")
            stock, self.model = self.save(self.sampler("KSampler")), model
            difference = min(difference, self.difference(outputs | self.comfy.run(self.graph.nodes), stock, saved))
        return difference, report

    def difference(self, outputs: dict, stock: str, ours: str) -> float:
        """The largest difference of two saved latents, at unit scale."""
        expected = self.latent_of(outputs, stock)
        assert expected.isfinite().all() and expected.std() > 0.1
        # a random network leaves the noise in, at a scale of up to 100
        return (expected - self.latent_of(outputs, ours)).abs().max().item() / max(1.0, expected.std().item())


class FamilyBench(Bench):
    """The same on a model of families.py, with the conditioning and the latent that its nodes give."""

    def load(self, family: str, size: int, batch: int) -> None:
        self.family = family
        self.model = self.expert(family)
        self.positive, self.negative = self.text(1), self.text(2)
        self.latent = self.graph.add("TestFamilyLatent", family=family, seed=3, batch=batch)

    def expert(self, family: str) -> list:
        """The model of a family."""
        file = self.comfy.make_family(family)
        if FAMILIES[family].narrow:
            return self.graph.add("TestNarrowModel", family=family)
        if FAMILIES[family].kind == "checkpoints":
            return self.graph.add("TestCheckpoint", ckpt_name=file)
        return self.graph.add("UNETLoader", unet_name=file, weight_dtype="default")

    def text(self, seed: int) -> list:
        return self.graph.add("TestFamilyConditioning", family=self.family, seed=seed)

    def save(self, latent: list) -> str:
        if FAMILIES[self.family].nested:
            latent = self.graph.add("TestPlainLatent", latent=latent)
        return super().save(latent)


@pytest.fixture
def bench(comfy):
    """Makes a Bench: bench("sd3") or bench("sd15", size=8, batch=3)."""
    return lambda family, **options: Bench(comfy, family, **options)


@pytest.fixture(scope="session")
def frozen(comfyui_root):
    """What frozen.py finds of a case: frozen("sd3:2"). Each is run once."""
    asked = Asked(comfyui_root, PACK / "tests" / "host" / "frozen.py")
    yield functools.cache(asked.ask)
    asked.close()


@pytest.fixture(scope="session")
def token_split(comfyui_root):
    """What token_split.py finds of a case: token_split("sd3:2"). Each is run once."""
    asked = Asked(comfyui_root, PACK / "tests" / "host" / "token_split.py")
    yield functools.cache(asked.ask)
    asked.close()
