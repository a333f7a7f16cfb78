"""Tasks by name, one file each."""

from collections.abc import Callable
from dataclasses import replace

from ..named_code import find_object
from ..suggest import unknown
from .albedo import albedo as albedo
from .depth import depth as depth
from .disparity import disparity as disparity
from .keypoints import keypoints as keypoints
from .log_depth import log_depth as log_depth
from .mask import mask as mask, mask_task as mask_task
from .material import material as material
from .matting import matting as matting
from .normals import normals as normals
from .parsing import parsing as parsing, parsing_logits as parsing_logits
from .residual import residual as residual
from .saliency import saliency as saliency
from .segmentation import segmentation as segmentation
from .semantic import (
    MOST,
    semantic as semantic,
    semantic_logits as semantic_logits,
    semantic_logits_task as semantic_logits_task,
    semantic_task as semantic_task,
)
from .shading import shading as shading
from .skeleton import skeleton as skeleton
from .sqrt_disparity import sqrt_disparity as sqrt_disparity
from .task import Task as Task

# Those that are imported above: the import of a task registers it.
TASKS: dict[str, Task] = {task.name: task for task in tuple(globals().values()) if isinstance(task, Task)}

# Modules of twofold that hold further tasks; importing them has no side effects.
_OWN_MODULES = ("twofold.compat.class_colors", "twofold.data.labels", "twofold.tasks.metric_depth")

# Tasks whose classes may be replaced: the function that makes each, and its target.
_CLASS_TASKS: dict[str, tuple[Callable[..., Task], str]] = {
    "semantic": (semantic_task, "semantic"),
    "semantic_logits": (semantic_logits_task, "semantic"),
    "parsing": (semantic_task, "parts"),
    "parsing_logits": (semantic_logits_task, "parts"),
}


def get_task(name: str, trusted: bool = True) -> Task:
    """The task of a name from a recipe, checkpoint or command.

    Args:
        name: one of `TASKS`; a semantic task with other classes in brackets, as a number or as names in the order of
            their ids: ``semantic[21]``, ``semantic_logits[background,person]``; or ``package.module:object``.
        trusted: whether the user passed the name; a name from a file imports no module, see `named_code`.

    Raises:
        ValueError: no such task.
    """
    if name in TASKS:
        return TASKS[name]
    base, opened, inside = name.partition("[")
    if opened and inside.endswith("]") and base in _CLASS_TASKS:
        make, target_key = _CLASS_TASKS[base]
        listed = inside[:-1]
        if listed.isdecimal() and (len(listed) > len(str(MOST)) or int(listed) > MOST):
            raise ValueError(f"{base} has 2 to {MOST} classes, not {listed[:20]}")
        classes = int(listed) if listed.isdecimal() else [part.strip() for part in listed.split(",")]
        return replace(make(classes, prompt=TASKS[base].prompt, target_key=target_key), name=base)
    if ":" in name:
        module = name.partition(":")[0]
        remedy = f"pass the task by that name (--task {name}), or import {module} first"
        return find_object(name, "task", Task, trusted or module in _OWN_MODULES, remedy)
    raise ValueError(
        f"{unknown('task', name, TASKS)}; {' and '.join(_CLASS_TASKS)} with other classes in brackets; or "
        "package.module:object"
    )


def task_runs_code(name: str) -> bool:
    """Whether a task's name is ``package.module:object`` of a module outside twofold, which looking it up imports."""
    return ":" in name and name.partition(":")[0] not in _OWN_MODULES
