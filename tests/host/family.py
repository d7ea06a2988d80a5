"""What a model family is to the tests."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Family:
    """One architecture: how its network is built, and what it is called with.

    `extra` holds further entries of the conditioning; a tuple of numbers stands for a random tensor of that shape.
    `last` names the output layers, which `fill` makes weak; `rename` turns the host's names into the files' names.
    `blocks` are the network's lists of blocks, in the order they run. A checkpoint has `prefix` before the network's
    names, and `beside` it random tensors of these shapes. `told` is what its metadata says of the config, or True
    for all of it. Of a network whose depth the host fixes, the first `shallow` blocks of each list are kept.

    Where `model` is a class of the host's supported_models, the network is the one that it makes of `config`; a
    `narrow` one the host does not know from its file (TestNarrowModel). `nested` are the shapes of further latents.
    """

    kind: str
    network: str
    config: dict
    last: tuple[str, ...]
    latent: tuple[int, ...]
    text: dict
    blocks: tuple[str, ...]
    extra: dict = field(default_factory=dict)
    rename: tuple[tuple[str, str], ...] = ()
    seed: int | None = None
    file: str | None = None
    note: str = ""
    prefix: str = "model.diffusion_model."
    beside: dict = field(default_factory=dict)
    told: bool | dict = False
    shallow: int | None = None
    model: str = ""
    narrow: bool = False
    nested: tuple[tuple[int, ...], ...] = ()

    def stem(self, name: str) -> str:
        return self.file or f"family_{name}"
