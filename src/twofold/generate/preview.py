"""A preview image of created samples: each source beside its samples, from weak to strong."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..data.folder import Folder
from ..image import longest_edge_size, resize
from ..sample import Sample
from ..targets import target_spec
from ..tasks import Task
from ..visualization import sheet
from .relative import from_depth, relative_space
from .resizing import resize_sample

# Titles of the rows that are not a task's; no task has such a name.
IMAGE, VALID = "image", "labels are valid"


def preview_image(
    created: Folder, sources: Folder, tasks: Mapping[str, Task], max_sources: int = 4, edge: int = 160
) -> Tensor:
    """For each of the first sources some rows: the image, each label, and where all of its labels are valid.

    The first column is the source with its own labels; the others are the strengths, from weak to strong.

    Args:
        created: samples of `folder.create_samples`.
        sources: of those.
        tasks: of the labels, by name.
        max_sources: how many sources are shown.
        edge: longest edge of a cell.

    Returns:
        ``3 H W`` in [0, 1].

    Raises:
        ValueError: no created sample has one of the sources.
    """
    by_source: dict[str, dict[int, int]] = {}
    for i, row in enumerate(created.rows):
        generator = (row.get("provenance") or {}).get("generator") or {}
        if generator.get("index") == 0:
            by_source.setdefault(generator["source"]["id"], {})[int(generator["start"])] = i
    positions = {row["id"]: i for i, row in enumerate(sources.rows)}
    chosen = [id for id in by_source if id in positions][:max_sources]
    if not chosen:
        raise ValueError(f"no sample of {created.root} was created from {sources.root}")
    starts = sorted({start for id in chosen for start in by_source[id]})
    cells: list[Tensor] = []
    titles: list[str] = []
    for id in chosen:
        source = sources[positions[id]]
        columns: list[tuple[str, Sample | None, str]] = [
            ("source", source, relative_space(sources, positions[id]))
        ]
        for start in starts:
            i = by_source[id].get(start)
            space = "" if i is None else relative_space(created, i)
            columns.append((f"T = {start}", None if i is None else created[i], space))
        size = longest_edge_size(*(int(n) for n in source.image.shape[-2:]), edge)
        for kind in (IMAGE, *tasks, VALID):
            for title, sample, space in columns:
                titles.append(title if kind == IMAGE else kind)
                cells.append(_cell(sample, kind, tasks, space, size))
    return sheet(cells, len(starts) + 1, titles)


def _cell(
    sample: Sample | None, kind: str, tasks: Mapping[str, Task], space: str, size: tuple[int, int]
) -> Tensor:
    if sample is None:
        return torch.ones(3, *size)
    if kind == IMAGE:
        return resize(sample.image, size).clamp(0, 1)
    small = resize_sample(sample, max(size))
    targets = [t.target for t in tasks.values() if t.target in small.valid]
    if kind == VALID:
        valid = (
            torch.stack([small.valid[t] for t in targets]).all(0)
            if targets
            else torch.zeros(1, *size, dtype=torch.bool)
        )
        return (valid * 0.75).expand(3, -1, -1)  # darker than the white background
    task = tasks[kind]
    if task.target not in small.targets:
        return torch.full((3, *size), 0.5)
    return color_target(task, small.targets[task.target], small.valid[task.target], space)


def color_target(task: Task, target: Tensor, valid: Tensor, space: str = "") -> Tensor:
    """A target ``c h w`` in the colours of its task, grey where it is invalid.

    ``space`` is that of an affine-invariant depth; a depth in metres is normalized as the task does it, so that both
    have the same colours.
    """
    spec = target_spec(task.target)
    map = spec.normalize(target, valid)
    if spec.is_distance and valid.any():
        if space == task.space:
            map = from_depth(torch.where(valid, target, 1.0), space)
        else:
            map = task.decode(task.encode(target[None], valid[None])[0])[0]
    return torch.where(valid, task.show(map), 0.5)
