"""Crops of whole images, mirrored or not; latents are cached, or images are encoded each time they are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from ..tasks import Task
from .config import IMAGE
from .dataset import DrawnImage, ExampleDataset, Window
from .encoder import Encoded, Encoder, check, resize_and_crop
from .examples import drop_caption, open_source
from .latent_cache import LatentCache
from .recipe import Recipe
from .sampler import SampleIndex
from .source import Source
from .validation import SampleValidator, load_sample


class CachedCropDataset(ExampleDataset):
    """The images of a recipe without ``augment``: crops of the latents of whole images.

    With and without a cache the same images are encoded by `encode_canvases`, so the examples are bit-identical.

    Args:
        encoder: encodes samples.
        recipe: of the run.
        tasks: that are trained, by name.
        cache: folder of all caches; None caches nothing.
        validator: finds usable samples.
    """

    def __init__(
        self,
        encoder: Encoder,
        recipe: Recipe,
        tasks: Mapping[str, Task],
        cache: Path | None,
        validator: SampleValidator,
    ) -> None:
        self.stride = encoder.stride
        self.sources = [_EncodedSource(encoder, recipe, source, cache) for source in recipe.data.sources]
        usable = [s.usable(validator) for s in self.sources]
        folders = [s.folder for s in self.sources]
        super().__init__(encoder, recipe, tasks, folders, usable, encodes=cache is None)

    def _draw(self, pick: SampleIndex, name: str, kinds: tuple[str, ...], rng: torch.Generator) -> DrawnImage:
        source, stride = self.sources[pick.source], self.stride
        mirrored = bool(torch.randint(2, (), generator=rng)) and self.recipe.data.hflip
        encoded = source.load(pick.sample, mirrored, kinds)
        encoded = replace(encoded, caption=drop_caption(encoded.caption, self.recipe, rng))
        # An image that is not encoded yet has stride x stride pixels per cell.
        h, w = (n // (stride if self.encodes else 1) for n in encoded.image.shape[-2:])
        window = Window.random((h, w), (source.size[0] // stride, source.size[1] // stride), stride, rng)
        teacher = self.recipe.data.sources[pick.source].labels == "teacher" and pick.kind != IMAGE
        targets = {kind: encoded.targets[kind] for kind in kinds if kind in encoded.targets}
        if teacher:
            whole = (h * stride, w * stride)
            targets |= {
                k: self.encoder.empty_target(self.encoder.tasks[k], whole, known=True)
                for k in kinds
                if k not in targets
            }
        encoded = replace(encoded, targets=targets)
        if self.encodes:
            return DrawnImage(name, kinds, encoded, rng, teacher, window)
        return DrawnImage(name, kinds, window.crop(encoded), rng, teacher)


class _EncodedSource:
    """The samples of one source, from its latent cache or prepared for encoding."""

    def __init__(self, encoder: Encoder, recipe: Recipe, source: Source, cache: Path | None) -> None:
        self.resample, self.size = recipe.data.resample, source.size or recipe.data.size
        if recipe.data.resample == "genpercept":
            if any(n % encoder.stride for n in self.size):
                raise ValueError(
                    f"resample='genpercept' needs sizes that are multiples of {encoder.stride}, not {self.size}"
                )
            encoder = replace(encoder, released=self.size)
        self.encoder, self.folder = encoder, open_source(source, recipe, encoder.tasks.values())
        self.indices = source.indices(len(self.folder))
        self.cache = (
            LatentCache(encoder, self.folder, self.size, recipe.data.resample, cache, recipe.data.compat)
            if cache is not None
            else None
        )

    def load(self, i: int, mirrored: bool, kinds: tuple[str, ...]) -> Encoded:
        """Sample ``i`` from the cache, or prepared for encoding without a cache."""
        if self.cache is not None:
            return self.cache.read(i, mirrored)
        sample = resize_and_crop(load_sample(self.folder, i), self.size, self.encoder.stride, self.resample)
        return self.encoder.prepare(sample, mirrored, kinds)

    def usable(self, validator: SampleValidator) -> list[int]:
        """Indices of usable samples; with a cache, all of them are encoded and written to it."""
        if self.cache is not None:
            return validator(
                self.folder, self.indices, self.cache.prepare, always=True, keep=self.cache.write
            )
        return validator(self.folder, self.indices, self._check, always=False)

    def _check(self, i: int) -> None:
        sample = resize_and_crop(load_sample(self.folder, i), self.size, self.encoder.stride, self.resample)
        check(sample, self.encoder.tasks.values())
