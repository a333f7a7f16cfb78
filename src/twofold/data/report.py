"""Validation of a data folder: errors, and statistics of its targets."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from twofold.data.contrast import ValueRange, constant_labels, value_range
from twofold.data.folder import Folder
from twofold.data.layout import FolderError, Row, read_pending
from twofold.data.points import is_inline
from twofold.data.targets import stored_lengths
from twofold.geometry import Camera
from twofold.sample import Sample
from twofold.targets import target_spec
from twofold.targets.direction import facing

# The frames of `geometry.FRAMES` that a wrong 'frame' would be.
_MIRRORED = {"x": (-1.0, 1.0, 1.0), "y": (1.0, -1.0, 1.0)}
# Quantiles that are kept of each sample.
_LEVELS = 64
# A depth beyond this, in metres, is no measurement of anything near: of what forgot its unit, most likely.


@dataclass(frozen=True)
class Report:
    """What `validate` found: `problems`, one line each, and per target its number, extent and quantiles."""

    root: str
    count: int
    problems: tuple[str, ...]
    targets: dict[str, dict[str, float]]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def __str__(self) -> str:
        lines = [f"{self.root}: {self.count} samples, {len(self.problems) or 'no'} problems"]
        for name, facts in sorted(self.targets.items()):
            stated = ", ".join(f"{key} {value:.4g}" for key, value in facts.items())
            lines.append(f"  {name}: {stated}")
        return "\n".join([*lines, *(f"  ! {problem}" for problem in self.problems)])


def validate(
    root: str | os.PathLike[str],
    limit: int = 0,
    progress: Callable[[list[int]], Iterable[int]] = iter,
) -> Report:
    """Reads every file of a folder and reports all that is wrong, instead of stopping at the first.

    limit: if above 0, only so many samples, spread evenly over the manifest, are opened.
    watch: is given the indices of what is opened and hands them back one by one: for a progress bar.

    Beyond what reading checks (files there, whole, of one size and with the bits their codec says, ids unique):
    the count of the header, that each target has a valid pixel, that stored normals have length 1 (within 0.02)
    and face the camera on 90 % of their pixels (or else the frame is wrong), that no mirrored frame would let
    nearly all normals face it, and more than do (floors and side walls tell), that depths are metres, shares
    within [0, 1] and ids whole, not negative and of the header's classes, that not every mask of the folder is empty or
    full (of shares and ids alike), that annotations of people have ids from 1 on (evaluation
    takes 0 for "none"), and that no row waits to be merged.
    """
    try:
        folder = Folder(root)
        waiting = len(read_pending(folder.root))
    except FolderError as error:
        return Report(str(root), 0, (str(error),), {})
    problems = [f"{waiting} rows wait to be merged; finish the writer"] if waiting else []
    count = folder.header.get("count")
    if count not in (None, len(folder)):
        problems.append(f"the header counts {count} samples, the manifest has {len(folder)}")
    facts: dict[str, list[dict[str, float]]] = {}
    spreads: dict[str, list[Tensor]] = {}
    facing_counts: list[Tensor] = []
    for index in progress(_evenly_spaced(len(folder), limit)):
        row = folder.rows[index]
        problems += [f"{row['id']}: {what}" for what in _wrong_annotations(row)]
        try:
            sample = folder[index]
            for name, target in sample.targets.items():
                facts.setdefault(name, []).append(_extent(target, sample.valid[name]))
                spreads.setdefault(name, []).append(_quantiles(target, sample.valid[name]))
                problems += [f"{row['id']}: {what}" for what in _check_target(folder, row, name, sample)]
            facing_counts += [_facing_counts(sample)] if "normals" in sample.targets else []
        except (ValueError, OSError) as error:
            problems.append(str(error))
    problems += _check_frame(facing_counts)
    for name, found in facts.items():
        problem = constant_labels(name, [ValueRange(f["least"], f["most"]) for f in found])
        problems += [problem] if problem else []
    merged = {name: _merge(found, spreads[name]) for name, found in facts.items()}
    return Report(str(root), len(folder), tuple(problems), merged)


def _evenly_spaced(count: int, limit: int) -> list[int]:
    if not 0 < limit < count:
        return list(range(count))
    return [math.floor(i * count / limit) for i in range(limit)]


def _extent(target: Tensor, valid: Tensor) -> dict[str, float]:
    one = value_range(target, valid)
    return {"valid": float(valid.float().mean()), "least": one.least, "most": one.most}


def _quantiles(target: Tensor, valid: Tensor) -> Tensor:
    """`_LEVELS` quantiles of the valid values of one sample, float32; none without a valid value."""
    values = target[valid.expand_as(target)].float().sort().values
    if not values.numel():
        return values
    places = (torch.arange(_LEVELS) + 0.5) / _LEVELS * len(values)
    return values[places.long()]


def _merge(extents: list[dict[str, float]], spreads: list[Tensor]) -> dict[str, float]:
    """The extents of many samples as one, with their number; `valid` is the mean share of valid pixels.

    `p2`, `median` and `p98` are quantiles over all samples, each of one weight.
    """
    table = torch.tensor([list(e.values()) for e in extents], dtype=torch.float64)
    known = table[~table[:, 1].isnan()]
    least, most = (float(known[:, 1].min()), float(known[:, 2].max())) if len(known) else (float("nan"),) * 2
    pooled = torch.cat(spreads).sort().values
    places = [min(int(q * len(pooled)), len(pooled) - 1) for q in (0.02, 0.5, 0.98)]
    low, median, high = (float(pooled[i]) for i in places) if len(pooled) else (float("nan"),) * 3
    ends = {"least": least, "p2": low, "median": median, "p98": high, "most": most}
    return {"samples": len(extents), "valid": float(table[:, 0].mean()), **ends}


def _wrong_annotations(row: Row) -> list[str]:
    """What is wrong about the ids of people in a row."""
    ids = [(name, how.get("ann_id")) for name, how in (row.get("targets") or {}).items()]
    wrong = [(name, id) for name, id in ids if id is not None and (not isinstance(id, int) or id < 1)]
    return [f"{name} has the annotation id {id!r}; ids begin at 1, 0 would never match" for name, id in wrong]


def _check_target(folder: Folder, row: Row, name: str, sample: Sample) -> list[str]:
    """What is odd about one target of a sample that could be read."""
    target, valid = sample.targets[name], sample.valid[name]
    if is_inline(row["targets"][name]):
        return []
    path = folder.files / row["targets"][name]["path"]
    if not bool(valid.any()):
        far = float(target.isinf().float().mean())
        stated = f": {far:.0%} are infinite (sky), the rest is unknown" if far else ""
        return [f"{name} has no valid pixel{stated} ({path})"]
    spec = target_spec(name)
    if spec.is_direction:
        return [f"{what} ({path})" for what in _check_normals(folder, row, sample)]
    doubt = spec.doubt(target, valid)
    if doubt:
        return [f"{doubt} ({path})"]
    high = float(target[valid.expand_as(target)].max())
    classes = folder.header.get("classes" if name == "semantic" else name)
    if name in ("semantic", "parts") and isinstance(classes, list) and classes and high >= len(classes):
        return [
            f"{name} holds the id {high:g}, and the header lists {len(classes)} classes, from 0; name it in 'ignore', "
            f"or set 'label_offset' ({path})"
        ]
    return []


def _check_normals(folder: Folder, row: Row, sample: Sample) -> list[str]:
    target, valid = sample.targets["normals"], sample.valid["normals"]
    how = folder.descriptor(row, "normals")
    length: Any = folder.crop(stored_lengths(folder.files, how, str(row["id"])), row)[valid]
    problems = []
    if bool(((length - 1).abs() > 0.02).any()):
        problems.append(
            f"normals have lengths from {float(length.min()):.3g} to {float(length.max()):.3g}, not 1"
        )
    # Without a camera, the kinder of two guesses: a long lens, and a common one.
    views = [sample.camera] if isinstance(sample.camera, Camera) else [None, _assumed_camera(sample)]
    toward = max(float(facing(target, view)[valid].float().mean()) for view in views)
    if toward <= 0.9:
        problems.append(
            f"only {toward:.0%} of the normals face the camera; is the 'frame' of the header right?"
        )
    return problems


def _assumed_camera(sample: Sample) -> Camera:
    """The sample's camera, or, to tell left from right and up from down, a common one."""
    if isinstance(sample.camera, Camera):
        return sample.camera
    height, width = sample.image.shape[-2:]
    return Camera(width, width, (width - 1) / 2, (height - 1) / 2, width, height)


def _facing_counts(sample: Sample) -> Tensor:
    """Of a sample's normals: how many are valid, face the camera, would if x, if y pointed the other way."""
    normals, valid = sample.targets["normals"], sample.valid["normals"]
    camera = _assumed_camera(sample)
    counts = [valid.sum(), (facing(normals, camera) & valid).sum()]
    for signs in _MIRRORED.values():
        mirrored = normals * normals.new_tensor(signs)[:, None, None]
        counts.append((facing(mirrored, camera) & valid).sum())
    return torch.stack(counts).double()


def _check_frame(facing_counts: list[Tensor]) -> list[str]:
    """What is odd about the frame of all normals together."""
    if not facing_counts:
        return []
    valid, now, *others = torch.stack(facing_counts).sum(0).tolist()
    found = []
    for axis, count in zip(_MIRRORED, others, strict=True):
        # Nearly all, because an assumed camera is not the real one: of a long lens neither fits.
        if count > 0.95 * valid and count - now > 0.02 * valid:
            found.append(
                f"{now / valid:.1%} of all normals face the camera, {count / valid:.1%} would if {axis} pointed the "
                "other way; is the 'frame' of the header right?"
            )
    return found
