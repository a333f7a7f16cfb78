"""Before training: labels that are all empty, all full or all one id teach nothing, and score perfectly."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence

from ..data.contrast import ValueRange, constant_labels, value_range
from ..data.folder import Folder
from ..targets import target_spec
from ..tasks import Task
from .encoder import BadSample
from .examples import having
from .recipe import Recipe

# Labels that are read at most, spread over a folder; the first that shows contrast ends the search.
MOST = 256


def check_contrast(
    recipe: Recipe, tasks: Mapping[str, Task], folders: Sequence[Folder], usable: Sequence[Sequence[int]]
) -> None:
    """Warn of every source whose labels of a task are constant.

    Raises:
        BadSample: those of all sources are masks or shares, and constant.
    """
    for task in tasks.values():
        spec = target_spec(task.target)
        if not (spec.is_share or spec.is_ids):
            continue
        found: list[str] = []
        for source, folder, indices in zip(recipe.data.sources, folders, usable, strict=True):
            labelled = having(folder, task, indices) if source.labels != "teacher" else []
            if labelled:
                found.append(_constant(folder, task.target, labelled))
        problems = [problem for problem in found if problem]
        if spec.is_share and problems and len(problems) == len(found):
            raise BadSample(f"nothing can be learned of {task.name}: {problems[0]}")
        for problem in problems:
            warnings.warn(f"{task.name}: {problem}", stacklevel=2)


def _constant(folder: Folder, target: str, indices: Sequence[int]) -> str:
    """What is wrong with the labels of a folder; empty where one shows contrast."""
    spread = indices if len(indices) <= MOST else [indices[i * len(indices) // MOST] for i in range(MOST)]
    seen: list[ValueRange] = []
    for one in _extents(folder, target, spread):
        seen.append(one)
        if not constant_labels(target, seen):
            return ""
    problem = constant_labels(target, seen)
    return f"{folder.root}: {problem}" if problem else ""


def _extents(folder: Folder, target: str, indices: Sequence[int]) -> Iterator[ValueRange]:
    """Those of the labels that can be read; the others are reported where they are met."""
    narrow = copy.copy(folder)
    narrow.targets = (target,)
    for i in indices:
        try:
            sample = narrow[i]
        except (ValueError, OSError):
            continue
        one = value_range(sample.targets[target], sample.valid[target])
        if one.least == one.least:
            yield one
