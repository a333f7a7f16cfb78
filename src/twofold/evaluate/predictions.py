"""Sources of predictions: a model, or files of any program that are matched to samples by id."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ..image import MAP_SUFFIXES
from ..image.maps import as_map, read_stored
from ..image.quantize import quantization_of
from ..image.raster_format import raster_format
from ..io import escape, sha256_file
from ..predict.base import BasePredictor
from ..sample import Sample
from ..targets import target_spec
from ..targets.levels import Levels, value_list
from .measure import check_shape, resize_8bit, resize_to_target, to_rub
from .prediction_list import LIST, ListedPrediction, read_list
from .protocol import EvalProtocol, EvaluationError

# If several files have the same id, the one whose suffix comes first here is read; it has the highest precision.
_SUFFIXES = (".npy", ".npz", ".exr", ".tiff", ".tif", ".png")
# Targets with values in [0, 1], which integer files store as levels.
_UNIT_INTERVAL_TARGETS = ("mask", "matting", "saliency")
# Ratio of the medians of prediction and truth from which a depth is assumed to be in another unit.
_UNIT_RATIO = 100.0


class MissingError(EvaluationError):
    """There is no prediction for a sample."""


@dataclass(frozen=True)
class EvalPrediction:
    """A prediction to score.

    Attributes:
        map: ``c h w``, in the unit of the protocol's target.
        stored_size: height and width in its file, if it was resized since.
    """

    map: Tensor
    stored_size: tuple[int, int] | None = None


class PredictionSource(Protocol):
    """A source of predictions; ``row`` is the sample's row of the manifest."""

    def __call__(self, sample: Sample, row: Mapping[str, Any]) -> EvalPrediction:
        """The prediction for a sample. EvaluationError if there is none or it is damaged."""
        ...

    def fingerprint(self, id: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """JSON values that identify a prediction without computing it; they change if the prediction does."""
        ...


@dataclass(frozen=True)
class ModelPredictions:
    """Predictions of a model with fixed settings; see `BasePredictor.__call__` for these."""

    predictor: BasePredictor
    size: int | None = None
    seed: int = 0
    ensemble: int | None = None

    def __call__(self, sample: Sample, row: Mapping[str, Any]) -> EvalPrediction:
        """The prediction for the sample's image."""
        prediction = self.predictor(sample.image, size=self.size, seed=self.seed, ensemble=self.ensemble)
        metres = self.predictor.task.metres
        return EvalPrediction(to_rub(prediction.map * metres if metres else prediction.map, prediction.frame))

    def fingerprint(self, id: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Empty, because the model is part of the evaluation's identity."""
        return {}


def check_model(predictor: BasePredictor, protocol: EvalProtocol) -> None:
    """EvaluationError if the protocol does not score the predictor's target in its space."""
    space = predictor.space
    if predictor.task.target != protocol.target or space not in protocol.spaces:
        raise EvaluationError(
            f"{protocol.id} scores {' or '.join(protocol.spaces)}; this model's {predictor.task.name} is {space!r}; "
            "choose another --protocol or --task"
        )
    if target_spec(protocol.target).is_distance and protocol.align == "none" and not predictor.task.metres:
        raise EvaluationError(
            f"{protocol.id} scores metric depth, and this model predicts depth up to scale and shift; choose another "
            "--protocol, train a task in metres (twofold.tasks.metric_depth), or score metric predictions with "
            "--predictions"
        )


class FilePredictions:
    """Predictions in files: ``<id>.npy`` and other suffixes, or the files that ``predictions.jsonl`` lists."""

    def __init__(
        self,
        root: Path,
        protocol: EvalProtocol,
        scale: float | None = None,
        frame: str = "RUB",
        stretch: bool = False,
    ) -> None:
        """Read ``predictions.jsonl``, if it exists.

        Args:
            root: folder of the predictions.
            protocol: the protocol that scores them.
            scale: factor that stored values are multiplied by, such as 1 / 255 or 1 / 65535 for masks in PNG.
            frame: camera frame of stored vectors.
            stretch: whether to resize maps of another aspect ratio to that of their image.

        Raises:
            EvaluationError: the folder does not exist, or the list is invalid.
        """
        if not root.is_dir():
            raise EvaluationError(f"{escape(root)} is not a folder; pass the folder of the predictions")
        self.root, self.protocol, self.scale, self.frame = root, protocol, scale, frame
        self.stretch = stretch
        self._listed = read_list(root, protocol) if (root / LIST).is_file() else {}

    def __call__(self, sample: Sample, row: Mapping[str, Any]) -> EvalPrediction:
        """The stored prediction for a sample."""
        path, listed = self._path(str(sample.id), row)
        stored = self._decode(path, listed)
        size = (int(stored.shape[-2]), int(stored.shape[-1]))
        prediction = self._resize(stored, sample, listed)
        if target_spec(self.protocol.target).is_distance and self.protocol.align == "none":
            check_metres(prediction, sample, path.name)
        frame = (listed.frame or self.frame) if target_spec(self.protocol.target).is_direction else None
        resized = size != tuple(prediction.shape[-2:])
        return EvalPrediction(to_rub(prediction, frame), size if resized else None)

    def _decode(self, path: Path, listed: ListedPrediction) -> Tensor:
        return decode_file(path, self.protocol.target, listed.scale or self.scale)

    def _resize(self, stored: Tensor, sample: Sample, listed: ListedPrediction) -> Tensor:
        """Resize to the image if ``stretch`` is set or vectors are quantized; `measure` resizes other predictions."""
        target, stretch = sample.targets[self.protocol.target], listed.stretch or self.stretch
        if self.protocol.uses_8bit_vectors:
            check_shape(stored, target, stretch)
            return resize_8bit(stored, target.shape[-2:])
        return resize_to_target(stored, target, self.protocol.target, stretch) if stretch else stored

    def fingerprint(self, id: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """The relative path of the file and its sha256."""
        path, _ = self._path(id, row)
        return {"file": path.relative_to(self.root).as_posix(), "sha256": sha256_file(path)}

    def unpaired(self, rows: Iterable[Mapping[str, Any]]) -> list[str]:
        """Files that are not the prediction of any of these rows; empty if there is a list."""
        if self._listed:
            return []
        used = set()
        for row in rows:
            with suppress(EvaluationError):
                used.add(self._path(row["id"], row)[0])
        files = (p for p in self.root.rglob("*") if p.suffix.lower() in MAP_SUFFIXES)
        return sorted(p.relative_to(self.root).as_posix() for p in files if p not in used)

    def _path(self, id: str, row: Mapping[str, Any]) -> tuple[Path, ListedPrediction]:
        if self._listed:
            listed = self._listed.get(id) or self._listed.get(_image_digest(row))
            if listed is None:
                raise MissingError(f"{LIST} lists no prediction of {id!r}")
            return _inside(self.root, listed.path), listed
        for suffix in _SUFFIXES:
            path = self.root / f"{id}{suffix}"
            if path.is_file():
                return _inside(self.root, f"{id}{suffix}"), ListedPrediction(f"{id}{suffix}")
        raise MissingError(f"there is no {id}.npy (or {', '.join(_SUFFIXES[1:])}) among the predictions")


def _image_digest(row: Mapping[str, Any]) -> str:
    """The key of the sample's image in `read_list`: 'sha256:' and its digest; empty if the image is not a file."""
    path = Path(str(row.get("image_path", "")))
    return f"sha256:{sha256_file(path)}" if path.is_file() else ""


def _inside(root: Path, relative: str) -> Path:
    """A file below ``root``. EvaluationError if it is missing or outside ``root``."""
    real, real_root = os.path.realpath(root / relative), os.path.realpath(root)
    if not real.startswith(real_root.rstrip(os.sep) + os.sep):
        raise EvaluationError(f"{relative} is outside the folder of the predictions")
    if not os.path.isfile(real):
        raise MissingError(f"{relative} is listed and does not exist")
    return root / relative


def decode_file(path: Path, target: str, scale: float | None = None) -> Tensor:
    """Read a stored prediction, ``c h w`` float32, in the unit of the target.

    Args:
        path: path of the file.
        target: name of the target.
        scale: factor that stored values are multiplied by. By default a depth in a PNG of `Prediction.save` uses the
            scale stored in that file, and masks and mattes in PNG and TIFF are divided by the largest level.

    Raises:
        EvaluationError: the values are invalid for the target, or their scale is ambiguous.
        ImageError: the file is damaged.
    """
    array = read_stored(path)
    raw, stored = as_map(array, path), raster_format(path, array)
    quantization = quantization_of(path) if target_spec(target).is_distance and not scale else None
    if quantization is not None:
        return quantization.decode(raw)
    if target_spec(target).is_points:
        return raw * scale if scale else raw
    try:
        spec = target_spec("matting" if target in _UNIT_INTERVAL_TARGETS else target)
        levels = spec.read_levels(raw, {}, stored)
    except ValueError as error:
        raise EvaluationError(f"{path.name}: {error}") from None
    values = levels.values
    if target_spec(target).is_direction:
        return values / levels.top * 2 - 1 if stored.raster and stored.bits else values
    if target in _UNIT_INTERVAL_TARGETS:
        return _to_unit_interval(path.name, target, levels, scale)
    if values.shape[0] > 1 and bool((values == values[:1]).all()):
        values = values[:1]
    return values * scale if scale else values


def _to_unit_interval(name: str, target: str, levels: Levels, scale: float | None) -> Tensor:
    """Values in [0, 1] of stored levels. EvaluationError if their scale is ambiguous or they exceed 1."""
    finite = levels.values[levels.values.isfinite()]
    high = float(finite.max()) if finite.numel() else 0.0
    integer = levels.raster and levels.bits >= 8
    if scale is None and integer and 0 < high <= levels.top / 255:
        raise EvaluationError(
            f"{name} has {value_list(finite)} in {levels.bits} bits, and a {target} uses 0 to {levels.top:g}; pass "
            f"--scale 1 if 1 is foreground, or --scale {1 / levels.top:.8g} if its values are that small"
        )
    values = levels.values * (scale or (1 / levels.top if levels.raster and levels.bits else 1.0))
    if finite.numel() and not bool((values[values.isfinite()].abs() <= 1.001).all()):
        raise EvaluationError(f"{name} has values up to {high:g}, and a {target} is in [0, 1]; pass --scale")
    return values


def check_metres(prediction: Tensor, sample: Sample, name: str) -> None:
    """EvaluationError if a metric depth is probably not in metres, by the ratio of its median and that of the truth."""
    valid = sample.valid["depth"]
    if prediction.shape != valid.shape or not bool(valid.any()):
        return
    median, truth = float(prediction[valid].median()), float(sample.targets["depth"][valid].median())
    if not 1 / _UNIT_RATIO < median / truth < _UNIT_RATIO:
        raise EvaluationError(
            f"{name} has a median depth of {median:g}, and its truth of {truth:g} m. If it is in another unit, pass "
            "--scale (0.001 for millimetres)"
        )
