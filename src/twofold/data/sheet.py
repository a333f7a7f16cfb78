"""Contact sheets of samples and their targets, for visual inspection."""

from __future__ import annotations

import torch
from torch import Tensor

from twofold.data.folder import Folder
from twofold.image import resize, resize_nearest
from twofold.sample import Sample
from twofold.targets import target_spec
from twofold.visualization import sheet

EDGE = 224


def draw_sample_sheet(folder: Folder, count: int = 8, edge: int = EDGE) -> Tensor:
    """`count` samples spread evenly over the folder, one row each: the image, then its targets. 3 H W in [0, 1].

    The title of a cell has the minimum and maximum of its valid values; invalid pixels are grey. `edge` is the longest
    edge of an image in pixels. Samples that cannot be read are skipped (`validate` reports them). ValueError when none
    can be read.
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
            available = name in sample.targets
            cells.append(
                _fit(target_image(name, sample), small, target_spec(name).is_interpolable)
                if available
                else torch.ones(3, *small)
            )
            titles.append(f"{name} {_span(name, sample)}" if available else f"no {name}")
    return sheet(cells, 1 + len(names), titles)


def target_image(name: str, sample: Sample) -> Tensor:
    """Preview image of one target of a sample, 3 h w in [0, 1]."""
    return target_spec(name).color(sample.targets[name].float(), sample.valid[name], sample.image)


def _readable(folder: Folder, count: int) -> list[Sample]:
    """Up to `count` samples, spread over the folder; an unreadable sample is replaced by the next one."""
    found: list[Sample] = []
    tried: set[int] = set()
    for k in range(min(count, len(folder))):
        start = k * len(folder) // min(count, len(folder))
        for index in range(start, len(folder)):
            if index in tried:
                continue
            tried.add(index)
            try:
                found.append(folder[index])
            except (ValueError, OSError):
                continue
            break
    if not found:
        raise ValueError(f"{folder.root} has no readable sample; run 'twofold data validate' to see why")
    return found


def _size(image: Tensor, edge: int) -> tuple[int, int]:
    height, width = image.shape[-2:]
    scale = edge / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _fit(image: Tensor, size: tuple[int, int], smooth: bool = True) -> Tensor:
    """Resize to a size: downscaling with antialiasing, upscaling by the nearest pixel."""
    grows = size[0] > image.shape[-2]
    return resize_nearest(image, size) if grows or not smooth else resize(image, size)


def _short(id: str, width: int) -> str:
    """The end of an id, as long as fits into a title of `width` pixels."""
    most = max(8, width // 8)
    return id if len(id) <= most else f"…{id[1 - most :]}"


def _span(name: str, sample: Sample) -> str:
    target, valid = sample.targets[name], sample.valid[name]
    if not target_spec(name).has_range:
        return f"{float(valid.float().mean()):.0%}"
    if not bool(valid.any()):
        return "no valid pixel"
    values = target[valid.expand_as(target)]
    return f"{float(values.min()):.3g} to {float(values.max()):.3g}"
