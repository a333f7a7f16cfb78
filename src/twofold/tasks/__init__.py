"""Tasks by name."""

import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

from ..suggest import unknown
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
from .semantic import MOST, semantic, semantic_logits, semantic_logits_task, semantic_task
from .shading import shading
from .skeleton import skeleton
from .sqrt_disparity import sqrt_disparity
from .task import Task

_ALL = (
    depth, normals, disparity, sqrt_disparity, log_depth, mask, saliency, matting, segmentation, semantic,
    semantic_logits, parsing, parsing_logits, keypoints, skeleton, albedo, shading, residual, material,
)  # fmt: skip
TASKS: dict[str, Task] = {task.name: task for task in _ALL}

# Modules of twofold that hold further tasks. Importing them defines constants and functions, and does nothing else.
_OWN_MODULES = ("twofold.data.labels", "twofold.tasks.metric_depth")

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
        trusted: whether the name comes from the user: an option, an argument or a recipe in Python. A name that was
            read from a file is data: it imports no module, and finds a task of the user's own only where its module
            has been imported already.

    Raises:
        ValueError: no such task; the message lists those there are.
    """
    if name in TASKS:
        return TASKS[name]
    base, opened, inside = name.partition("[")
    if opened and inside.endswith("]") and base in _OF_CLASSES:
        make, source = _OF_CLASSES[base]
        said = inside[:-1]
        if said.isdecimal() and (len(said) > len(str(MOST)) or int(said) > MOST):
            raise ValueError(f"{base} has 2 to {MOST} classes, and {said[:20]} were named")
        classes = int(said) if said.isdecimal() else [part.strip() for part in said.split(",")]
        return replace(make(classes, prompt=TASKS[base].prompt, source=source), name=base)
    if ":" in name:
        return _task_in_code(name, trusted or name.partition(":")[0] in _OWN_MODULES)
    raise ValueError(
        f"{unknown('task', name, TASKS)}; {' and '.join(_OF_CLASSES)} with classes of your own in brackets; or "
        "package.module:object"
    )


def names_code(name: str) -> bool:
    """Whether a task's name is ``package.module:object``, outside twofold itself: to look it up runs that module."""
    module, colon, _ = name.partition(":")
    return bool(colon) and module not in _OWN_MODULES


def _task_in_code(name: str, trusted: bool) -> Task:
    """The task that a module holds; the module is imported only for a ``trusted`` name.

    Raises:
        ValueError: there is none, or a name that is data asks for a module that is not imported.
    """
    module, _, attribute = name.partition(":")
    if trusted:
        try:
            found: Any = getattr(import_module(module), attribute, None)
        except ModuleNotFoundError as error:
            if error.name and not f"{module}.".startswith(f"{error.name}."):
                raise  # a module that the named one imports
            raise ValueError(
                f"there is no module {module!r} for the task {name!r}; put it on PYTHONPATH"
            ) from error
    elif module in sys.modules:
        # Not getattr: a module's own __getattr__ may import another module for a name that it lacks.
        found = getattr(sys.modules[module], "__dict__", {}).get(attribute)
    else:
        raise ValueError(
            f"{name} is a task of somebody's own, and a checkpoint runs no code: where you trust it, name it yourself "
            f"(--task {name}), or import {module} first"
        )
    if isinstance(found, Task):
        return found
    raise ValueError(
        f"{name} is {'missing' if found is None else f'a {type(found).__name__}'}, not a twofold Task"
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
    "names_code",
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
