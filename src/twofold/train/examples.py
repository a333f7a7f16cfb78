"""What a step is taught with: batches of latents, from a cache or encoded as they are drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ..backbones.stable_diffusion import StableDiffusion
from ..tasks import get_task
from .latents import Latents, encode_folder
from .pixels import pick
from .recipe import Recipe


@dataclass(frozen=True)
class Batch:
    """One task's examples: latents of images and, where the recipe asks for them, what is to be said of them.

    Attributes:
        image: ``b z h w``.
        target: ``b z h w``, and ``mask`` ``b 1 h w`` of the cells that count; None without a latent loss.
        canvas: ``b 3 H W`` in [-1, 1], and ``known`` ``b 1 H W``; None without a loss on pixels.
    """

    image: Tensor
    target: Tensor | None
    mask: Tensor | None
    canvas: Tensor | None
    known: Tensor | None


class Examples(Protocol):
    """Batches that depend on the generator's state alone."""

    def images(self, rng: torch.Generator, count: int) -> tuple[Tensor, list[str]]:
        """Latents ``b z h w`` of pictures, and their captions."""
        ...

    def labelled(self, task: str, rng: torch.Generator, count: int) -> Batch:
        """Examples of one task."""
        ...


class Cached:
    """Windows out of latents encoded once, as they are or mirrored: nothing is encoded while training."""

    def __init__(
        self, backbone: StableDiffusion, recipe: Recipe, tasks: tuple[str, ...], cache: Path
    ) -> None:
        self.recipe, self.stride = recipe, backbone.stride
        self.window = (recipe.size[0] // self.stride, recipe.size[1] // self.stride)
        pixels = recipe.image_weight > 0
        self.folders = [encode_folder(backbone, s, recipe.size, tasks, pixels, cache) for s in recipe.sources]
        self.pools = {
            t: labelled_pool([f.labelled(t) for f in self.folders], t, recipe, self._fits) for t in tasks
        }

    def _fits(self, folder: int, i: int) -> bool:
        h, w = self.folders[folder].images[i].shape[-2:]
        return h >= self.window[0] and w >= self.window[1]

    def images(self, rng: torch.Generator, count: int) -> tuple[Tensor, list[str]]:
        """Square windows, because photographs come in both orientations."""
        latents, captions = [], []
        side = min(self.window)
        for f in pick(rng, [s.share for s in self.recipe.sources], count):
            folder = self.folders[f]
            i = int(torch.randint(len(folder.images), (), generator=rng))
            mirrored = int(torch.randint(2, (), generator=rng))
            image = folder.images[i][mirrored].float()
            top, left = corner(image, (side, side), rng)
            latents.append(image[..., top : top + side, left : left + side])
            captions.append(caption(folder.captions[i], self.recipe, rng))
        smallest = tuple(min(x.shape[d] for x in latents) for d in (-2, -1))
        return torch.stack([x[:, : smallest[0], : smallest[1]] for x in latents]), captions

    def labelled(self, task: str, rng: torch.Generator, count: int) -> Batch:
        """Windows of the recipe's size."""
        pool = self.pools[task]
        rows = []
        for _ in range(count):
            f, i = pool[int(torch.randint(len(pool), (), generator=rng))]
            mirrored = int(torch.randint(2, (), generator=rng))
            rows.append(self._windowed(self.folders[f], task, i, mirrored, rng))
        image, target, mask = (torch.stack(x) for x in list(zip(*rows, strict=True))[:3])
        if rows[0][3] is None:
            return Batch(image, target, mask, None, None)
        canvas, known = (torch.stack([r[k] for r in rows]) for k in (3, 4))
        return Batch(image, target, mask, canvas, known)

    def _windowed(self, folder: Latents, task: str, i: int, side: int, rng: torch.Generator) -> tuple:
        target, mask = folder.targets[task][i], folder.masks[task][i]
        assert target is not None and mask is not None
        image = folder.images[i][side].float()
        top, left = corner(image, self.window, rng)
        h, w = self.window

        def cut(x: Tensor, scale: int = 1) -> Tensor:
            return x[..., top * scale : (top + h) * scale, left * scale : (left + w) * scale]

        canvas, known = folder.canvases[task][i], folder.known[task][i]
        if canvas is not None and known is not None:
            canvas = canvas.float() / 127.5 - 1
            if side:
                canvas, known = get_task(task).flip(canvas), known.flip(-1)
            canvas, known = cut(canvas, self.stride), cut(known, self.stride)
        return cut(image), cut(target[side].float()), cut(mask[side]), canvas, known


def labelled_pool(
    found: list[list[int]], task: str, recipe: Recipe, fits: Callable[[int, int], bool]
) -> list[tuple[int, int]]:
    """(folder, sample) pairs with the task's label, thinned to the first ``recipe.labels``.

    Raises:
        ValueError: there is none large enough.
    """
    pairs = [(f, i) for f, indices in enumerate(found) for i in indices if fits(f, i)]
    if not pairs:
        raise ValueError(f"no source has a {task} target as large as size={recipe.size}")
    return pairs[: recipe.labels or None]


def caption(text: str, recipe: Recipe, rng: torch.Generator) -> str:
    """The caption, or nothing as often as the recipe says."""
    return "" if bool(torch.rand((), generator=rng) < recipe.drop_caption) else text


def corner(x: Tensor, window: tuple[int, int], rng: torch.Generator) -> tuple[int, int]:
    """Top and left of a random window of at most ``window`` inside ``c h w``."""
    top = int(torch.randint(max(1, x.shape[-2] - window[0] + 1), (), generator=rng))
    left = int(torch.randint(max(1, x.shape[-1] - window[1] + 1), (), generator=rng))
    return top, left
