"""Training batches from packs; the batch of a step depends only on the seed and the step."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .pack import Pack

# Height and width of a batch's examples; one is drawn for each batch.
SIZES = (
    (144, 192), (192, 256), (192, 256), (256, 192), (224, 224), (192, 288), (240, 320), (256, 256), (288, 384),
    (320, 240), (384, 512),
)  # fmt: skip
ROTATED = 0.25  # share of the examples that are rotated
_GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Batch:
    """Images ``b 3 h w`` in [0, 1], and labels in the format of a pack: ``b 1 h w``, normals ``b 3 h w``."""

    image: Tensor
    log_depth: Tensor
    normals: Tensor
    mask: Tensor


def make_batch(
    seed: int, step: int, packs: Sequence[Pack], shares: Sequence[float], examples: int, device: torch.device
) -> Batch:
    """The batch of a step: crops of 45 to 100 % of an image, half of them flipped, some rotated, colour jittered.

    Args:
        seed: of the run.
        step: of the run.
        packs: to draw from.
        shares: of the examples, by pack; they sum to 1.
        examples: at 192x256; larger images come in smaller batches.
        device: of the batch.
    """
    rng = np.random.default_rng([seed, step])
    size = SIZES[int(rng.integers(len(SIZES)))]
    count = max(2, round(examples * 192 * 256 / (size[0] * size[1])))
    parts = [_crop(packs[int(rng.choice(len(packs), p=np.asarray(shares)))], rng, size) for _ in range(count)]
    image, log_depth, normals, mask = (torch.stack(p).to(device) for p in zip(*parts, strict=True))
    return Batch(photometric(image, rng), log_depth, normals, mask)


def _crop(pack: Pack, rng: np.random.Generator, size: tuple[int, int]) -> tuple[Tensor, ...]:
    sample, (h, w) = pack[int(rng.integers(len(pack)))], pack.size
    aspect = size[1] / size[0]
    height = min(h, w / aspect) * rng.uniform(0.45, 1.0)
    ch, cw = min(h, int(height)), min(w, int(height * aspect))
    top, left = int(rng.integers(h - ch + 1)), int(rng.integers(w - cw + 1))
    cut = {k: v[top : top + ch, left : left + cw] for k, v in sample.items()}
    image = F.interpolate(
        cut["image"].permute(2, 0, 1)[None].float() / 255, size, mode="bilinear", antialias=True, align_corners=False
    )[0]  # fmt: skip
    rows = ((torch.arange(size[0]) + 0.5) * ch / size[0]).long().to(image.device)
    columns = ((torch.arange(size[1]) + 0.5) * cw / size[1]).long().to(image.device)
    log_depth, normals, mask = (cut[k][rows][:, columns].float() for k in ("log_depth", "normals", "mask"))
    normals = normals.permute(2, 0, 1) / 127
    if rng.random() < 0.5:
        image, log_depth, normals, mask = (x.flip(-1) for x in (image, log_depth, normals, mask))
        normals = normals * normals.new_tensor([-1.0, 1.0, 1.0]).view(3, 1, 1)
    labels = log_depth[None], normals, mask[None]
    if rng.random() < ROTATED:
        image, *labels = rotated(image, *labels, float(np.clip(rng.normal(0, 12), -35, 35)))
    return image, *labels


def rotated(
    image: Tensor, log_depth: Tensor, normals: Tensor, mask: Tensor, degrees: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rotate an example counter-clockwise about its centre, including the normals, as by a rolled camera.

    Args:
        image: ``3 h w``; what is outside of it gets the colour of its border and no labels.
        log_depth: ``1 h w``, NaN unknown. Depth along the optical axis does not change.
        normals: ``3 h w``, x right and y up; 0 unknown.
        mask: ``1 h w``, 0 or 1; 255 unknown.
        degrees: of the turn.
    """
    h, w = image.shape[-2:]
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    y, x = torch.meshgrid(torch.arange(h) + 0.5 - h / 2, torch.arange(w) + 0.5 - w / 2, indexing="ij")
    # With y down, the source of a pixel is the pixel rotated clockwise on the screen.
    grid = torch.stack([(c * x - s * y) / (w / 2), (s * x + c * y) / (h / 2)], -1)[None].to(image)
    image = F.grid_sample(image[None], grid, padding_mode="border", align_corners=False)[0]
    outside = (grid[0].abs() > 1).any(-1)
    labels = torch.cat([log_depth, normals, mask])
    rows = ((grid[0, ..., 1] + 1) * h / 2).long().clamp(0, h - 1)
    columns = ((grid[0, ..., 0] + 1) * w / 2).long().clamp(0, w - 1)
    labels = labels[:, rows, columns]
    across, up, towards = labels[1:4]
    turned = torch.stack([c * across - s * up, s * across + c * up, towards])
    return (
        image, labels[:1].masked_fill(outside, math.nan), turned.masked_fill(outside, 0),
        labels[4:].masked_fill(outside, 255),
    )  # fmt: skip


def photometric(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Random exposure, white balance, saturation, contrast, gamma, blur, noise and JPEG, drawn per image."""
    b = len(x)

    def drawn(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=x.dtype, device=x.device).reshape(b, -1, 1, 1)

    x = x * drawn(np.exp(rng.uniform(-0.45, 0.45, b))) * drawn(np.exp(rng.normal(0, 0.08, (b, 3))))
    grey = (x * x.new_tensor(_GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)
    x = grey + (x - grey) * drawn(rng.uniform(0.3, 1.5, b) * (rng.random(b) > 0.06))
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + (x - mean) * drawn(rng.uniform(0.6, 1.4, b))
    x = x.clamp(0, 1) ** drawn(np.exp(rng.uniform(-0.3, 0.3, b)))
    return torch.stack([_degraded(image, rng) for image in x]).clamp(0, 1)


def _degraded(image: Tensor, rng: np.random.Generator) -> Tensor:
    size = image.shape[-2:]
    if rng.random() < 0.2:
        small = [int(n / rng.uniform(1.3, 3)) for n in size]
        image = F.interpolate(image[None], small, mode="bilinear", antialias=True, align_corners=False)
        image = F.interpolate(image, size, mode="bilinear", align_corners=False)[0]
    if rng.random() < 0.35:
        noise = rng.normal(0, rng.uniform(0.005, 0.06), tuple(image.shape))
        image = image + torch.as_tensor(noise, dtype=image.dtype, device=image.device)
    if rng.random() < 0.25 and image.device.type == "cpu":
        file = io.BytesIO()
        pixels = (image.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(file, "JPEG", quality=int(rng.integers(15, 80)))
        image = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float() / 255
    return image
