"""Training images in memory as bytes, and random crops of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..data.folder import Folder
from ..image import resize
from ..io import escape
from .source import Source


def draw_indices(rng: torch.Generator, shares: Sequence[float], count: int) -> list[int]:
    """Draw ``count`` indices with probabilities proportional to ``shares``."""
    return torch.multinomial(torch.tensor(shares, dtype=torch.float64), count, True, generator=rng).tolist()


class ImagePool:
    """The images of several folders as uint8, with captions; images smaller than the crop size are enlarged."""

    def __init__(self, sources: Sequence[Source], size: tuple[int, int]) -> None:
        self.size = size
        self.images: list[list[Tensor]] = []
        self.captions: list[list[str]] = []
        self.shares = [s.share for s in sources]
        for source in sources:
            folder = Folder(source.path, targets=(), override=source.override)
            loaded, captions = [], []
            for i in tqdm(
                source.indices(len(folder)), desc=f"reading {escape(Path(source.path).name)}", disable=None
            ):
                sample = folder[i]
                loaded.append(_bytes(sample.image, size))
                captions.append(str(sample.caption))
            self.images.append(loaded)
            self.captions.append(captions)

    def batch(self, rng: torch.Generator, count: int) -> Tensor:
        """``b 3 h w`` in [-1, 1]: random crops, mirrored half the time."""
        out = []
        for source in draw_indices(rng, self.shares, count):
            pool = self.images[source]
            image = pool[int(torch.randint(len(pool), (), generator=rng))]
            out.append(random_crop(image, self.size, rng))
        return torch.stack(out)


def _bytes(image: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = image.shape[-2:]
    scale = max(size[0] / height, size[1] / width, 1.0)
    if scale > 1:
        image = resize(image, (round(height * scale), round(width * scale)))
    return (image * 255).round().clamp(0, 255).to(torch.uint8)


def random_crop(image: Tensor, size: tuple[int, int], rng: torch.Generator) -> Tensor:
    """A crop of ``size`` from uint8 ``3 H W``, mirrored half the time, as float in [-1, 1]."""
    height, width = image.shape[-2:]
    top = int(torch.randint(height - size[0] + 1, (), generator=rng))
    left = int(torch.randint(width - size[1] + 1, (), generator=rng))
    crop = image[:, top : top + size[0], left : left + size[1]].float() / 127.5 - 1
    return crop.flip(-1) if bool(torch.rand((), generator=rng) < 0.5) else crop
