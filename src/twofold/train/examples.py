"""Training examples, each a function of the recipe and its number in the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..compat import genpercept_loader
from ..data.folder import Folder
from ..generate.relative import can_train_on
from ..tasks import Task
from .config import IMAGE
from .encoder import targets_of
from .model_config import DenoiserConfig
from .recipe import Recipe
from .sampler import SampleIndex, generator
from .source import Source


@dataclass(frozen=True)
class Example:
    """One image with the target of one task.

    Attributes:
        name: folder and id of the sample, for messages.
        kind: name of the task, or ``image``.
        caption: of the image.
        rng: source of randomness in the training step, such as noise and timestep.
        image: latent ``z h w``; for a network without an autoencoder, the image ``3 h w`` in [0, 1].
        target, mask, canvas, known: as in `encoder.EncodedTarget`.
        image_uint8: the image as bytes ``3 H W``, where a loss or an image encoder reads it.
        use_teacher_label: whether a pseudo-label of the EMA teacher replaces target and canvas.
    """

    name: str
    kind: str
    caption: str
    rng: torch.Generator
    image: Tensor
    target: Tensor | None = None
    mask: Tensor | None = None
    canvas: Tensor | None = None
    known: Tensor | None = None
    image_uint8: Tensor | None = None
    use_teacher_label: bool = False


# One image: its examples by task, with the same crop and colours.
MultiTaskExample = dict[str, Example]


def open_source(source: Source, recipe: Recipe, tasks: Iterable[Task]) -> Folder:
    """The folder of a source with the targets of ``tasks``, read with the options of source and recipe."""
    targets, override = targets_of(tasks), source.override
    if recipe.data.resample == "genpercept":
        # GenPercept's loader sets normals to zero where depth is invalid.
        targets = (*targets, "depth") if "normals" in targets and "depth" not in targets else targets
        depth = genpercept_loader.OVERRIDE["targets"]["depth"] | override.get("targets", {}).get("depth", {})
        override = {**override, "targets": {**genpercept_loader.OVERRIDE["targets"], "depth": depth}}
    return Folder(source.path, targets=targets, override=override)


def example_rng(recipe: Recipe, pick: SampleIndex) -> torch.Generator:
    """The random generator of one example."""
    return generator(recipe.loop.seed, "example", pick.number)


def with_target(folder: Folder, task: Task, indices: Sequence[int]) -> list[int]:
    """Those of ``indices`` whose samples have a task's target, in a space that the task can be trained on."""
    labelled = [i for i in indices if task.target in (folder.rows[i].get("targets") or {})]
    return [i for i in labelled if can_train_on(task, folder, i)]


def pools(
    recipe: Recipe, tasks: Mapping[str, Task], folders: Sequence[Folder], usable: Sequence[Sequence[int]]
) -> dict[str, list[list[int]]]:
    """Indices of usable samples by kind and source, at most ``data.label_limit`` per task, from the first source on."""
    found: dict[str, list[list[int]]] = {IMAGE: [list(u) for u in usable]}
    for name, task in tasks.items():
        left, found[name] = recipe.data.label_limit or None, []
        for source, folder, indices in zip(recipe.data.sources, folders, usable, strict=True):
            if source.labels == "teacher":
                found[name].append(list(indices))
                continue
            pool = with_target(folder, task, indices)[:left]
            left = None if left is None else left - len(pool)
            found[name].append(pool)
    return found


def drop_caption(text: str, recipe: Recipe, rng: torch.Generator) -> str:
    """The caption, or an empty one with probability ``caption_dropout``; draws a number for every kind of run."""
    probability = recipe.model.caption_dropout if isinstance(recipe.model, DenoiserConfig) else 0.0
    return "" if bool(torch.rand((), generator=rng) < probability) else text
