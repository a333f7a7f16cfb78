"""Strength with the trained network: near 0 the source is reconstructed, and the distance grows with it."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from twofold.checkpoints import open_model
from twofold.generate import GenerationConfig, SyntheticDataGenerator
from world import sphere


@pytest.fixture(scope="module")
def net():
    return open_model("embedded").backbone


@pytest.fixture(scope="module")
def sources():
    return [sphere(seed, 64) for seed in range(4)]


def off(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """RMS distance of each image of a batch to its counterpart."""
    return (a - b).square().mean((1, 2, 3)).sqrt()


def created(net, sources, strength: float, **changes) -> torch.Tensor:
    settings = GenerationConfig(strength=strength, guidance=1.0, scoring="cheap", **changes)
    made = SyntheticDataGenerator(net, {}, settings, {"model": "embedded"}).generate(
        sources, batch=len(sources)
    )
    return torch.stack([sample.image for sample in made])


@pytest.fixture(scope="module")
def kept(net, sources):
    """The sources as the autoencoder gives them back."""
    with torch.no_grad():
        canvas = net.decode(net.encode(torch.stack([s.image for s in sources]) * 2 - 1))
    return (canvas.clamp(-1, 1) + 1) / 2


def test_with_strength_near_zero_the_result_is_the_autoencoded_source(net, sources, kept):
    images = torch.stack([s.image for s in sources])
    for sampler in ("ddim", "dpmpp_2m"):
        found = created(net, sources, 0.001, steps=4, sampler=sampler)
        assert bool((off(found, kept) < off(kept, images) / 8).all())
        assert bool((off(found, images) < 1.05 * off(kept, images)).all())


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "ddim"])
def test_distance_to_the_source_grows_with_strength(net, sources, sampler):
    """The noise of each image is the same at every strength."""
    images = torch.stack([s.image for s in sources])
    strengths = (0.1, 0.3, 0.6, 0.9)
    far = [float(off(created(net, sources, s, steps=4, sampler=sampler), images).mean()) for s in strengths]
    assert all(b > 1.05 * a for a, b in pairwise(far))
