"""Examples encoded as they are drawn: every time a new crop, a new zoom and new colours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..data.folder import Folder
from ..image import resize, resize_nearest
from ..sample import Sample
from ..targets import target_spec
from ..tasks import Task
from .augment import colours, zoom
from .config import IMAGE
from .dataset import DrawnImage, ExampleDataset
from .encoder import Encoded, Encoder, Part, Unknown, check
from .examples import drop_caption, open_source
from .random_crop import random_crop
from .recipe import Recipe
from .sampler import SampleIndex
from .validation import SampleValidator, load_sample

# Samples are kept in memory once they have been read, up to so many bytes of them all.
MEMORY = 12 << 30


@dataclass(frozen=True)
class Held:
    """One sample in memory; its image is bytes, a quarter of the floats."""

    image: Tensor
    targets: Mapping[str, Tensor]
    valid: Mapping[str, Tensor]
    caption: str

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(x.nbytes for x in (self.image, *self.targets.values(), *self.valid.values()))


class OnlineDataset(ExampleDataset):
    """The images of a recipe with ``augment``: every time a new crop, and encoded then.

    Args:
        encoder: that makes examples.
        recipe: of the run.
        tasks: that are trained, by name.
        validator: finds the samples that can be used.
    """

    def __init__(
        self, encoder: Encoder, recipe: Recipe, tasks: Mapping[str, Task], validator: SampleValidator
    ) -> None:
        self.tasks = tasks
        folders = [open_source(s, recipe, tasks.values()) for s in recipe.data.sources]
        usable = [
            validator(folder, source.indices(len(folder)), partial(self._check, folder), always=False)
            for folder, source in zip(folders, recipe.data.sources, strict=True)
        ]
        super().__init__(encoder, recipe, tasks, folders, usable, encodes=True)
        self.held: dict[tuple[int, int], Held] = {}
        self.room = MEMORY // max(1, validator.workers)

    def _draw(self, pick: SampleIndex, name: str, kinds: tuple[str, ...], rng: torch.Generator) -> DrawnImage:
        source = self.recipe.data.sources[pick.source]
        size = source.size or self.recipe.data.size
        if pick.kind == IMAGE:
            return DrawnImage(name, kinds, self._image(pick, min(size), rng), rng, False)
        teacher = source.labels == "teacher"
        return DrawnImage(name, kinds, self._labelled(pick, kinds, size, rng), rng, teacher)

    def _image(self, pick: SampleIndex, side: int, rng: torch.Generator) -> Encoded:
        """A square crop of an image in its own colours: these are what is to be generated."""
        sample = self._sample(pick)
        box = zoom(sample.image.shape[-2:], (side, side), (0.8, 1.0), rng)
        crop = resize(_cut(sample.image, box).float() / 255, (side, side))
        crop = crop.flip(-1) if _mirrored(rng, self.recipe.data.hflip) else crop
        return Encoded(crop, drop_caption(sample.caption, self.recipe, rng))

    def _labelled(
        self, pick: SampleIndex, kinds: Sequence[str], size: tuple[int, int], rng: torch.Generator
    ) -> Encoded:
        """A crop of the recipe's size with new colours, and its target of each task."""
        sample = self._sample(pick)
        image, targets, inside = self._crop(sample, {kind: self.tasks[kind] for kind in kinds}, size, rng)
        picture = (image * 255).round().byte() if self.encoder.pictures else None
        parts = {kind: self._part(kind, image, targets, inside) for kind in kinds}
        return Encoded(image, sample.caption, parts, picture)

    def _crop(
        self, sample: Held, tasks: Mapping[str, Task], size: tuple[int, int], rng: torch.Generator
    ) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]], Tensor]:
        """Image, targets by task and the mask of what is not padding: as `random_crop`, where the recipe has one.

        Without, zoomed in by up to two, with colours as another camera might have seen them.
        """
        recipe = self.recipe
        if recipe.data.random_crop is None:
            image, targets = cropped(sample, tasks, size, rng, recipe.data.resample, recipe.data.hflip)
            return colours(image, rng), targets, torch.ones(1, *size, dtype=torch.bool)
        # Of all tasks of the recipe: under each of them an image has the same crop.
        classes = next((t for t in self.tasks.values() if t.classes and t.target in sample.targets), None)
        whole = Sample(sample.image, sample.targets, sample.valid)
        return random_crop(
            whole, tasks, classes, size, recipe.data.random_crop, rng, recipe.data.resample, recipe.data.hflip
        )

    def _part(
        self, kind: str, image: Tensor, targets: Mapping[str, tuple[Tensor, Tensor]], inside: Tensor
    ) -> Part:
        """What one task learns of a crop: all ``inside`` from the teacher where the sample has no target of its own."""
        task, size = self.tasks[kind], (inside.shape[-2], inside.shape[-1])
        if kind not in targets:
            return self.encoder.nothing(task, size, inside)
        target, valid = targets[kind]
        try:
            return self.encoder.part(task, Sample(image, {task.target: target}, {task.target: valid}))
        except Unknown:  # the crop shows nothing that is known: the picture is seen, nothing is learned
            return self.encoder.nothing(task, size)

    def _sample(self, pick: SampleIndex) -> Held:
        key = (pick.source, pick.sample)
        if key in self.held:
            return self.held[key]
        sample = load_sample(self.folders[pick.source], pick.sample)
        check(sample, self.tasks.values())
        held = _held(sample, self._short_edge(pick.source))
        if held.size <= self.room:
            self.room -= held.size
            self.held[key] = held
        return held

    def _short_edge(self, source: int) -> float:
        """Pixels of the short edge that unlabelled pictures are kept at: enough for every zoom that is drawn."""
        how, short = (
            self.recipe.data.random_crop,
            min(self.recipe.data.sources[source].size or self.recipe.data.size),
        )
        if how is None:
            return 1.25 * short
        return math.inf if how.relative_to == "image" else max(1.25, how.scale[1]) * short

    def _check(self, folder: Folder, i: int) -> None:
        check(load_sample(folder, i), self.tasks.values())


