"""What every stage has in common that teaches tasks: examples, the tasks' losses, the teacher's answers, scores."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
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
from .distributed import DistributedContext
from .encoder import Encoder
from .examples import Example, Examples, MultiTaskExample
from .online_dataset import OnlineDataset
from .prefetch import Prefetcher
from .preview import preview
from .recipe import Recipe
from .state import Ema
from .step import Loss, Terms
from .validation import SampleValidator, load_sample

PREVIEWED = 4  # pictures


class PerceptionStage(abc.ABC):
    """A stage of `loop.train` that teaches a network tasks; what the network is, its kinds say.

    Args:
        recipe: of the run.
        run: its folder.
        distributed: its processes.
        tasks: by the names that the recipe gives them.
        encoder: what examples are made with.
        cache: folder to keep encoded examples in; None keeps none.
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
        readable = SampleValidator(recipe.data.skip_bad, run / "skipped.jsonl", distributed)
        self.validation, self.held_out = self._held_out(readable)
        self.examples: Examples = self._examples(encoder, cache, readable)
        self.prefetcher = Prefetcher(self._drawn, recipe.loop.steps)
        self.teacher: Ema | None = None

    @abc.abstractmethod
    def loss(self, examples: Sequence[Any]) -> Loss:
        """The examples' part of their batch's loss."""

    @abc.abstractmethod
    def _predictors(self) -> Mapping[str, BasePredictor]:
        """By task, what answers pictures with the weights as they stand."""

    @abc.abstractmethod
    def finish(self) -> None:
        """Whatever is done once, after the last step."""

    def _held_out(self, readable: SampleValidator) -> tuple[Folder | None, list[int]]:
        """The samples to be scored and shown, looked at now: a broken one must not end a run at its first score."""
        if self.recipe.validation.data is None:
            return None, []
        folder = Folder(self.recipe.validation.data)
        first = range(min(max(self.recipe.validation.num_samples, PREVIEWED), len(folder)))
        return folder, readable(folder, first, partial(load_sample, folder), always=True)

    def _examples(self, encoder: Encoder, cache: Path | None, readable: SampleValidator) -> Examples:
        recipe = self.recipe
        if not recipe.data.augment:
            return CachedCropDataset(encoder, recipe, self.tasks, cache, readable)
        if any(n % encoder.stride for s in recipe.data.sources for n in s.size or recipe.data.size):
            raise ValueError(f"augmented examples need sizes that are multiples of {encoder.stride}")
        return OnlineDataset(encoder, recipe, self.tasks, readable)

    def draw(self, step: int) -> Sequence[MultiTaskExample]:
        """This process's images of step ``step``, each under the tasks that it is trained for."""
        return self.prefetcher(step)

    def _drawn(self, step: int) -> Sequence[MultiTaskExample]:
        examples, batch = self.examples, self.recipe.loop.batch_size
        picks = [examples.order(step * batch + n) for n in self.distributed.local_indices(batch)]
        if self.recipe.joint_tasks:
            return [examples.all_of(pick) for pick in picks]
        return [{pick.kind: examples.of(pick)} for pick in picks]

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
        """The examples with the teacher's ``decoded`` outputs and its ``latents``: none, or one per example.

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
        wanted = [to_batch(example, device) for example in examples]
        # Losses are sums over many pixels: never in half precision.
        with torch.autocast(device.type, enabled=False):
            for loss, weight in weights_of(self.recipe, name, task).items():
                if weight:
                    values = [
                        task.loss(p[None], canvas, known, {loss: 1.0}, seen)
                        for p, (canvas, known, seen) in zip(decoded, wanted, strict=True)
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
        """Truth, answer and error on the first held-out samples."""
        if self.validation is None or not self.tasks:
            return None
        samples = [self.validation[i] for i in self.held_out[:PREVIEWED]]
        able = {
            t: p for t, p in self._predictors().items() if any(p.task.target in s.targets for s in samples)
        }
        return preview(able, samples) if able else None


def weights_of(recipe: Recipe, name: str, task: Task) -> Mapping[str, float]:
    """Of a task's losses: the recipe's, or its own."""
    return recipe.loss.get(name, task.weights)


def look_at_pictures(recipe: Recipe, tasks: Mapping[str, Task]) -> bool:
    """Whether a loss looks at the picture."""
    return any(
        w and k in t.image_losses for n, t in tasks.items() for k, w in weights_of(recipe, n, t).items()
    )


def to_batch(example: Example, device: torch.device) -> tuple[Tensor, Tensor, Tensor | None]:
    """Canvas, mask and picture of one example, each a batch of one."""
    assert example.canvas is not None and example.known is not None
    seen = None if example.picture is None else example.picture[None].to(device).float() / 255
    return example.canvas[None].to(device), example.known[None].to(device), seen
