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

# Signs of the axes in a frame that is mirrored in x or y.
_MIRRORED = {"x": (-1.0, 1.0, 1.0), "y": (1.0, -1.0, 1.0)}
# Number of quantiles stored per sample.
_LEVELS = 64


@dataclass(frozen=True)
class Report:
    """Result of `validate`: `problems`, one line each, and per target the number of samples, range and quantiles."""

    root: str
    count: int
    problems: tuple[str, ...]
    targets: dict[str, dict[str, float]]

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
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
    """Read every file of a folder and report all problems, instead of stopping at the first.

    limit: maximal number of samples that are opened, spread evenly over the manifest; 0 for all.
    progress: wraps the list of indices in an iterable, for a progress bar.

    Reading checks that files exist, are complete, of one size and have the bits of their codec, and that ids are
    unique. In addition this checks that

    - the header's count is correct and no row waits to be merged;
    - each target has a valid pixel, depths are in metres, shares in [0, 1], and ids are those of the header's classes;
    - stored normals have length 1 (within 0.02) and face the camera on 90 % of their pixels, and not clearly more of
      them would in a mirrored frame: otherwise the frame is wrong;
    - masks, shares and ids are not constant over the whole folder;
    - annotation ids of people start at 1 (COCO's evaluation uses 0 for "unmatched").
    """
    try:
        folder = Folder(root)
        waiting = len(read_pending(folder.root))
    except FolderError as error:
        return Report(str(root), 0, (str(error),), {})
    problems = [f"{waiting} rows are not merged; run the writer again to finish"] if waiting else []
    count = folder.header.get("count")
    if count not in (None, len(folder)):
        problems.append(f"the header has the count {count}, the manifest {len(folder)} samples")
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
    """`_LEVELS` quantiles of the valid values of one sample, float32; empty without a valid value."""
    values = target[valid.expand_as(target)].float().sort().values
    if not values.numel():
        return values
    places = (torch.arange(_LEVELS) + 0.5) / _LEVELS * len(values)
    return values[places.long()]


def _merge(extents: list[dict[str, float]], spreads: list[Tensor]) -> dict[str, float]:
    """Merge the value ranges of many samples; `valid` is the mean share of valid pixels.

    `p2`, `median` and `p98` are quantiles over all samples with equal weight.
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
    """Problems of the annotation ids of people in a row."""
    ids = [(name, how.get("ann_id")) for name, how in (row.get("targets") or {}).items()]
    wrong = [(name, id) for name, id in ids if id is not None and (not isinstance(id, int) or id < 1)]
    return [f"{name} has the annotation id {id!r}; ids start at 1, 0 would never match" for name, id in wrong]


def _check_target(folder: Folder, row: Row, name: str, sample: Sample) -> list[str]:
    """Problems of one target of a sample that could be read."""
    target, valid = sample.targets[name], sample.valid[name]
    if is_inline(row["targets"][name]):
        return []
    path = folder.files / row["targets"][name]["path"]
    if not bool(valid.any()):
        far = float(target.isinf().float().mean())
        stated = f": {far:.0%} are infinite (sky), the rest is invalid" if far else ""
        return [f"{name} has no valid pixel{stated} ({path})"]
    spec = target_spec(name)
    if spec.is_direction:
        return [f"{what} ({path})" for what in _check_normals(folder, row, sample)]
    warning = spec.value_warning(target, valid)
    if warning:
        return [f"{warning} ({path})"]
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
    # Without a camera, the better of two assumptions: orthographic, and a common focal length.
    views = [sample.camera] if isinstance(sample.camera, Camera) else [None, _assumed_camera(sample)]
    toward = max(float(facing(target, view)[valid].float().mean()) for view in views)
    if toward <= 0.9:
        problems.append(
            f"only {toward:.0%} of the normals face the camera; is the 'frame' of the header right?"
        )
    return problems


def _assumed_camera(sample: Sample) -> Camera:
    """The sample's camera, or one with a common focal length."""
    if isinstance(sample.camera, Camera):
        return sample.camera
    height, width = sample.image.shape[-2:]
    return Camera(width, width, (width - 1) / 2, (height - 1) / 2, width, height)


def _facing_counts(sample: Sample) -> Tensor:
    """Numbers of a sample's normals that are valid, face the camera, and would with x or with y negated."""
    normals, valid = sample.targets["normals"], sample.valid["normals"]
    camera = _assumed_camera(sample)
    counts = [valid.sum(), (facing(normals, camera) & valid).sum()]
    for signs in _MIRRORED.values():
        mirrored = normals * normals.new_tensor(signs)[:, None, None]
        counts.append((facing(mirrored, camera) & valid).sum())
    return torch.stack(counts).double()


def _check_frame(facing_counts: list[Tensor]) -> list[str]:
    """Problems of the frame, from all normals together."""
    if not facing_counts:
        return []
    valid, now, *others = torch.stack(facing_counts).sum(0).tolist()
    found = []
    for axis, count in zip(_MIRRORED, others, strict=True):
        # Nearly all, because the assumed camera may differ from the real one.
        if count > 0.95 * valid and count - now > 0.02 * valid:
            found.append(
                f"{now / valid:.1%} of all normals face the camera, {count / valid:.1%} would if {axis} pointed the "
                "other way; is the 'frame' of the header right?"
            )
    return found
