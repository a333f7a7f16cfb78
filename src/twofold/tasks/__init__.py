"""Tasks by name."""

import sys
from collections.abc import Callable
from dataclasses import replace

from .albedo import albedo
from .depth import depth
from .disparity import disparity
from .keypoints import keypoints
from .log_depth import log_depth
from .mask import mask, mask_task
from .material import material
from .matting import matting
from .normals import normals
from .parsing import parsing, parsing_logits
from .residual import residual
from .saliency import saliency
from .segmentation import segmentation
from .semantic import semantic, semantic_logits, semantic_logits_task, semantic_task
from .shading import shading
from .skeleton import skeleton
from .sqrt_disparity import sqrt_disparity
from .task import Task

_ALL = (
    depth, normals, disparity, sqrt_disparity, log_depth, mask, saliency, matting, segmentation, semantic,
    semantic_logits, parsing, parsing_logits, keypoints, skeleton, albedo, shading, residual, material,
)  # fmt: skip
TASKS: dict[str, Task] = {task.name: task for task in _ALL}


# Tasks of classes that may be given others: how each is made, and the target it is learned from.
_OF_CLASSES: dict[str, tuple[Callable[..., Task], str]] = {
    "semantic": (semantic_task, "semantic"),
    "semantic_logits": (semantic_logits_task, "semantic"),
    "parsing": (semantic_task, "parts"),
    "parsing_logits": (semantic_logits_task, "parts"),
}


def get_task(name: str, trusted: bool = True) -> Task:
    """A task by what recipes, checkpoints and commands call it.

    Args:
        name: one of `TASKS`; one of classes with one's own in brackets, their number or their names by id:
            ``semantic[21]``, ``semantic_logits[background,person]``; or ``package.module:object``.
        trusted: whether a person said it. What a checkpoint says imports no module that is not there already.

    Raises:
        ValueError: no such task; the message lists those there are.
    """
    if name in TASKS:
        return TASKS[name]
    base, opened, inside = name.partition("[")
    if opened and inside.endswith("]") and base in _OF_CLASSES:
        make, source = _OF_CLASSES[base]
        said = inside[:-1]
        classes = int(said) if said.isdigit() else [part.strip() for part in said.split(",")]
        return replace(make(classes, prompt=TASKS[base].prompt, source=source), name=base)
    module, found, attribute = name.partition(":")
    if found:
        from importlib import import_module

        if (
            not trusted
            and module not in sys.modules
            and module.partition(".")[0] != __name__.partition(".")[0]
        ):
            raise ValueError(
                f"{name} is a task of somebody's own, and a checkpoint runs no code: ask for it by this whole name, or "
                f"import {module} first"
            )
        task = getattr(import_module(module), attribute)
        if isinstance(task, Task):
            return task
        raise ValueError(f"{name} is a {type(task).__name__}, not a twofold Task")
    raise ValueError(
        f"unknown task {name!r}; known: {', '.join(TASKS)}; {' and '.join(_OF_CLASSES)} with classes of your own "
        "in brackets; or package.module:object"
    )


__all__ = [
    "TASKS",
    "Task",
    "albedo",
    "depth",
    "disparity",
    "get_task",
    "keypoints",
    "log_depth",
    "mask",
    "mask_task",
    "material",
    "matting",
    "normals",
    "parsing",
    "parsing_logits",
    "residual",
    "saliency",
    "segmentation",
    "semantic",
    "semantic_logits",
    "semantic_logits_task",
    "semantic_task",
    "shading",
    "skeleton",
    "sqrt_disparity",
]
