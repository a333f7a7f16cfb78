"""Examples encoded as they are drawn: every step sees a new crop, a new zoom and new colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..backbones.stable_diffusion import StableDiffusion
from ..data.folder import Folder
from ..geometry import unit
from ..image import resize, resize_map
from ..sample import mixes
from ..tasks import get_task
from .augment import colours, zoom
from .examples import Batch, caption, labelled_pool
from .latents import cell_mask, target_names
from .pixels import pick
from .recipe import Recipe, Source


@dataclass(frozen=True)
class Held:
    """One sample in memory; its image is bytes, a quarter of the floats."""

    image: Tensor
    targets: Mapping[str, Tensor]
    valid: Mapping[str, Tensor]
    caption: str


class Live:
    """Samples held in memory as they were read; crops are cut, coloured and encoded for each batch."""

    def __init__(self, backbone: StableDiffusion, recipe: Recipe, tasks: tuple[str, ...]) -> None:
        self.backbone, self.recipe = backbone, recipe
        backbone.vae.to(memory_format=torch.channels_last)  # 1.7 times as fast on a CPU
        self.folders = [_read(s, tasks, min(recipe.size)) for s in recipe.sources]
        found = [
            {t: [i for i, s in enumerate(folder) if get_task(t).target in s.targets] for t in tasks}
            for folder in self.folders
        ]
        self.pools = {t: labelled_pool([f[t] for f in found], t, recipe, lambda f, i: True) for t in tasks}

    def images(self, rng: torch.Generator, count: int) -> tuple[Tensor, list[str]]:
        """Square crops of pictures in their own colours: these are what is to be generated."""
        crops, captions = [], []
        side = min(self.recipe.size)
        for f in pick(rng, [s.share for s in self.recipe.sources], count):
            folder = self.folders[f]
            sample = folder[int(torch.randint(len(folder), (), generator=rng))]
            box = zoom(sample.image.shape[-2:], (side, side), (0.8, 1.0), rng)
            crop = resize(_cut(sample.image, box).float() / 255, (side, side))
            crops.append(crop.flip(-1) if bool(torch.rand((), generator=rng) < 0.5) else crop)
            captions.append(caption(sample.caption, self.recipe, rng))
        return self._encode(torch.stack(crops)), captions

    def labelled(self, task: str, rng: torch.Generator, count: int) -> Batch:
        """Crops of the recipe's size, zoomed by up to two, with colours as another camera might have seen them."""
        pool, size, learned = self.pools[task], self.recipe.size, get_task(task)
        images, canvases, masks = [], [], []
        for _ in range(count):
            f, i = pool[int(torch.randint(len(pool), (), generator=rng))]
            image, target, valid = cropped(self.folders[f][i], task, size, rng)
            canvas, known = learned.encode(target[None], valid[None])
            images.append(colours(image, rng))
            canvases.append(canvas[0])
            masks.append(known[0])
        canvas, known = torch.stack(canvases), torch.stack(masks)
        latent = self._encode(torch.stack(images))
        if not self.recipe.latent_weight:
            return Batch(latent, None, None, canvas, known)
        target = self._encode(canvas, picture=False)
        return Batch(latent, target, cell_mask(known, self.backbone.stride), canvas, known)

    @torch.no_grad()
    def _encode(self, x: Tensor, picture: bool = True) -> Tensor:
        x = x * 2 - 1 if picture else x
        return self.backbone.encode(x.contiguous(memory_format=torch.channels_last)).contiguous()


def cropped(
    sample: Held, task: str, size: tuple[int, int], rng: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """A zoomed crop of one sample at ``size``, mirrored half the time: image in [0, 1], target and its mask."""
    box = zoom(sample.image.shape[-2:], size, (0.5, 1.0), rng)
    image = resize(_cut(sample.image, box).float() / 255, size).clamp(0, 1)
    learned = get_task(task)
    whole, where = sample.targets[learned.target], sample.valid[learned.target]
    nearest = not mixes(learned.target)
    target, valid = resize_map(_cut(whole, box), _cut(where, box), size, nearest)
    if learned.frame:
        target = torch.where(valid, unit(target), 0)
    if bool(torch.rand((), generator=rng) < 0.5):
        image, target, valid = image.flip(-1), learned.flip(target), valid.flip(-1)
    return image, target, valid


def _cut(x: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    top, left, height, width = box
    return x[..., top : top + height, left : left + width]


def _read(source: Source, tasks: tuple[str, ...], short: int) -> list[Held]:
    """Unlabelled pictures are brought to a short edge a quarter above the crop's."""
    folder = Folder(source.path, targets=target_names(tasks))
    out = []
    for i in tqdm(source.indices(len(folder)), desc=f"reading {Path(source.path).name}", disable=None):
        sample = folder[i]
        image = sample.image
        h, w = image.shape[-2:]
        scale = 1.25 * short / min(h, w)
        if not sample.targets and scale < 1:
            image = resize(image, (round(h * scale), round(w * scale)))
        held = (image * 255).round().clamp(0, 255).to(torch.uint8)
        out.append(Held(held, sample.targets, sample.valid, str(sample.caption)))
    return out
