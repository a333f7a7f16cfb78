"""GenPercept's encodings and losses with their quirks, to reproduce what was trained with them. No default is here.

Each differs from the task of the same name as its docstring says. `genpercept` makes a task that has them all. What its
loader does before and after them is in `train.released`: invalid depths keep their numbers, normals are those of
`zeroed_normals`, and everything is encoded before it is resized.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .depth import HIGH, LOW
from .disparity import encode_whole, with_near_sky
from .losses import gradient_vertical, masked_mean
from .task import Task

# Its losses of depth are of canvases raised by so much, to be positive.
RAISED = 2.0
_TINY = 1e-6


def encode_depth(depth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """As `depth.encode`, but what is not valid is painted as well: by its number, so that a hole of 0 m is near.

    The sky is as far as the farthest other depth of its image, which is what the authors stored.

    Args:
        depth: ``b 1 h w`` metres; of invalid pixels the numbers that were stored, 0 where there were none, +inf for
            the sky.
        valid: ``b 1 h w`` bool.

    Returns:
        Canvas ``b 3 h w`` in [-1, 1], three equal channels, -1 for an image without a valid pixel; the mask is
        ``valid``.
    """
    depth = with_near_sky(depth)
    canvas = torch.full_like(depth, -1)
    for i in range(len(depth)):
        if valid[i].any():
            known = depth[i][valid[i]].cpu().double()
            near, deep = float(_quantile(known, LOW)), float(_quantile(known, HIGH))
            canvas[i] = ((depth[i] - near) / max(deep - near, 1e-6) * 2 - 1).clamp(-1, 1)
    return canvas.expand(-1, 3, -1, -1).contiguous(), valid


def encode_stretched(target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Masks, mattes and class colours: each image from its own smallest to its largest number becomes [-1, 1].

    All channels are stretched alike, so that a colour depends on the others of its picture. A constant image becomes
    -1: one that is foreground all over is taught as background.

    Args:
        target: ``b 1 h w`` or ``b 3 h w``, in any unit.
        valid: ``b 1 h w`` bool; not looked at.

    Returns:
        Canvas ``b 3 h w`` in [-1, 1]; a mask ``b 1 h w`` that holds everywhere.
    """
    low, high = target.amin((1, 2, 3), keepdim=True), target.amax((1, 2, 3), keepdim=True)
    canvas = (target - low) / (high - low).clamp(min=1e-6) * 2 - 1
    return canvas.expand(-1, 3, -1, -1).contiguous(), torch.ones_like(valid)


def zeroed_normals(normals: Tensor, valid: Tensor, depth_valid: Tensor) -> tuple[Tensor, Tensor]:
    """Normals that are zero where depth is not valid, and count as known all the same.

    Such a pixel has no direction, whatever is said: it adds a constant 90 degrees to the angular loss.

    Args:
        normals: ``*b 3 h w``.
        valid: ``*b 1 h w`` bool, of the normals.
        depth_valid: ``*b 1 h w`` bool, of the depth of the same picture.

    Returns:
        The vectors, zero where either is not valid, and ``valid``.
    """
    return torch.where(valid & depth_valid, normals, 0.0), valid


def scale_shift_invariant(said: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """As `depth.scale_shift_invariant`, but an answer that fits upside down is brought to the truth's median.

    Canvases are raised by `RAISED` first. Where least squares give no positive scale, the loss is that of the canvas
    times the ratio of the two medians, the lower ones of even numbers.
    """
    p, g = said.mean(1) + RAISED, wanted.mean(1) + RAISED
    known, total = mask[:, 0], said.new_zeros(())
    for i in range(len(p)):
        here, there, m = p[i], g[i], known[i].to(p)
        a00, a01, a11 = (m * here * here).sum(), (m * here).sum(), m.sum()
        b0, b1 = (m * here * there).sum(), (m * there).sum()
        determinant = a00 * a11 - a01 * a01
        scale, shift = here.new_zeros(()), here.new_zeros(())
        if determinant > 0:
            scale, shift = (a11 * b0 - a01 * b1) / determinant, (a00 * b1 - a01 * b0) / determinant
        if scale > 0 or not known[i].any():
            fitted = scale * here + shift
        else:
            fitted = here * (there[known[i]].median() / (here[known[i]].median() + 1e-8))
        total = total + ((fitted - there).abs() * m).sum()
    return total / known.sum().clamp(min=1)


def median_scale_shift_invariant(said: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """L1 after each image's median became 0 and its mean deviation 1 (after MiDaS), which no released model used.

    Medians, the lower ones of even numbers, and deviations are of all pixels, known or not; the deviations' sum is
    divided by the number of known ones.
    """
    count = mask.flatten(1).sum(1).clamp(min=1)[:, None]

    def standard(canvas: Tensor) -> Tensor:
        flat = canvas.mean(1).flatten(1)
        centred = flat - flat.median(1, keepdim=True).values
        return centred / (centred.abs().sum(1, keepdim=True) / count + _TINY)

    apart = (standard(said) - standard(wanted)).abs().reshape(len(said), 1, *said.shape[-2:])
    return masked_mean(apart, mask)


def genpercept(task: Task) -> Task:
    """``task`` with the quirks of GenPercept's release: its encoding, and its losses and their weights.

    Of depth and disparity there is one loss more than it has weights for: ``median_ssi``.

    Raises:
        ValueError: a task that GenPercept does not have.
    """
    if task.name == "normals":
        return replace(task, weights={"angular": 1.0})
    if task.name in ("depth", "disparity"):
        encode = encode_depth if task.name == "depth" else encode_whole
        quirks = {
            "ssi": scale_shift_invariant,
            "gradient": gradient_vertical,
            "median_ssi": median_scale_shift_invariant,
        }
        return replace(task, encode=encode, losses={**task.losses, **quirks})
    if task.name in ("mask", "matting", "segmentation"):
        return replace(task, encode=encode_stretched)
    raise ValueError(
        f"GenPercept has no task {task.name!r}, only depth, disparity, normals, mask, matting and segmentation"
    )


def _quantile(values: Tensor, share: float) -> Tensor:
    """The quantile of all values, between two neighbours linearly; torch's own takes 16 million at most."""
    ordered = values.sort().values
    place = share * (len(ordered) - 1)
    low, high = int(place), min(int(place) + 1, len(ordered) - 1)
    return torch.lerp(ordered[low], ordered[high], place - low)
