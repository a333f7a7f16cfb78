"""A world known in closed form: one shaded sphere before a wall, with its depth and normals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from twofold.data.writer import FolderWriter
from twofold.sample import Provenance, Sample
from twofold.targets.people import heatmaps

if TYPE_CHECKING:
    from twofold.train.dataset import ExampleDataset
    from twofold.train.encoder import Encoded, Encoder
    from twofold.train.examples import Example


def sphere(seed: int, size: int = 64) -> Sample:
    """A sample of ``size`` x ``size`` pixels; depth in metres, normals RUB."""
    rng = torch.Generator().manual_seed(seed)
    spread, centre = torch.tensor([0.8, 0.8, 0.4]), torch.tensor([-0.4, -0.4, 0.3])
    cx, cy, r = (torch.rand(3, generator=rng) * spread + centre).tolist()
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    height = (r**2 - (x - cx) ** 2 - (y - cy) ** 2).clamp(min=0).sqrt()
    on = height > 0
    depth = (2 - height)[None]
    normal = torch.stack([(x - cx) / r * on, -(y - cy) / r * on, torch.where(on, height / r, 1.0)])
    shade = (normal * torch.tensor([-0.5, 0.5, 0.7])[:, None, None]).sum(0).clamp(min=0.05)
    image = torch.stack([shade, shade * (0.5 + 0.5 * on), shade * (1 - 0.5 * on)]).clamp(0, 1)
    known = torch.ones(1, size, size, dtype=torch.bool)
    return Sample(
        image, {"depth": depth, "normals": normal}, {"depth": known, "normals": known},
        "a ball before a wall", f"ball-{seed}", None, Provenance("rendered"),
    )  # fmt: skip


def origin_of(sample: Sample) -> Provenance:
    """The one origin of a sample that is not a batch."""
    assert isinstance(sample.origin, Provenance)
    return sample.origin


def folder(root: Path, count: int = 6, size: int = 64) -> Path:
    """A data folder of that many balls."""
    writer = FolderWriter(root, {"name": "balls", "targets": {"depth": {}, "normals": {}}})
    for seed in range(count):
        writer.write(sphere(seed, size))
    writer.finish()
    return root


def rich(seed: int, size: int = 64) -> Sample:
    """A ball with a target for every task: what is foreground, what it belongs to, joints scattered over it."""
    ball = sphere(seed, size)
    depth, image = ball.targets["depth"], ball.image
    on = (depth < 2).float()
    targets = {
        **ball.targets, "mask": on, "matting": ((2 - depth) / 0.4).clamp(0, 1), "semantic": on * 3 + 1, "parts": on * 2,
        "segmentation": image.round(), "albedo": image, "shading": image.flip(0), "residual": image * 0.2,
        "material": image.roll(1, 0), "skeleton": (image > 0.5).float(),
        "keypoints": heatmaps(joints(seed, size), torch.ones(17, dtype=torch.bool), (size, size)),
    }  # fmt: skip
    return replace(ball, targets=targets, valid=dict.fromkeys(targets, ball.valid["depth"]))


def joints(seed: int, size: int) -> torch.Tensor:
    """17 places in pixels from the edges, the seed's own."""
    return (torch.rand(17, 2, generator=torch.Generator().manual_seed(seed)) * 0.8 + 0.1) * size


def rich_folder(root: Path, count: int = 8, size: int = 64) -> Path:
    """A data folder of ``count`` images of balls with every target, stored exactly; joints are in the rows."""
    samples = [rich(seed, size) for seed in range(count)]
    codecs: dict[str, dict[str, Any]] = {
        name: {"codec": "npy"} for name in samples[0].targets if name != "keypoints"
    }
    codecs["normals"]["frame"] = "RUB"
    codecs["mask"]["threshold"] = 0.5
    codecs["keypoints"] = {}
    writer = FolderWriter(root, {"name": "rich", "targets": codecs})
    for seed, sample in enumerate(samples):
        # COCO counts from the centre of the first pixel.
        points = [[x - 0.5, y - 0.5, 2] for x, y in joints(seed, size).tolist()]
        maps = {k: v for k, v in sample.targets.items() if k != "keypoints"}
        held = replace(sample, targets=maps, valid={k: sample.valid[k] for k in maps})
        writer.write(held, inline={"keypoints": {"points": points}})
    writer.finish()
    return root


def encoded(encoder: Encoder, sample: Sample, mirrored: bool = False) -> Encoded:
    """One sample, by itself."""
    return encoder.encode([encoder.prepare(sample, mirrored)])[0]


def example(dataset: ExampleDataset, number: int) -> Example:
    """The example of that number in a run."""
    (example,) = dataset.examples([dataset[number]])[0].values()
    return example