def cropped(
    sample: Held,
    tasks: Mapping[str, Task],
    size: tuple[int, int],
    rng: torch.Generator,
    resample: str = "bilinear",
    mirror: bool = True,
) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
    """A zoomed crop of one sample at ``size``, half the time mirrored.

    Returns:
        The image ``3 h w`` in [0, 1]; and of those ``tasks`` that the sample has a target of, the target ``c h w`` and
        its mask ``1 h w`` of the same crop.
    """
    box = zoom(sample.image.shape[-2:], size, (0.5, 1.0), rng)
    sized = resize_nearest if resample == "nearest" else resize
    image = sized(_cut(sample.image, box).float() / 255, size).clamp(0, 1)
    flipped = _mirrored(rng, mirror)
    targets: dict[str, tuple[Tensor, Tensor]] = {}
    for name, task in tasks.items():
        if task.target not in sample.targets:
            continue
        whole, where = sample.targets[task.target], sample.valid[task.target]
        target, valid = target_spec(task.target).resize(_cut(whole, box), _cut(where, box), size)
        targets[name] = (task.flip(target), valid.flip(-1)) if flipped else (target, valid)
    return image.flip(-1) if flipped else image, targets


def _mirrored(rng: torch.Generator, mirror: bool) -> bool:
    """Half the time, where it is asked for; drawn in either case, so that what else is random stays the same."""
    return bool(torch.rand((), generator=rng) < 0.5) and mirror


def _cut(x: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    top, left, height, width = box
    return x[..., top : top + height, left : left + width]


def _held(sample: Sample, short: float) -> Held:
    """Unlabelled pictures are brought to a short edge of ``short`` pixels, where theirs is longer."""
    image = sample.image
    h, w = image.shape[-2:]
    scale = short / min(h, w)
    if not sample.targets and scale < 1:
        image = resize(image, (round(h * scale), round(w * scale)))
    held = (image * 255).round().clamp(0, 255).to(torch.uint8)
    return Held(held, sample.targets, sample.valid, str(sample.caption))
