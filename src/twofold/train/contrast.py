"""Check before training for constant labels: masks all 0 or all 1, or a single class id."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence

from ..data.contrast import ValueRange, constant_labels, value_range
from ..data.folder import Folder
from ..targets import target_spec
from ..tasks import Task
from .encoder import BadSample
from .examples import with_target
from .recipe import Recipe

# Labels that are read at most, evenly spaced over a folder; the first that is not constant ends the search.
MAX_LABELS = 256


def check_contrast(
    recipe: Recipe, tasks: Mapping[str, Task], folders: Sequence[Folder], usable: Sequence[Sequence[int]]
) -> None:
    """Warn of every source whose labels of a task are constant: they carry no training signal.

    Raises:
        BadSample: a task's labels are masks or shares, and constant in all sources.
    """
    for task in tasks.values():
        spec = target_spec(task.target)
        if not (spec.is_share or spec.is_ids):
            continue
        found: list[str] = []
        for source, folder, indices in zip(recipe.data.sources, folders, usable, strict=True):
            labelled = with_target(folder, task, indices) if source.labels != "teacher" else []
            if labelled:
                found.append(_constant(folder, task.target, labelled))
        problems = [problem for problem in found if problem]
        if spec.is_share and problems and len(problems) == len(found):
            raise BadSample(f"{task.name} cannot be trained: {problems[0]}")
        for problem in problems:
            warnings.warn(f"{task.name}: {problem}", stacklevel=2)


def _constant(folder: Folder, target: str, indices: Sequence[int]) -> str:
    """A message about constant labels of a folder; empty if they are not constant."""
    count = min(len(indices), MAX_LABELS)
    ranges: list[ValueRange] = []
    for found in _value_ranges(folder, target, [indices[i * len(indices) // count] for i in range(count)]):
        ranges.append(found)
        if not constant_labels(target, ranges):
            return ""
    problem = constant_labels(target, ranges)
    return f"{folder.root}: {problem}" if problem else ""


def _value_ranges(folder: Folder, target: str, indices: Sequence[int]) -> Iterator[ValueRange]:
    """The value ranges of the labels that can be read; `validation` reports the others."""
    single = copy.copy(folder)
    single.targets = (target,)
    for i in indices:
        try:
            sample = single[i]
        except (ValueError, OSError):
            continue
        found = value_range(sample.targets[target], sample.valid[target])
        if found.least == found.least:
            yield found
