"""Captions to conditioning and latents to pixels for the two emoji models. Needs torch and safetensors alone."""

import functools
import hashlib
import re
import unicodedata

import torch
from safetensors.torch import load_file

TOKENS = 16
WIDTH = {"dit": 4096, "unet": 768}
POOLED = 2048


def words(caption: str) -> list[str]:
    """The lower-case ASCII words of a caption."""
    plain = unicodedata.normalize("NFKD", caption.lower()).encode("ascii", "ignore").decode()
    return re.findall("[a-z0-9]+", plain)


@functools.cache
def word_vector(word: str, width: int) -> torch.Tensor:
    """A fixed random vector of unit variance, seeded by the word's hash."""
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big") >> 1
    return torch.randn(width, generator=torch.Generator().manual_seed(seed))


def encode(caption: str, model: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A caption's tokens (1, 16, width) and pooled vector (1, 2048); zeros for the empty caption."""
    found = words(caption)[:TOKENS]
    tokens, pooled = torch.zeros(1, TOKENS, WIDTH[model]), torch.zeros(1, POOLED)
    for place, word in enumerate(found):
        tokens[0, place] = word_vector(word, WIDTH[model])
        pooled[0] += word_vector(word, POOLED) / len(found) ** 0.5
    return tokens, pooled


def conditioning(caption: str, model: str) -> list:
    """A caption as ComfyUI's conditioning."""
    tokens, pooled = encode(caption, model)
    return [[tokens, {"pooled_output": pooled}]]


class Latents:
    """The linear autoencoder: a PCA of square patches, saved as mean, basis, scale, factor and shift.

    The network sees z = basis (patch - mean) / scale. ComfyUI's latents are outside its latent format:
    latent = z / factor + shift.
    """

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.tensors = tensors
        self.mean, self.basis, self.scale = tensors["mean"], tensors["basis"], tensors["scale"]
        self.factor, self.shift = float(tensors["factor"]), float(tensors["shift"])
        self.patch = round((self.mean.numel() / 3) ** 0.5)

    @classmethod
    def load(cls, path: str) -> "Latents":
        """Read a PCA file."""
        return cls(load_file(path))

    @classmethod
    def fit(cls, images: torch.Tensor, patch: int, channels: int, factor: float, shift: float) -> "Latents":
        """The PCA of images (n, 3, h, w). Each scale goes with the root of its component's deviation."""
        rows = torch.nn.functional.unfold(images, patch, stride=patch).transpose(1, 2).flatten(0, 1).double()
        mean = rows.mean(0)
        values, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
        deviation = values.flip(0)[:channels].sqrt()
        scale = deviation.sqrt() * deviation.mean().sqrt()
        tensors = {"mean": mean, "basis": vectors.flip(1)[:, :channels].T, "scale": scale}
        tensors |= {"factor": torch.tensor(factor), "shift": torch.tensor(shift)}
        return cls({name: value.float().contiguous() for name, value in tensors.items()})

    def to_network(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, 3, h, w) in 0..1 to the z that the network sees."""
        rows = torch.nn.functional.unfold(images, self.patch, stride=self.patch)
        z = self.basis @ (rows - self.mean[:, None]) / self.scale[:, None]
        return z.unflatten(2, (images.shape[2] // self.patch, -1))

    def from_network(self, z: torch.Tensor) -> torch.Tensor:
        """The network's z to images (n, 3, h, w) in 0..1."""
        rows = self.basis.T @ (z.flatten(2) * self.scale[:, None]) + self.mean[:, None]
        size = (z.shape[2] * self.patch, z.shape[3] * self.patch)
        return torch.nn.functional.fold(rows, size, self.patch, stride=self.patch).clamp(0, 1)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Images to ComfyUI's latents."""
        return self.to_network(images) / self.factor + self.shift

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """What comfy.sample.sample returns, as images (n, 3, h, w) in 0..1."""
        return self.from_network((latents.float() - self.shift) * self.factor)
