"""Examples with data augmentation, encoded when they are drawn: random crop, zoom and colours."""

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
from .encoder import Encoded, EncodedTarget, Encoder, NoValidPixels, check
from .examples import drop_caption, open_source
from .random_crop import random_crop
from .recipe import Recipe
from .sampler import SampleIndex
from .validation import SampleValidator, load_sample

# Bytes of samples that are kept in memory once they have been read, over all workers of a process.
MEMORY = 12 << 30


@dataclass(frozen=True)
class MemorySample:
    """A sample in memory, with its image ``3 H W`` as bytes."""

    image: Tensor
    targets: Mapping[str, Tensor]
    valid: Mapping[str, Tensor]
    caption: str

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return sum(x.nbytes for x in (self.image, *self.targets.values(), *self.valid.values()))


class OnlineDataset(ExampleDataset):
    """The images of a recipe with ``augment``: a new random crop each time, not encoded yet.

    Args:
        encoder: encodes samples.
        recipe: of the run.
        tasks: that are trained, by name.
        validator: finds usable samples.
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
        self.memory: dict[tuple[int, int], MemorySample] = {}
        self.free_bytes = MEMORY // max(1, validator.workers)

    def _draw(self, pick: SampleIndex, name: str, kinds: tuple[str, ...], rng: torch.Generator) -> DrawnImage:
        source = self.recipe.data.sources[pick.source]
        size = source.size or self.recipe.data.size
        if pick.kind == IMAGE:
            return DrawnImage(name, kinds, self._image(pick, min(size), rng), rng, False)
        teacher = source.labels == "teacher"
        return DrawnImage(name, kinds, self._labelled(pick, kinds, size, rng), rng, teacher)

    def _image(self, pick: SampleIndex, side: int, rng: torch.Generator) -> Encoded:
        """A square crop of an image for the image task, without changes of colour, which would be generated too."""
        sample = self._sample(pick)
        box = zoom(sample.image.shape[-2:], (side, side), (0.8, 1.0), rng)
        crop = resize(_cut(sample.image, box).float() / 255, (side, side))
        crop = crop.flip(-1) if _mirrored(rng, self.recipe.data.hflip) else crop
        return Encoded(crop, drop_caption(sample.caption, self.recipe, rng))

    def _labelled(
        self, pick: SampleIndex, kinds: Sequence[str], size: tuple[int, int], rng: torch.Generator
    ) -> Encoded:
        """A crop of ``size`` with random colours, and the target of each task."""
        sample = self._sample(pick)
        image, targets, inside = self._crop(sample, {kind: self.tasks[kind] for kind in kinds}, size, rng)
        image_uint8 = (image * 255).round().byte() if self.encoder.keep_image else None
        encoded_targets = {kind: self._encoded_target(kind, image, targets, inside) for kind in kinds}
        return Encoded(image, sample.caption, encoded_targets, image_uint8)

    def _crop(
        self, sample: MemorySample, tasks: Mapping[str, Task], size: tuple[int, int], rng: torch.Generator
    ) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]], Tensor]:
        """Image, targets by task and the mask of pixels that are not padding.

        By `random_crop` if the recipe has one, otherwise a crop scaled up by at most two with `augment.colours`.
        """
        recipe = self.recipe
        if recipe.data.random_crop is None:
            image, targets = cropped(sample, tasks, size, rng, recipe.data.resample, recipe.data.hflip)
            return colours(image, rng), targets, torch.ones(1, *size, dtype=torch.bool)
        # Among all tasks of the recipe, so that an image has the same crop for each of them.
        classes = next((t for t in self.tasks.values() if t.classes and t.target in sample.targets), None)
        whole = Sample(sample.image, sample.targets, sample.valid)
        return random_crop(
            whole, tasks, classes, size, recipe.data.random_crop, rng, recipe.data.resample, recipe.data.hflip
        )

    def _encoded_target(
        self, kind: str, image: Tensor, targets: Mapping[str, tuple[Tensor, Tensor]], inside: Tensor
    ) -> EncodedTarget:
        """One task's target of a crop; without a target of the sample, ``inside`` gets the teacher's pseudo-label."""
        task, size = self.tasks[kind], (inside.shape[-2], inside.shape[-1])
        if kind not in targets:
            return self.encoder.empty_target(task, size, inside)
        target, valid = targets[kind]
        try:
            return self.encoder.encoded_target(
                task, Sample(image, {task.target: target}, {task.target: valid})
            )
        except NoValidPixels:  # in this crop: a target of zero weight
            return self.encoder.empty_target(task, size)

    def _sample(self, pick: SampleIndex) -> MemorySample:
        key = (pick.source, pick.sample)
        if key in self.memory:
            return self.memory[key]
        sample = load_sample(self.folders[pick.source], pick.sample)
        check(sample, self.tasks.values())
        small = _for_memory(sample, self._short_edge(pick.source))
        if small.size <= self.free_bytes:
            self.free_bytes -= small.size
            self.memory[key] = small
        return small

    def _short_edge(self, source: int) -> float:
        """The short edge, pixels, to which unlabelled images are reduced in memory: enough for every random scale."""
        options = self.recipe.data.random_crop
        short = min(self.recipe.data.sources[source].size or self.recipe.data.size)
        if options is None:
            return 1.25 * short
        return math.inf if options.relative_to == "image" else max(1.25, options.scale[1]) * short

    def _check(self, folder: Folder, i: int) -> None:
        check(load_sample(folder, i), self.tasks.values())


def cropped(
    sample: MemorySample,
    tasks: Mapping[str, Task],
    size: tuple[int, int],
    rng: torch.Generator,
    resample: str = "bilinear",
    mirror: bool = True,
) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
    """A random zoomed crop of one sample at ``size``, mirrored with probability 1/2.

    Returns:
        The image ``3 h w`` in [0, 1]; and by task, for those ``tasks`` that the sample has a target of, the target
        ``c h w`` and its valid pixels ``1 h w``.
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
    """True with probability 1/2 if ``mirror``; draws a number in either case, so that later ones stay the same."""
    return bool(torch.rand((), generator=rng) < 0.5) and mirror


def _cut(x: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    top, left, height, width = box
    return x[..., top : top + height, left : left + width]


def _for_memory(sample: Sample, short: float) -> MemorySample:
    """A sample for memory; unlabelled images are reduced to a short edge of ``short`` pixels if theirs is longer."""
    image = sample.image
    h, w = image.shape[-2:]
    scale = short / min(h, w)
    if not sample.targets and scale < 1:
        image = resize(image, (round(h * scale), round(w * scale)))
    image_uint8 = (image * 255).round().clamp(0, 255).to(torch.uint8)
    return MemorySample(image_uint8, sample.targets, sample.valid, str(sample.caption))
