"""Scores one image by a protocol: valid pixels, alignment of the prediction, and metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

from torch import Tensor
from torch.nn.functional import interpolate

from .. import metrics
from ..geometry import FRAMES, Camera, convert_frame
from ..metrics import (
    ALIGNMENTS,
    Metric,
    angle,
    crop_mask,
    fit_grid,
    measure_many,
    parsing_metrics,
    semantic_metrics,
    trivial_baselines,
)
from ..metrics.alignment import NO_CLIP, clipped
from ..metrics.quirks import to_levels
from ..named_code import find_object, names_code
from ..sample import Sample
from ..targets import target_spec
from ..tasks import TASKS
from .pose import FAMILY, POSE
from .protocol import EvalProtocol, EvaluationError

# Functions from the number of classes and the ignored ids to a table of metrics of class ids.
_CLASS_FAMILIES: dict[str, Callable[[int, tuple[int, ...]], Mapping[str, Metric]]] = {
    "semantic": semantic_metrics,
    # An absent class counts as 0.
    "semantic_zero": partial(semantic_metrics, absent="zero"),
    "parsing": lambda classes, ignore: parsing_metrics(classes - 1, ignore),
}
# Windows that image and truth are cropped to: height and width, at the bottom centre (KITTI's own benchmark).
WINDOWS: dict[str, tuple[int, int]] = {"kitti_benchmark": (352, 1216)}
# Largest accepted |log| of the ratio of the aspect ratios of a prediction and its image.
SHAPE_TOLERANCE = 0.02

Sums = dict[str, Tensor]


@cache
def get_metrics(protocol: EvalProtocol, classes: int = 0) -> tuple[Metric, ...]:
    """The metrics of a protocol, in its order.

    Args:
        protocol: the protocol.
        classes: number of classes, if the protocol scores class ids and does not set it.

    Raises:
        EvaluationError: there is no such metric, or the number of classes is unknown.
    """
    return tuple(_get_metric(name, protocol, classes) for name in protocol.metrics)


def _get_metric(name: str, protocol: EvalProtocol, classes: int) -> Metric:
    """A metric by ``family.name``, where ``family`` is a table of `twofold.metrics`, or by ``package.module:NAME``."""
    if names_code(name):
        try:
            return find_object(name, "metric", Metric)  # named by the protocol's own code
        except ValueError as error:
            raise EvaluationError(f"{protocol.id} needs the metric {name}: {error}") from None
    family, _, metric = name.partition(".")
    found = _family(family, protocol.classes or classes, protocol).get(metric)
    if not isinstance(found, Metric):
        raise EvaluationError(f"{protocol.id} needs the metric {name!r}, which does not exist")
    return found


def _family(name: str, classes: int, protocol: EvalProtocol) -> Mapping[str, Any]:
    """A table of metrics by its name; empty if there is none."""
    if name == FAMILY:
        return POSE
    if name not in _CLASS_FAMILIES:
        table = vars(metrics).get(name)
        return table if isinstance(table, Mapping) else {}
    if classes < 2:
        raise EvaluationError(
            f"{protocol.id} needs the number of classes; list their names as 'classes' in the data's header"
        )
    return _CLASS_FAMILIES[name](classes, protocol.ignore)


def crop_to_window(sample: Sample, name: str) -> Sample:
    """The sample cropped to a window of `WINDOWS`; the whole sample if the name is empty.

    Raises:
        EvaluationError: there is no such window, or the image is smaller.
    """
    if not name:
        return sample
    if name not in WINDOWS:
        raise EvaluationError(f"unknown window {name!r}; use one of {', '.join(WINDOWS)}")
    (h, w), (height, width) = WINDOWS[name], sample.image.shape[-2:]
    if height < h or width < w:
        raise EvaluationError(f"{sample.id}: {width}x{height} is smaller than the window {name}, {w}x{h}")
    top, left = height - h, (width - w) // 2
    rows, columns = slice(top, top + h), slice(left, left + w)
    camera = sample.camera.cropped(left, top, w, h) if isinstance(sample.camera, Camera) else None
    return replace(
        sample,
        image=sample.image[:, rows, columns],
        targets={k: v[:, rows, columns] for k, v in sample.targets.items()},
        valid={k: v[:, rows, columns] for k, v in sample.valid.items()},
        camera=camera,
    )


def truth(sample: Sample, protocol: EvalProtocol) -> tuple[Tensor, Tensor]:
    """The target ``c h w`` of a sample, and the mask ``1 h w`` of its valid pixels under the protocol."""
    target, valid = sample.targets[protocol.target], sample.valid[protocol.target]
    if protocol.valid_range is not None:
        low, high = protocol.valid_range
        valid = valid & (target > low) & (target < high)
    if protocol.crop:
        valid = valid & crop_mask(protocol.crop, *target.shape[-2:])
    return target, valid


def check_shape(prediction: Tensor, target: Tensor, stretch: bool = False) -> None:
    """EvaluationError if a prediction has another number of channels or, unless ``stretch``, another aspect ratio."""
    (h, w), (height, width) = prediction.shape[-2:], target.shape[-2:]
    if prediction.shape[0] != target.shape[0]:
        raise EvaluationError(f"it has {prediction.shape[0]} channels, and its truth has {target.shape[0]}")
    if not stretch and abs(math.log(w * height / (h * width))) > SHAPE_TOLERANCE:
        raise EvaluationError(
            f"it is {w}x{h}, and its image is {width}x{height}; pass the prediction of this image, or --stretch if "
            "the image was resized to another aspect ratio"
        )


def resize_to_target(prediction: Tensor, target: Tensor, name: str, stretch: bool = False) -> Tensor:
    """A prediction resized to its truth: bilinear, or nearest for values that cannot be interpolated.

    Args:
        prediction: ``c h w``.
        target: ``c H W``, the truth.
        name: name of the target.
        stretch: whether to accept another aspect ratio.

    Raises:
        EvaluationError: see `check_shape`.
    """
    check_shape(prediction, target, stretch)
    size = (int(target.shape[-2]), int(target.shape[-1]))
    if tuple(prediction.shape[-2:]) == size:
        return prediction
    return target_spec(name).resize_prediction(prediction, size)


def resize_8bit(vectors: Tensor, size: Sequence[int]) -> Tensor:
    """Vectors ``3 h w`` quantized to 8 bits, resized bilinearly, and quantized again.

    The result equals OpenCV's resizing of 8-bit images up to 1 level of 255, because OpenCV truncates sums. The
    vectors are not normalized.
    """
    levels = to_levels(vectors.float())
    if tuple(levels.shape[-2:]) != tuple(size):
        levels = interpolate(levels[None], list(size), mode="bilinear", align_corners=False)[0].round()
    return levels / 127.5 - 1


def align_prediction(prediction: Tensor, target: Tensor, valid: Tensor, protocol: EvalProtocol) -> Tensor:
    """A prediction ``c h w`` after the alignment of the protocol, see ``EvalProtocol.align``.

    Raises:
        EvaluationError: the prediction is NaN or infinite at a valid pixel, or cannot be fitted.
    """
    if not bool(prediction[valid.expand_as(prediction)].isfinite().all()):
        raise EvaluationError("it is NaN or infinite at valid pixels of the truth")
    if protocol.target != "depth":
        return prediction
    fitted = valid
    if protocol.fit_columns:
        fitted = valid & fit_grid(*target.shape[-2:], protocol.fit_columns, width_only=True)
    try:
        if protocol.align not in ALIGNMENTS:
            return clipped(TASKS[protocol.align].align(prediction, target, fitted), protocol.clip or NO_CLIP)
        return ALIGNMENTS[protocol.align](prediction, target, fitted, protocol.clip or NO_CLIP)
    except ValueError as error:
        raise EvaluationError(f"it cannot be fitted: {error}") from None


def measure(
    prediction: Tensor, sample: Sample, protocol: EvalProtocol, classes: int = 0
) -> tuple[Sums, Tensor]:
    """The sums of every metric for one prediction, and the prediction after resizing and alignment.

    Args:
        prediction: ``c h w``, cropped to the protocol's window, in one of the protocol's spaces.
        sample: the sample, with at least one valid pixel.
        protocol: the protocol to score by.
        classes: number of classes, for class ids.

    Raises:
        EvaluationError: the prediction cannot be scored.
    """
    target, valid = truth(sample, protocol)
    resized = resize_to_target(prediction, target, protocol.target)
    aligned = align_prediction(resized, target, valid, protocol)
    try:
        sums = measure_many(get_metrics(protocol, classes), aligned, target, valid)
    except ValueError as error:
        raise EvaluationError(str(error)) from None
    return sums, aligned


def baselines(sample: Sample, protocol: EvalProtocol) -> dict[str, Sums]:
    """The sums of image-independent depth baselines, by name; {} for other targets."""
    if protocol.target != "depth":
        return {}
    target, valid = truth(sample, protocol)
    maps = trivial_baselines(target, valid, protocol.clip or NO_CLIP)
    return {name: measure_many(get_metrics(protocol), depth, target, valid) for name, depth in maps.items()}


def angle_by_frame(prediction: Tensor, sample: Sample, protocol: EvalProtocol) -> dict[str, float]:
    """The mean angular error in degrees if the predicted normals were in each camera frame; {} for other targets.

    A wrong frame causes an error of 30 to 90 degrees, which could be mistaken for an inaccurate model.
    """
    if protocol.target != "normals":
        return {}
    target, valid = truth(sample, protocol)
    resized = resize_to_target(prediction, target, protocol.target)
    angles = (angle(convert_frame(resized, frame, "RUB"), target)[valid[0]].mean() for frame in FRAMES)
    return {frame: round(float(degrees), 3) for frame, degrees in zip(FRAMES, angles, strict=True)}


def to_rub(prediction: Tensor, frame: str | None) -> Tensor:
    """Convert a map of vectors to the camera frame of the targets, RUB; ``frame`` is None for other maps."""
    return prediction if frame in (None, "RUB") else convert_frame(prediction, frame, "RUB")
