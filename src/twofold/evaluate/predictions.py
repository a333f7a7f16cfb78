"""Sources of predictions: a model, or the files of any tool, paired by id."""

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

# Of several files of one id the first of these is read: it loses least precision.
_ORDER = (".npy", ".npz", ".exr", ".tiff", ".tif", ".png")
# Targets whose integer files stand for numbers between 0 and 1.
_SHARES = ("mask", "matting", "saliency")
# From this ratio on, the medians of two depths differ by their units, not by an error of the model.
_UNIT_RATIO = 100.0


class MissingError(EvaluationError):
    """No prediction for a sample."""


@dataclass(frozen=True)
class EvalPrediction:
    """A prediction ``c h w`` in the unit of the protocol's target.

    Attributes:
        map: the prediction.
        stored_size: height and width in its file, where it was resized since.
    """

    map: Tensor
    stored_size: tuple[int, int] | None = None


class PredictionSource(Protocol):
    """Predictions of samples; ``row`` is the sample's row of the manifest."""

    def __call__(self, sample: Sample, row: Mapping[str, Any]) -> EvalPrediction:
        """The prediction. EvaluationError when there is none, or it is damaged."""
        ...

    def fingerprint(self, id: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """What identifies the prediction before it is computed or read; it changes when the prediction does."""
        ...


@dataclass(frozen=True)
class ModelPredictions:
    """Predictions of a model with fixed settings."""

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
        """Empty: the model is part of the evaluation's identity."""
        return {}


def check_model(predictor: BasePredictor, protocol: EvalProtocol) -> None:
    """EvaluationError unless the protocol scores the predictor's target and space."""
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
    """Files of any tool: ``<id>.npy`` and other suffixes, or what ``predictions.jsonl`` lists."""

    def __init__(
        self,
        root: Path,
        protocol: EvalProtocol,
        scale: float | None = None,
        frame: str = "RUB",
        stretch: bool = False,
    ) -> None:
        """Read the list, if there is one.

        Args:
            root: folder of the predictions.
            protocol: whose target they are of.
            scale: what a stored number is multiplied by; 1 / 255 or 1 / 65535 for masks in PNG.
            frame: of vectors.
            stretch: whether maps of another shape are of images that were squeezed to it, and are stretched back.

        Raises:
            EvaluationError: no such folder, or an invalid list.
        """
        if not root.is_dir():
            raise EvaluationError(f"{escape(root)} is not a folder; pass the folder of the predictions")
        self.root, self.protocol, self.scale, self.frame = root, protocol, scale, frame
        self.stretch = stretch
        self._listed = read_list(root, protocol) if (root / LIST).is_file() else {}

    def __call__(self, sample: Sample, row: Mapping[str, Any]) -> EvalPrediction:
        """The stored prediction of the sample's id."""
        path, listed = self._path(str(sample.id), row)
        found = self._decode(path, listed)
        shape = (int(found.shape[-2]), int(found.shape[-1]))
        found = self._resize(found, sample, listed)
        if target_spec(self.protocol.target).is_distance and self.protocol.align == "none":
            check_metres(found, sample, path.name)
        frame = (listed.frame or self.frame) if target_spec(self.protocol.target).is_direction else None
        return EvalPrediction(to_rub(found, frame), None if shape == tuple(found.shape[-2:]) else shape)

    def _decode(self, path: Path, listed: ListedPrediction) -> Tensor:
        return decode_file(path, self.protocol.target, listed.scale or self.scale)

    def _resize(self, found: Tensor, sample: Sample, listed: ListedPrediction) -> Tensor:
        """At the image's size, if it is stretched to its shape or rounded to 8 bits after resizing."""
        target, stretch = sample.targets[self.protocol.target], listed.stretch or self.stretch
        if self.protocol.uses_8bit_vectors:
            check_shape(found, target, stretch)
            return resize_8bit(found, target.shape[-2:])
        return resize_to_target(found, target, self.protocol.target, stretch) if stretch else found

    def fingerprint(self, id: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """The file and its sha256."""
        path, _ = self._path(id, row)
        return {"file": path.relative_to(self.root).as_posix(), "sha256": sha256_file(path)}

    def unpaired(self, rows: Iterable[Mapping[str, Any]]) -> list[str]:
        """Files that belong to none of these rows of the manifest; none where there is a list."""
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
        for suffix in _ORDER:
            path = self.root / f"{id}{suffix}"
            if path.is_file():
                return _inside(self.root, f"{id}{suffix}"), ListedPrediction(f"{id}{suffix}")
        raise MissingError(f"there is no {id}.npy (or {', '.join(_ORDER[1:])}) among the predictions")


def _image_digest(row: Mapping[str, Any]) -> str:
    """sha256 of the sample's image, as `read_list` keys it; '' where the row has no path of it."""
    path = Path(str(row.get("image_path", "")))
    if not path.is_file():
        return ""
    return f"sha256:{sha256_file(path)}"


def _inside(root: Path, relative: str) -> Path:
    """The file below ``root``; EvaluationError when it is missing or leaves the folder."""
    real, home = os.path.realpath(root / relative), os.path.realpath(root)
    if not real.startswith(home.rstrip(os.sep) + os.sep):
        raise EvaluationError(f"{relative} is outside the folder of the predictions")
    if not os.path.isfile(real):
        raise MissingError(f"{relative} is listed and does not exist")
    return root / relative


def decode_file(path: Path, target: str, scale: float | None = None) -> Tensor:
    """A stored prediction in the target's unit, ``c h w`` float32.

    Args:
        path: of the file.
        target: of the prediction.
        scale: factor of a stored number; without it, a depth in a PNG of `Prediction.save` is read by the scale in that
            file, and values of [0, 1] in PNG and TIFF are divided by the largest level of their bits.

    Raises:
        EvaluationError: its numbers cannot be those of the target, or are ambiguous.
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
        levels = target_spec("matting" if target in _SHARES else target).read_levels(raw, {}, stored)
    except ValueError as error:
        raise EvaluationError(f"{path.name}: {error}") from None
    values = levels.values
    if target_spec(target).is_direction:
        return values / levels.top * 2 - 1 if stored.raster and stored.bits else values
    if target in _SHARES:
        return _share(path.name, target, levels, scale)
    if values.shape[0] > 1 and bool((values == values[:1]).all()):
        values = values[:1]
    return values * scale if scale else values


def _share(name: str, target: str, levels: Levels, scale: float | None) -> Tensor:
    """Values in [0, 1] of stored levels; EvaluationError where their scale is ambiguous."""
    known = levels.values[levels.values.isfinite()]
    high = float(known.max()) if known.numel() else 0.0
    whole = levels.raster and levels.bits >= 8
    if scale is None and whole and 0 < high <= levels.top / 255:
        raise EvaluationError(
            f"{name} has {value_list(known)} in {levels.bits} bits, and a {target} uses 0 to {levels.top:g}; pass "
            f"--scale 1 if 1 is foreground, or --scale {1 / levels.top:.8g} if its values are that small"
        )
    values = levels.values * (scale or (1 / levels.top if levels.raster and levels.bits else 1.0))
    if known.numel() and not bool((values[values.isfinite()].abs() <= 1.001).all()):
        raise EvaluationError(f"{name} goes up to {high:g}, and a {target} is in [0, 1]; pass --scale")
    return values


def check_metres(found: Tensor, sample: Sample, name: str) -> None:
    """EvaluationError when the medians of a metric depth and of its truth differ as only units do."""
    valid = sample.valid["depth"]
    if found.shape != valid.shape or not bool(valid.any()):
        return
    median, truth = float(found[valid].median()), float(sample.targets["depth"][valid].median())
    if not 1 / _UNIT_RATIO < median / truth < _UNIT_RATIO:
        raise EvaluationError(
            f"{name} has a median depth of {median:g}, its truth {truth:g} m; is it in another unit? Pass --scale "
            "(0.001 for millimetres)"
        )
