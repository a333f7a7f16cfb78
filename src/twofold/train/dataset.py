"""The images of a run as a `torch.utils.data.Dataset`, and a loader of its batches."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..data.folder import Folder
from ..tasks import Task
from .contrast import check_contrast
from .encoder import Encoded, EncodedTarget, Encoder
from .examples import Example, MultiTaskExample, example_rng, pools
from .recipe import Recipe
from .sampler import DeterministicSampler, SampleIndex
from .validation import named, usable
from .workers import parallel_map, value


@dataclass(frozen=True)
class Window:
    """A crop in latent cells, and in the pixels of these cells."""

    top: int
    left: int
    height: int
    width: int
    stride: int

    @classmethod
    def random(
        cls, cells: tuple[int, int], size: tuple[int, int], stride: int, rng: torch.Generator
    ) -> Window:
        """A random window of at most ``size`` cells in a map of ``cells`` (height, width)."""
        h, w = (min(n, m) for n, m in zip(cells, size, strict=True))
        top = int(torch.randint(cells[0] - h + 1, (), generator=rng))
        left = int(torch.randint(cells[1] - w + 1, (), generator=rng))
        return cls(top, left, h, w, stride)

    def crop(self, encoded: Encoded) -> Encoded:
        """The crop of an encoded sample."""
        targets = {
            kind: EncodedTarget(
                self._cut(target.target, 1),
                self._cut(target.mask, 1),
                self._cut(target.canvas, self.stride),
                self._cut(target.known, self.stride),
            )
            for kind, target in encoded.targets.items()
        }
        image_uint8 = self._cut(encoded.image_uint8, self.stride)
        return Encoded(self.cut(encoded.image, 1), encoded.caption, targets, image_uint8)

    def _cut(self, x: Tensor | None, scale: int) -> Tensor | None:
        return None if x is None else self.cut(x, scale)

    def cut(self, x: Tensor, scale: int) -> Tensor:
        """The crop of a map with ``scale`` pixels per cell."""
        top, left = self.top * scale, self.left * scale
        return x[..., top : top + self.height * scale, left : left + self.width * scale]


@dataclass(frozen=True)
class DrawnImage:
    """An image of a batch after all random choices, encoded or not yet.

    Attributes:
        name: folder and id of the sample.
        kinds: tasks that it is trained for.
        encoded: image, caption and targets.
        rng: source of randomness in the training step.
        use_teacher_label: see `Example`.
        window: crop to apply after encoding; None if it is cropped already.
    """

    name: str
    kinds: tuple[str, ...]
    encoded: Encoded
    rng: torch.Generator
    use_teacher_label: bool
    window: Window | None = None

    def examples(self) -> MultiTaskExample:
        """The examples of the image, by kind."""
        encoded = self.encoded if self.window is None else self.window.crop(self.encoded)
        return {kind: self._example(kind, encoded, encoded.targets.get(kind)) for kind in self.kinds}

    def _example(self, kind: str, encoded: Encoded, target: EncodedTarget | None) -> Example:
        common = self.name, kind, encoded.caption, self.rng.clone_state(), encoded.image
        if target is None:
            return Example(*common)
        labels = target.target, target.mask, target.canvas, target.known
        return Example(*common, *labels, encoded.image_uint8, self.use_teacher_label)


class ExampleDataset(Dataset[DrawnImage], abc.ABC):
    """A recipe's images by their number in the run; each is a function of the recipe and the number only.

    Args:
        encoder: encodes samples.
        recipe: of the run.
        tasks: that are trained, by name.
        folders: of the recipe's sources.
        usable: by source, the indices of usable samples.
        encodes: whether items are not encoded yet, so that `examples` encodes them.
    """

    def __init__(
        self,
        encoder: Encoder,
        recipe: Recipe,
        tasks: Mapping[str, Task],
        folders: Sequence[Folder],
        usable: Sequence[Sequence[int]],
        encodes: bool,
    ) -> None:
        check_contrast(recipe, tasks, folders, usable)
        self.encoder, self.recipe, self.folders, self.encodes = encoder, recipe, folders, encodes
        self.order = DeterministicSampler(recipe, pools(recipe, tasks, folders, usable))

    def __getitem__(self, index: int) -> DrawnImage:
        """The image of that number, with the kind that `order` selects, or with all its kinds if tasks are joint.

        Raises:
            BadSample: the sample cannot be used; the message names it.
        """
        pick, joint = self.order(index), self.recipe.joint_tasks
        kinds = tuple(p.kind for p in self.order.all_of(pick)) if joint else (pick.kind,)
        folder = self.folders[pick.source]
        with usable(folder, pick.sample):
            return self._draw(pick, named(folder, pick.sample), kinds, example_rng(self.recipe, pick))

    @abc.abstractmethod
    def _draw(self, pick: SampleIndex, name: str, kinds: tuple[str, ...], rng: torch.Generator) -> DrawnImage:
        """The image of a `SampleIndex`, with ``name`` and ``kinds``; ``rng`` is its only source of randomness."""

    def examples(self, drawn: Sequence[DrawnImage]) -> list[MultiTaskExample]:
        """The examples of a batch; images that are not encoded yet are encoded together on the encoder's device."""
        if self.encodes:
            encoded = self.encoder.encode([one.encoded for one in drawn])
            drawn = [replace(one, encoded=e) for one, e in zip(drawn, encoded, strict=True)]
        return [one.examples() for one in drawn]


class ExampleLoader:
    """This process's batches, loaded ahead by workers in the order of steps.

    A batch depends on its step only; another order of steps takes more time and gives the same batches.

    Args:
        dataset: of the run.
        recipe: of the run.
        local: indices of this process's examples in a batch.
        workers: worker processes; 0 loads examples when they are needed.
    """

    def __init__(self, dataset: ExampleDataset, recipe: Recipe, local: range, workers: int) -> None:
        self.dataset, self.recipe, self.local, self.workers = dataset, recipe, local, workers
        self.close()

    def __call__(self, step: int) -> list[MultiTaskExample]:
        """The examples of step ``step``.

        Raises:
            BadSample: one of the samples cannot be used.
        """
        if step != self.step or step >= self.recipe.loop.steps:
            self.close()
            self.drawn = parallel_map(
                self.dataset.__getitem__, self._numbers(step), self.workers, len(self.local)
            )
        self.step = step + 1
        return self.dataset.examples([value(next(self.drawn)) for _ in self.local])

    def close(self) -> None:
        """End the workers."""
        self.step = -1
        self.drawn: Iterator[DrawnImage | Exception] = iter(())

    def _numbers(self, start: int) -> Iterator[int]:
        """Numbers of this process's examples from step ``start`` on; of that step only if it is beyond the last."""
        for step in range(start, max(self.recipe.loop.steps, start + 1)):
            yield from (step * self.recipe.loop.batch_size + place for place in self.local)
