"""A page of samples with their targets, to be looked at: what no check of numbers finds, an eye sees at once."""

from __future__ import annotations

import torch
from torch import Tensor

from twofold.data.folder import Folder
from twofold.image import resize, resize_nearest
from twofold.metrics import peaks
from twofold.sample import UNITS, Sample, mixes
from twofold.tasks.skeleton import draw
from twofold.visualization import (
    UNKNOWN,
    color_depth,
    color_mask,
    color_normals,
    color_picture,
    scaled_depth,
    sheet,
)

EDGE = 224
_GOLDEN = 0.61803398875


def contact_sheet(folder: Folder, count: int = 8, edge: int = EDGE) -> Tensor:
    """`count` samples spread evenly over the folder, a row each: the picture, then its targets. 3 H W in [0, 1].

    Each cell says the least and the largest valid value; what is unknown is grey. `edge` is the longest edge of a
    picture in pixels. Samples that cannot be read are left out (`validate` names them). ValueError when none can.
    """
    samples = _readable(folder, count)
    names = list(dict.fromkeys(name for sample in samples for name in sample.targets))
    cells: list[Tensor] = []
    titles: list[str] = []
    for sample in samples:
        small = _size(sample.image, edge)
        cells.append(_fit(sample.image, small))
        titles.append(_short(str(sample.id), small[1]))
        for name in names:
            there = name in sample.targets
            cells.append(
                _fit(target_picture(name, sample), small, mixes(name)) if there else torch.ones(3, *small)
            )
            titles.append(f"{name} {_span(name, sample)}" if there else f"no {name}")
    return sheet(cells, 1 + len(names), titles)


def target_picture(name: str, sample: Sample) -> Tensor:
    """One target of a sample in colours, 3 h w in [0, 1]; joints are drawn over the picture."""
    target, valid = sample.targets[name].float(), sample.valid[name]
    if name == "depth":
        return color_depth(scaled_depth(target, valid), valid | target.isinf())
    if name == "normals":
        return color_normals(target, valid)
    if name == "keypoints":
        return _joints(target, sample.image)
    if name in UNITS and UNITS[name].unit.endswith(" id"):
        return torch.where(valid, id_colors(target), UNKNOWN)
    if target.shape[0] == 3:
        return color_picture(target, valid, linear=name in ("shading", "residual"))
    one = target[:1]
    if not (name in UNITS and UNITS[name].unit.startswith("0")):
        one = scaled_depth(one, valid).clamp(0, 1)
    return color_mask(one, valid)


def id_colors(ids: Tensor) -> Tensor:
    """Whole numbers 1 h w as colours 3 h w in [0, 1]: 0 is black, neighbouring numbers look different."""
    # Steps of the golden ratio around the circle of hues never come back to where they were.
    hue = (ids * _GOLDEN) % 1
    bright = torch.where(ids % 2 == 0, 0.95, 0.65)
    strong = torch.where(ids % 3 == 0, 0.5, 0.9)
    wave = torch.stack([(n + 6 * hue[0]) % 6 for n in (5.0, 3.0, 1.0)])
    color = bright - bright * strong * torch.minimum(wave, 4 - wave).clamp(0, 1)
    return torch.where(ids == 0, 0.0, color)


def _readable(folder: Folder, count: int) -> list[Sample]:
    """Up to `count` samples, spread over the folder; the next one where one cannot be read."""
    found: list[Sample] = []
    asked: set[int] = set()
    for k in range(min(count, len(folder))):
        start = k * len(folder) // min(count, len(folder))
        for index in range(start, len(folder)):
            if index in asked:
                continue
            asked.add(index)
            try:
                found.append(folder[index])
            except (ValueError, OSError):
                continue
            break
    if not found:
        raise ValueError(f"{folder.root} has no sample that can be read, so there is nothing to show")
    return found


def _joints(heatmaps: Tensor, image: Tensor) -> Tensor:
    """The person whose joints the heatmaps 17 h w hold, drawn over the faded picture."""
    found = peaks(heatmaps)
    drawn = draw(found[None, :, :2], found[None, :, 2] > 0, (image.shape[-2], image.shape[-1]))
    return torch.where(drawn.amax(0, keepdim=True) > 0, drawn, image * 0.4 + 0.3)


def _size(image: Tensor, edge: int) -> tuple[int, int]:
    height, width = image.shape[-2:]
    scale = edge / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _fit(picture: Tensor, size: tuple[int, int], smooth: bool = True) -> Tensor:
    """Brought to a size, larger ones averaged and smaller ones with their pixels to be seen."""
    grows = size[0] > picture.shape[-2]
    return resize_nearest(picture, size) if grows or not smooth else resize(picture, size)


def _short(id: str, width: int) -> str:
    """The end of an id, which tells samples apart, as long as a title of `width` pixels may be."""
    most = max(8, width // 8)
    return id if len(id) <= most else f"…{id[1 - most :]}"


def _span(name: str, sample: Sample) -> str:
    target, valid = sample.targets[name], sample.valid[name]
    if name in ("normals", "keypoints", "skeleton"):
        return f"{float(valid.float().mean()):.0%}"
    if not bool(valid.any()):
        return "nowhere known"
    values = target[valid.expand_as(target)]
    return f"{float(values.min()):.3g} to {float(values.max()):.3g}"
