"""Tasks by name."""

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


def get_task(name: str) -> Task:
    """The task called ``name``, or ``package.module:object`` of one's own.

    Raises:
        ValueError: no such task; the message lists those there are.
    """
    if name in TASKS:
        return TASKS[name]
    module, found, attribute = name.partition(":")
    if found:
        from importlib import import_module

        task = getattr(import_module(module), attribute)
        if isinstance(task, Task):
            return task
        raise ValueError(f"{name} is a {type(task).__name__}, not a twofold Task")
    raise ValueError(
        f"unknown task {name!r}; known: {', '.join(TASKS)}, or package.module:object of your own"
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
