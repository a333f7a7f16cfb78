"""Names of user-defined code in a recipe; a recipe in a JSON file runs code only if the user names it as well.

A recipe in Python is a program that the user starts. A recipe in JSON is data, which may name a user-defined network,
head, backbone or task.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from ..named_code import names_code
from ..tasks import task_runs_code

if TYPE_CHECKING:
    from .recipe import Recipe


def named_code(recipe: Recipe) -> dict[str, str]:
    """Names of code outside twofold that a run of ``recipe`` imports, with the recipe's key of each."""
    network = {recipe.model.factory: "model.factory"} if recipe.model.kind == "network" else {}
    head = recipe.model.head.name if recipe.model.kind == "denoiser" else ""
    heads = {head: "model.head.name"} if names_code(head) else {}
    start = recipe.model.init_from
    backbones = {start: "model.init_from"} if names_code(start) else {}
    return (
        network
        | heads
        | backbones
        | {task: "data.task_weights" for task in recipe.tasks if task_runs_code(task)}
    )


def check_code(recipe: Recipe, path: Path, allowed: Collection[str] = ()) -> None:
    """Refuse a recipe from a JSON file that names code.

    Args:
        recipe: to run.
        path: of its file.
        allowed: names that the user passed.

    Raises:
        ValueError: the recipe names other code; the message has the option that allows it.
    """
    for name, key in named_code(recipe).items():
        if name not in allowed:
            value = json.dumps(recipe.data.task_weights) if key == "data.task_weights" else name
            raise ValueError(
                f"{path} names code ({key}: {name!r}), and a JSON file runs none; if you trust that code, pass "
                f"--set '{key}={value}', or write the recipe as a Python file"
            )
