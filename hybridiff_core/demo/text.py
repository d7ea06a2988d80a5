"""Captions to conditioning for the two small models, by fixed random word vectors. Needs torch alone."""

import functools
import hashlib
import re
import unicodedata

import torch

TOKENS, WIDTH = 8, 768


def words(caption: str) -> list[str]:
    """The lower-case ASCII words of a caption."""
    plain = unicodedata.normalize("NFKD", caption.lower()).encode("ascii", "ignore").decode()
    return re.findall("[a-z0-9]+", plain)


@functools.cache
def word_vector(word: str) -> torch.Tensor:
    """A fixed random vector of unit variance, seeded by the word's hash."""
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big") >> 1
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))


def encode(caption: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A caption's tokens (1, 8, 768) and pooled vector (1, 768), for either model; zeros for the empty caption."""
    found = words(caption)[:TOKENS]
    tokens, pooled = torch.zeros(1, TOKENS, WIDTH), torch.zeros(1, WIDTH)
    for place, word in enumerate(found):
        tokens[0, place] = word_vector(word)
        pooled[0] += word_vector(word) / len(found) ** 0.5
    return tokens, pooled


def conditioning(caption: str) -> list:
    """A caption as ComfyUI's conditioning."""
    tokens, pooled = encode(caption)
    return [[tokens, {"pooled_output": pooled}]]
