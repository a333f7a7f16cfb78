"""Windows out of whole images, as they are or mirrored; encoded once and kept, or each time they are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ..sample import Sample
from ..tasks import Task
from .config import IMAGE
from .contrast import check_contrast
from .encoder import Encoded, Encoder, check, resize_and_crop
from .examples import Example, MultiTaskExample, drop_caption, example_rng, open_source, pools
from .latent_cache import LatentCache
from .recipe import Recipe
from .sampler import DeterministicSampler, SampleIndex
from .source import Source
from .validation import SampleValidator, load_sample, named, usable


class CachedCropDataset:
    """Examples of a recipe without ``augment``; see `Examples`.

    With and without a cache the same encoder is asked for the same pictures one by one, so the examples are equal: bit
    for bit, except that several threads of a processor may round a sum otherwise than the one that examples are drawn
    by. CachedCropDataset are cut out of the latents of whole pictures.

    Args:
        encoder: what examples are made with.
        recipe: of the run.
        tasks: that are taught, by name.
        cache: folder of all stores; None keeps nothing.
        readable: says which samples can be used.
    """

    def __init__(
        self,
        encoder: Encoder,
        recipe: Recipe,
        tasks: Mapping[str, Task],
        cache: Path | None,
        readable: SampleValidator,
    ) -> None:
        self.recipe, self.stride = recipe, encoder.stride
        self.shelves = [_Shelf(encoder, recipe, source, cache) for source in recipe.data.sources]
        kept = [readable(s.folder, s.indices, s.look, always=cache is not None) for s in self.shelves]
        folders = [s.folder for s in self.shelves]
        check_contrast(recipe, tasks, folders, kept)
        self.order = DeterministicSampler(recipe, pools(recipe, tasks, folders, kept))

    def __call__(self, number: int) -> Example:
        """See `Examples`."""
        return self.of(self.order(number))

    def of(self, pick: SampleIndex) -> Example:
        """See `Examples`."""
        return self._examples(pick, (pick.kind,))[pick.kind]

    def all_of(self, pick: SampleIndex) -> MultiTaskExample:
        """See `Examples`."""
        return self._examples(pick, [p.kind for p in self.order.all_of(pick)])

    def _examples(self, pick: SampleIndex, kinds: Sequence[str]) -> MultiTaskExample:
        rng, shelf = example_rng(self.recipe, pick), self.shelves[pick.source]
        mirrored = bool(torch.randint(2, (), generator=rng)) and self.recipe.data.hflip
        with usable(shelf.folder, pick.sample):
            encoded = shelf(pick.sample, mirrored, kinds)
        caption = drop_caption(encoded.caption, self.recipe, rng)
        cut = _Window.random(encoded.image, [n // self.stride for n in shelf.size], self.stride, rng)
        taught = self.recipe.data.sources[pick.source].labels == "teacher"
        name, image = named(shelf.folder, pick.sample), cut.cut(encoded.image, 1)
        found: MultiTaskExample = {}
        for kind in kinds:
            part = encoded.parts.get(kind)
            if part is None and taught and kind != IMAGE:
                h, w = (n * self.stride for n in encoded.image.shape[-2:])
                part = shelf.encoder.nothing(shelf.encoder.tasks[kind], (h, w), known=True)
            common = name, kind, caption, rng.clone_state(), image
            if part is None:
                found[kind] = Example(*common)
                continue
            labels = (
                cut.cells(part.target),
                cut.cells(part.mask),
                cut.pixels(part.canvas),
                cut.pixels(part.known),
            )
            found[kind] = Example(*common, *labels, cut.pixels(encoded.picture), taught and kind != IMAGE)
        return found


class _Shelf:
    """One source's samples, encoded."""

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
        self.store = (
            LatentCache(encoder, self.folder, self.size, recipe.data.resample, cache, recipe.data.compat)
            if cache is not None
            else None
        )
        self.sample = lru_cache(maxsize=1)(
            self._sample
        )  # of one picture several things may be asked in a row

    def __call__(self, i: int, mirrored: bool, kinds: Sequence[str]) -> Encoded:
        if self.store is not None:
            return self.store.read(i, mirrored)
        return self.encoder(self.sample(i), mirrored, kinds)

    def look(self, i: int) -> None:
        """Keep what is made of a sample, or see at least that it can be made.

        Raises:
            BadSample: it cannot.
        """
        if self.store is not None:
            self.store.prepare(i)
        else:
            check(self._sample(i), self.encoder.tasks.values())

    def _sample(self, i: int) -> Sample:
        return resize_and_crop(load_sample(self.folder, i), self.size, self.encoder.stride, self.resample)


@dataclass(frozen=True)
class _Window:
    """A box of latent cells, and the pixels it stands for."""

    top: int
    left: int
    height: int
    width: int
    stride: int

    @classmethod
    def random(cls, image: Tensor, size: list[int], stride: int, rng: torch.Generator) -> _Window:
        """Somewhere inside ``c h w``, of at most ``size`` cells."""
        h, w = (min(n, m) for n, m in zip(image.shape[-2:], size, strict=True))
        top = int(torch.randint(image.shape[-2] - h + 1, (), generator=rng))
        left = int(torch.randint(image.shape[-1] - w + 1, (), generator=rng))
        return cls(top, left, h, w, stride)

    def cells(self, x: Tensor | None) -> Tensor | None:
        """The box of a latent ``c h w``."""
        return None if x is None else self.cut(x, 1)

    def pixels(self, x: Tensor | None) -> Tensor | None:
        """The same box of a map ``c H W``."""
        return None if x is None else self.cut(x, self.stride)

    def cut(self, x: Tensor, scale: int) -> Tensor:
        """The box at ``scale`` pixels a cell."""
        top, left = self.top * scale, self.left * scale
        return x[..., top : top + self.height * scale, left : left + self.width * scale]
