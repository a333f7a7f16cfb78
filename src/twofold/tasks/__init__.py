"""Tasks by name."""

from .depth import depth
from .normals import normals
from .task import Task

TASKS: dict[str, Task] = {"depth": depth, "normals": normals}


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


__all__ = ["TASKS", "Task", "depth", "get_task", "normals"]
