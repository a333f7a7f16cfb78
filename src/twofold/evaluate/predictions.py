"""Where predictions come from: a model that is asked, or the files of any tool, paired by id and by nothing else."""

from __future__ import annotations

import hashlib
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
from ..io import escape
from ..predict.base import BasePredictor
from ..sample import Sample
from ..targets import target_spec
from ..targets.levels import Levels, value_list
from .measure import as_target, check_shape, resize_8bit, resize_to_target
from .prediction_list import LIST, ListedPrediction, read_list
from .protocol import EvalProtocol, EvaluationError

# Of several files of one id the first of these is taken: it loses least.
_ORDER = (".npy", ".npz", ".exr", ".tiff", ".tif", ".png")
# Targets whose files of whole numbers stand for numbers between 0 and 1.
_SHARES = ("mask", "matting", "saliency")
# The least ratio of two depths that is taken for one of their units, not for an error of a model.
_UNITS = 100.0


class MissingError(EvaluationError):
    """No prediction for a sample."""


@dataclass(frozen=True)
class EvalPrediction:
    """A prediction ``c h w`` as the protocol's target has it.

    Attributes:
        map: the prediction.
        stored_size: height and width that it had in its file, where it was resized since.
    """

    map: Tensor
    stored_size: tuple[int, int] | None = None


