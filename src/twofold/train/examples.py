"""What the network is taught with: one example at a time, each a function of its number in the run alone."""

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
    """One image and what is to be said of it.

    Attributes:
        name: folder and id of the sample, for people.
        kind: what it teaches.
        caption: of the image.
        rng: what else is random about it is drawn from this.
        image: latent ``z h w``; for a network that looks at pictures, the picture ``3 h w`` in [0, 1].
        target, mask, canvas, known: as in `encoder.Part`.
        picture: ``3 H W`` bytes, where a loss looks at it.
        use_teacher_label: whether the teacher says what is to be learned, in place of target and canvas.
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
    picture: Tensor | None = None
    use_teacher_label: bool = False


# One image: by task, an example of it. All of them show the same window in the same colours.
MultiTaskExample = dict[str, Example]


def open_source(source: Source, recipe: Recipe, tasks: Iterable[Task]) -> Folder:
    """The folder of a source, read as source and recipe say."""
    targets, override = targets_of(tasks), source.override
    if recipe.data.resample == "genpercept":
        # Its normals are zeroed by the depth beside them.
        targets = (*targets, "depth") if "normals" in targets and "depth" not in targets else targets
        depth = genpercept_loader.OVERRIDE["targets"]["depth"] | override.get("targets", {}).get("depth", {})
        override = {**override, "targets": {**genpercept_loader.OVERRIDE["targets"], "depth": depth}}
    return Folder(source.path, targets=targets, override=override)


def example_rng(recipe: Recipe, pick: SampleIndex) -> torch.Generator:
    """The randomness of one example."""
    return generator(recipe.loop.seed, "example", pick.number)


def having(folder: Folder, task: Task, indices: Sequence[int]) -> list[int]:
    """Those of ``indices`` whose samples have a task's target, in a space that the task can learn from."""
    there = [i for i in indices if task.target in (folder.rows[i].get("targets") or {})]
    return [i for i in there if can_train_on(task, folder, i)]


def pools(
    recipe: Recipe, tasks: Mapping[str, Task], folders: Sequence[Folder], usable: Sequence[Sequence[int]]
) -> dict[str, list[list[int]]]:
    """By kind and source, the samples that can teach it; at most ``data.label_limit`` a task, of the first sources."""
    found: dict[str, list[list[int]]] = {IMAGE: [list(u) for u in usable]}
    for name, task in tasks.items():
        left, found[name] = recipe.data.label_limit or None, []
        for source, folder, indices in zip(recipe.data.sources, folders, usable, strict=True):
            if source.labels == "teacher":
                found[name].append(list(indices))
                continue
            pool = having(folder, task, indices)[:left]
            left = None if left is None else left - len(pool)
            found[name].append(pool)
    return found


def drop_caption(text: str, recipe: Recipe, rng: torch.Generator) -> str:
    """The caption, or an empty one with the recipe's probability; drawn for every kind of run."""
    probability = recipe.model.caption_dropout if isinstance(recipe.model, DenoiserConfig) else 0.0
    return "" if bool(torch.rand((), generator=rng) < probability) else text
