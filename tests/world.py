"""A world known in closed form: one shaded sphere before a wall, with its depth and normals."""

from __future__ import annotations

from pathlib import Path

import torch

from twofold.data.writer import FolderWriter
from twofold.sample import Origin, Sample


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
        "a ball before a wall", f"ball-{seed}", None, Origin("rendered"),
    )  # fmt: skip


def folder(root: Path, count: int = 6, size: int = 64) -> Path:
    """A data folder of that many balls."""
    writer = FolderWriter(root, {"name": "balls", "targets": {"depth": {}, "normals": {}}})
    for seed in range(count):
        writer.write(sphere(seed, size))
    writer.finish()
    return root