class PredictionSource(Protocol):
    """What answers for a sample; ``row`` is the sample's row of the manifest."""

    def __call__(self, sample: Sample, row: Mapping[str, Any]) -> EvalPrediction:
        """The answer. EvaluationError when there is none that can be used."""
        ...

    def fingerprint(self, id: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """What identifies the answer before it is made or read; equal as long as the answer is."""
        ...


@dataclass(frozen=True)
class ModelPredictions:
    """A model, asked with fixed settings."""

    predictor: BasePredictor
    size: int | None = None
    seed: int = 0
    ensemble: int | None = None

    def __call__(self, sample: Sample, row: Mapping[str, Any]) -> EvalPrediction:
        """The model's answer to the sample's image."""
        made = self.predictor(sample.image, size=self.size, seed=self.seed, ensemble=self.ensemble)
        metres = self.predictor.task.metres
        return EvalPrediction(as_target(made.map * metres if metres else made.map, made.frame))

    def fingerprint(self, id: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Nothing: a model's identity is that of the evaluation."""
        return {}


def check_model(predictor: BasePredictor, protocol: EvalProtocol) -> None:
    """EvaluationError unless the predictor's numbers are what the protocol scores."""
    space = predictor.space
    if predictor.task.target != protocol.target or space not in protocol.spaces:
        raise EvaluationError(
            f"{protocol.id} scores {' or '.join(protocol.spaces)}; this model's {predictor.task.name} is {space!r}; "
            "choose another --protocol or --task"
        )
    if target_spec(protocol.target).is_distance and protocol.align == "none" and not predictor.task.metres:
        raise EvaluationError(
            f"{protocol.id} scores metres, and this model knows depth up to scale and shift only; choose another "
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
        """Reads the list, if there is one.

        Args:
            root: folder of the predictions.
            protocol: whose target they are of.
            scale: what a stored number is multiplied by; 1 / 255 or 1 / 65535 for masks in PNG.
            frame: of vectors.
            stretch: whether maps of another shape are of images that were squeezed to it, and are stretched back.

        Raises:
            EvaluationError: no such folder, or its list is not one.
        """
        if not root.is_dir():
            raise EvaluationError(f"{escape(root)} is not a folder; give the one that holds the predictions")
        self.root, self.protocol, self.scale, self.frame = root, protocol, scale, frame
        self.stretch = stretch
        self._listed = read_list(root, protocol) if (root / LIST).is_file() else {}

    def __call__(self, sample: Sample, row: Mapping[str, Any]) -> EvalPrediction:
        """The stored prediction of the sample's id."""
        path, said = self._path(str(sample.id), row)
        found = self._decoded(path, said)
        shape = (int(found.shape[-2]), int(found.shape[-1]))
        found = self._resized(found, sample, said)
        if target_spec(self.protocol.target).is_distance and self.protocol.align == "none":
            check_metres(found, sample, path.name)
        frame = (said.frame or self.frame) if target_spec(self.protocol.target).is_direction else None
        return EvalPrediction(as_target(found, frame), None if shape == tuple(found.shape[-2:]) else shape)

    def _decoded(self, path: Path, said: ListedPrediction) -> Tensor:
        return decoded(path, self.protocol.target, said.scale or self.scale)

    def _resized(self, found: Tensor, sample: Sample, said: ListedPrediction) -> Tensor:
        """At the image's size where it is stretched to its shape, or rounded to 8 bits after resizing."""
        target, stretch = sample.targets[self.protocol.target], said.stretch or self.stretch
        if self.protocol.uses_8bit_vectors:
            check_shape(found, target, stretch)
            return resize_8bit(found, target.shape[-2:])
        return resize_to_target(found, target, self.protocol.target, stretch) if stretch else found

    def fingerprint(self, id: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """The file and its sha256."""
        path, _ = self._path(id, row)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"file": path.relative_to(self.root).as_posix(), "sha256": digest}

    def unpaired(self, asked: Iterable[Mapping[str, Any]]) -> list[str]:
        """Files that are of none of these rows of the manifest, where there is no list."""
        if self._listed:
            return []
        used = set()
        for row in asked:
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
    """Of the sample's picture, as `read_list` keys it; '' where the row does not say where it is."""
    path = Path(str(row.get("image_path", "")))
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _inside(root: Path, relative: str) -> Path:
    """The file below ``root``; EvaluationError when it is missing or leaves the folder."""
    real, home = os.path.realpath(root / relative), os.path.realpath(root)
    if not real.startswith(home.rstrip(os.sep) + os.sep):
        raise EvaluationError(f"{relative} leaves the folder of the predictions")
    if not os.path.isfile(real):
        raise MissingError(f"{relative} is listed and not there")
    return root / relative


def decoded(path: Path, target: str, scale: float | None = None) -> Tensor:
    """A stored prediction in the target's unit, ``c h w`` float32.

    Args:
        path: of the file.
        target: whose prediction it is.
        scale: what a stored number is multiplied by; without it, a depth in a PNG of `Prediction.save` is read as that
            says, and shares in PNG and TIFF are divided by the largest level that the file's bits can hold.

    Raises:
        EvaluationError: its numbers cannot be those of the target, or what they mean is ambiguous.
        ImageError: the file is damaged.
    """
    array = read_stored(path)
    raw, stored = as_map(array, path), raster_format(path, array)
    said = quantization_of(path) if target_spec(target).is_distance and not scale else None
    if said is not None:
        return said.decode(raw)
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
    """A share from 0 to 1 of stored levels; EvaluationError where their scale cannot be known."""
    known = levels.values[levels.values.isfinite()]
    high = float(known.max()) if known.numel() else 0.0
    whole = levels.raster and levels.bits >= 8
    if scale is None and whole and 0 < high <= levels.top / 255:
        raise EvaluationError(
            f"{name} has {value_list(known)} in {levels.bits} bits, and a {target} uses 0 to {levels.top:g}; give "
            f"--scale 1 if 1 is foreground, --scale {1 / levels.top:.8g} if it is as faint as that"
        )
    values = levels.values * (scale or (1 / levels.top if levels.raster and levels.bits else 1.0))
    if known.numel() and not bool((values[values.isfinite()].abs() <= 1.001).all()):
        raise EvaluationError(f"{name} goes up to {high:g}, and a {target} is in [0, 1]; give --scale")
    return values


def check_metres(found: Tensor, sample: Sample, name: str) -> None:
    """EvaluationError when the medians of a metric depth and of its truth differ as only units do."""
    valid = sample.valid["depth"]
    if found.shape != valid.shape or not bool(valid.any()):
        return
    median, truth = float(found[valid].median()), float(sample.targets["depth"][valid].median())
    if not 1 / _UNITS < median / truth < _UNITS:
        raise EvaluationError(
            f"{name} has a median depth of {median:g}, its truth {truth:g} m; is it in another unit? Give --scale "
            "(0.001 for millimetres)"
        )
