"""Base class of the perception training stages: examples, task losses, pseudo-labels, validation."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.folder import Folder
from ..evaluate import score
from ..predict.base import BasePredictor
from ..predict.finite import check_finite
from ..tasks import Task
from .cached_crops import CachedCropDataset
from .dataset import ExampleDataset, ExampleLoader
from .distributed import DistributedContext
from .encoder import Encoder
from .examples import Example
from .online_dataset import OnlineDataset
from .preview import preview
from .recipe import Recipe
from .state import Ema
from .step import Loss, Terms
from .validation import SampleValidator, load_sample
from .workers import worker_count

NUM_PREVIEWS = 4  # samples in a preview image


class PerceptionStage(abc.ABC):
    """A stage of `loop.train` that trains perception tasks; subclasses define the network.

    Args:
        recipe: of the run.
        run: its folder.
        distributed: its processes.
        tasks: by their names in the recipe.
        encoder: encodes samples to training examples.
        cache: folder of cached latents; None caches nothing.
    """

    module: nn.Module

    def __init__(
        self,
        recipe: Recipe,
        run: Path,
        distributed: DistributedContext,
        tasks: Mapping[str, Task],
        encoder: Encoder,
        cache: Path | None,
    ) -> None:
        self.recipe, self.distributed, self.tasks = recipe, distributed, tasks
        workers = worker_count(recipe.data.num_workers, distributed.device, distributed.size)
        validator = SampleValidator(recipe.data.skip_bad, run / "skipped.jsonl", distributed, workers)
        self.validation, self.held_out = self._held_out(validator)
        dataset, local = (
            self._dataset(encoder, cache, validator),
            distributed.local_indices(recipe.loop.batch_size),
        )
        self.draw = ExampleLoader(dataset, recipe, local, workers)
        self.teacher: Ema | None = None

    @abc.abstractmethod
    def loss(self, examples: Sequence[Any]) -> Loss:
        """The loss of ``examples``, a part of a batch (see `step.Loss`)."""

    @abc.abstractmethod
    def _predictors(self) -> Mapping[str, BasePredictor]:
        """By task, a predictor with the current weights."""

    @abc.abstractmethod
    def finish(self) -> None:
        """Called once, after the last step."""

    def _held_out(self, validator: SampleValidator) -> tuple[Folder | None, list[int]]:
        """The validation folder and the indices used for scores and previews, all read once before training.

        Otherwise a broken sample would end the run at its first validation.
        """
        if self.recipe.validation.data is None:
            return None, []
        folder = Folder(self.recipe.validation.data)
        first = range(min(max(self.recipe.validation.num_samples, NUM_PREVIEWS), len(folder)))

        def check(i: int) -> None:
            load_sample(folder, i)

        return folder, validator(folder, first, check, always=True)

    def _dataset(self, encoder: Encoder, cache: Path | None, validator: SampleValidator) -> ExampleDataset:
        recipe = self.recipe
        if not recipe.data.augment:
            return CachedCropDataset(encoder, recipe, self.tasks, cache, validator)
        if any(n % encoder.stride for s in recipe.data.sources for n in s.size or recipe.data.size):
            raise ValueError(f"augmented examples need sizes that are multiples of {encoder.stride}")
        return OnlineDataset(encoder, recipe, self.tasks, validator)

    def close(self) -> None:
        """End the workers."""
        self.draw.close()

    def _teacher(self) -> Ema:
        if self.teacher is None:
            raise ValueError("labels='teacher' needs a run with averaged weights (`loop.train`)")
        return self.teacher

    def _apply_pseudo_labels(
        self,
        name: str,
        examples: Sequence[Example],
        decoded: Iterable[Tensor],
        latents: Iterable[Tensor] = (),
    ) -> list[Example]:
        """The examples with pseudo-labels: of those with ``use_teacher_label``, the targets are replaced in order.

        Args:
            name: of the task.
            examples: of that task.
            decoded: the teacher's head outputs, ``c h w``: none, or one for each example with ``use_teacher_label``.
            latents: its x0 latents, ``z h w``: likewise.

        Raises:
            NonFiniteError: a pseudo-label is NaN or infinite; the message names the sample.
        """
        task, canvases, targets = self.tasks[name], iter(decoded), iter(latents)
        out = []
        for example in examples:
            if example.use_teacher_label:
                canvas, target = next(canvases, None), next(targets, None)
                if canvas is not None:
                    canvas = canvas.float()
                    check_finite(canvas, f"the EMA teacher's {name} pseudo-label of {example.name}")
                    canvas = canvas.clamp(-1, 1) if task.is_image else task.decode(canvas[None])[0]
                    example = replace(example, canvas=canvas)
                if target is not None:
                    check_finite(target, f"the EMA teacher's {name} latent of {example.name}")
                    example = replace(example, target=target.float())
            out.append(example)
        return out

    def _pixel_loss_terms(self, name: str, decoded: Tensor, examples: Sequence[Example]) -> Terms:
        task, device, terms = self.tasks[name], self.distributed.device, {}
        for p, example in zip(decoded, examples, strict=True):
            check_finite(p, f"the network's {name} output for {example.name}")
        targets = [to_batch(example, device) for example in examples]
        # Losses are sums over many pixels: not in half precision.
        with torch.autocast(device.type, enabled=False):
            for loss, weight in loss_weights(self.recipe, name, task).items():
                if weight:
                    values = [
                        task.loss(p[None], target, valid, {loss: 1.0}, image)
                        for p, (target, valid, image) in zip(decoded, targets, strict=True)
                    ]
                    terms[loss] = (self.recipe.pixel_loss_weight * weight, torch.stack(values))
        return terms

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The tasks' metrics on held-out samples."""
        if self.validation is None:
            return {}
        samples = [self.validation[i] for i in self.held_out[: self.recipe.validation.num_samples]]
        return score(self._predictors().values(), samples)

    @torch.no_grad()
    def preview(self) -> Tensor | None:
        """A contact sheet of the first validation samples, see `preview.preview`; None without targets."""
        if self.validation is None or not self.tasks:
            return None
        samples = [self.validation[i] for i in self.held_out[:NUM_PREVIEWS]]
        predictors = {
            t: p for t, p in self._predictors().items() if any(p.task.target in s.targets for s in samples)
        }
        return preview(predictors, samples) if predictors else None


def loss_weights(recipe: Recipe, name: str, task: Task) -> Mapping[str, float]:
    """Weights of a task's losses: the recipe's, or the task's own."""
    return recipe.loss.get(name, task.weights)


def losses_need_image(recipe: Recipe, tasks: Mapping[str, Task]) -> bool:
    """Whether a loss of non-zero weight depends on the image."""
    return any(
        w and k in t.image_losses for n, t in tasks.items() for k, w in loss_weights(recipe, n, t).items()
    )


def to_batch(example: Example, device: torch.device) -> tuple[Tensor, Tensor, Tensor | None]:
    """Encoded target ``1 c h w``, valid pixels ``1 1 h w`` and image ``1 3 h w`` in [0, 1] (or None) of one example."""
    assert example.canvas is not None and example.known is not None
    image = None if example.image_uint8 is None else example.image_uint8[None].to(device).float() / 255
    return example.canvas[None].to(device), example.known[None].to(device), image
