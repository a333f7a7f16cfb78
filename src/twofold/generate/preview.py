"""A contact sheet of created samples, for eyes: of each source, what every strength made of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..data.folder import Folder
from ..geometry import unit
from ..image import longest_edge_size, resize
from ..sample import Sample
from ..tasks import Task
from ..visualization import sheet
from .relative import from_depth, relative_space
from .resizing import fitted

# What a row shows beside labels, which are called as their tasks are; no task has such a name.
PICTURE, HELD = "the picture", "labels hold"


def contact_sheet(
    created: Folder, sources: Folder, tasks: Mapping[str, Task], most: int = 4, edge: int = 160
) -> Tensor:
    """Of each of the first ``most`` sources some rows: picture, each label, and where all of its labels hold.

    The first column is the source with its own labels, the others are the strengths that were created, weak to strong.

    Args:
        created: samples that `job.create` made.
        sources: that they were made of.
        tasks: of the labels, by name.
        most: sources shown.
        edge: longest edge of a cell.

    Returns:
        ``3 H W`` in [0, 1].

    Raises:
        ValueError: there is nothing to show.
    """
    by_source: dict[str, dict[int, int]] = {}
    for i, row in enumerate(created.rows):
        made = (row.get("provenance") or {}).get("generator") or {}
        if made.get("index") == 0:
            by_source.setdefault(made["source"]["id"], {})[int(made["start"])] = i
    places = {row["id"]: i for i, row in enumerate(sources.rows)}
    chosen = [id for id in by_source if id in places][:most]
    if not chosen:
        raise ValueError(f"{created.root} has no sample of {sources.root} to show")
    starts = sorted({start for id in chosen for start in by_source[id]})
    cells: list[Tensor] = []
    titles: list[str] = []
    for id in chosen:
        source = sources[places[id]]
        columns: list[tuple[str, Sample | None, str]] = [
            ("source", source, relative_space(sources, places[id]))
        ]
        for start in starts:
            at = by_source[id].get(start)
            space = "" if at is None else relative_space(created, at)
            columns.append((f"T = {start}", None if at is None else created[at], space))
        size = longest_edge_size(*(int(n) for n in source.image.shape[-2:]), edge)
        for kind in (PICTURE, *tasks, HELD):
            for title, sample, space in columns:
                titles.append(title if kind == PICTURE else kind)
                cells.append(_cell(sample, kind, tasks, space, size))
    return sheet(cells, len(starts) + 1, titles)


def _cell(
    sample: Sample | None, kind: str, tasks: Mapping[str, Task], space: str, size: tuple[int, int]
) -> Tensor:
    if sample is None:
        return torch.ones(3, *size)
    if kind == PICTURE:
        return resize(sample.image, size).clamp(0, 1)
    small = fitted(sample, max(size))
    wanted = [t.target for t in tasks.values() if t.target in small.valid]
    if kind == HELD:
        held = (
            torch.stack([small.valid[t] for t in wanted]).all(0)
            if wanted
            else torch.zeros(1, *size, dtype=torch.bool)
        )
        return (held * 0.75).expand(3, -1, -1)  # not white, which the sheet is
    task = tasks[kind]
    if task.target not in small.targets:
        return torch.full((3, *size), 0.5)
    return drawn(task, small.targets[task.target], small.valid[task.target], space)


def drawn(task: Task, target: Tensor, valid: Tensor, space: str = "") -> Tensor:
    """A target ``c h w`` in the colours of its task, grey where it does not hold.

    ``space`` is that of a relative depth; a depth in metres is painted as the task paints it, so that both look alike.
    """
    shown = target
    if task.target == "depth" and valid.any():
        if space == task.space:
            shown = from_depth(torch.where(valid, target, 1.0), space)
        else:
            shown = task.decode(task.encode(target[None], valid[None])[0])[0]
    elif task.frame is not None:
        shown = torch.where(valid, unit(target), 0.0)
    return torch.where(valid, task.show(shown), 0.5)
