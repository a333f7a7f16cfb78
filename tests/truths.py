"""Tasks of every kind with a target each, so that an invariant can be tested for all of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from twofold.geometry import unit
from twofold.targets.people import draw, heatmaps
from twofold.tasks import TASKS, Task, mask_task, semantic_logits_task, semantic_task

SIZE = (24, 32)
# Those of the package, and user-defined instances.
ALL: dict[str, Task] = {
    **TASKS,
    "two classes": semantic_task(2, name="ground", prompt="ground"),
    "ignoring": semantic_task(("sky", "land", "sea", "ice"), (255, 3), "regions", "regions"),
    "ignoring logits": semantic_logits_task(4, (255, 3), "region_logits", "regions"),
    "hair": mask_task("hair", "hair", target_key="matting"),
}


def metres(rng: torch.Generator) -> Tensor:
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    return (1 + 0.1 * y + 0.05 * x + 0.2 * torch.sin(x))[None, None].repeat(2, 1, 1, 1)


def vectors(rng: torch.Generator) -> Tensor:
    return unit(torch.randn(2, 3, *SIZE, generator=rng) + torch.tensor([0, 0, 1.5]).reshape(3, 1, 1))


def people(rng: torch.Generator, count: int = 2) -> tuple[Tensor, Tensor]:
    """Joints inside the image, and which are labelled, about four in five."""
    points = 3 + torch.rand(count, 17, 2, generator=rng) * torch.tensor([26.0, 18.0])
    return points, torch.rand(count, 17, generator=rng) > 0.2


def ids(count: int) -> Callable[[torch.Generator], Tensor]:
    return lambda rng: torch.randint(count, (2, 1, *SIZE), generator=rng).float()


def skeletons(rng: torch.Generator) -> Tensor:
    points, labelled = people(rng, 4)
    return torch.stack([draw(points[i : i + 2], labelled[i : i + 2], SIZE) for i in (0, 2)])


# By the name of the target, as data holds it.
TRUTHS: dict[str, Callable[[torch.Generator], Tensor]] = {
    "depth": metres,
    "normals": vectors,
    "mask": lambda rng: (torch.rand(2, 1, *SIZE, generator=rng) > 0.5).float(),
    "matting": lambda rng: torch.rand(2, 1, *SIZE, generator=rng),
    "keypoints": lambda rng: heatmaps(*people(rng), SIZE, 1.5),
    "skeleton": skeletons,
    **{
        name: lambda rng: torch.rand(2, 3, *SIZE, generator=rng)
        for name in ("segmentation", "albedo", "shading", "residual", "material")
    },
}

# Metres to a map in the task's own space.
SPACES = {
    "disparity": lambda d: 1 / d,
    "sqrt_disparity": lambda d: d.rsqrt(),
    "log_depth": lambda d: d.log(),
}


def known(task: Task, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A batch of two targets with holes in each, 0 there."""
    rng = torch.Generator().manual_seed(seed)
    valid = torch.rand(2, 1, *SIZE, generator=rng) > 0.2
    target = (ids(len(task.classes)) if task.classes else TRUTHS[task.target])(rng)
    return torch.where(valid, target, 0.0), valid


def perfect(task: Task, target: Tensor, valid: Tensor) -> Tensor:
    """The map of a perfect predictor, in metres for distances."""
    if task.space in SPACES:
        return SPACES[task.space](torch.where(valid, target, 1.0))
    return target.clamp(min=0) if task.name == "keypoints" else target


def network_output(task: Task, canvas: Tensor) -> Tensor:
    """The output of a perfect network for an encoded target: logits of ids, otherwise the encoded target."""
    if task.is_image or not task.classes:
        return canvas
    return torch.nn.functional.one_hot(canvas[:, 0].long(), len(task.classes)).movedim(-1, 1) * 30.0
