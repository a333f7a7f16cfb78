"""Where predictions come from: a model that is asked, or the files of any tool, paired by id and by nothing else."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from ..image import MAP_SUFFIXES, read_map
from ..image.pictures import shown
from ..painter import Painter
from ..sample import Sample
from ..tasks import TASKS
from .measure import as_target
from .standard import EvaluationError, Standard

# Of several files of one id the first of these is taken: it loses least.
_ORDER = (".npy", ".npz", ".exr", ".tiff", ".tif", ".png")
# Targets whose files of whole numbers stand for numbers between 0 and 1.
_SHARES = ("mask", "matting", "saliency")
LIST = "predictions.jsonl"


class MissingError(EvaluationError):
    """No prediction for a sample."""


@dataclass(frozen=True)
class Answer:
    """A prediction ``c h w`` as the standard's target has it."""

    map: Tensor


class Source(Protocol):
    """What answers for a sample; ``row`` is the sample's row of the manifest."""

    def __call__(self, sample: Sample, row: Mapping[str, Any]) -> Answer:
        """The answer. EvaluationError when there is none that can be used."""
        ...

    def known(self, id: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """What identifies the answer before it is made or read; equal as long as the answer is."""
        ...


@dataclass(frozen=True)
class FromModel:
    """A model, asked with fixed settings."""

    predictor: Painter
    size: int | None = None
    seed: int = 0
    ensemble: int | None = None

    def __call__(self, sample: Sample, row: Mapping[str, Any]) -> Answer:
        """The model's answer to the sample's image."""
        made = self.predictor(sample.image, size=self.size, seed=self.seed, ensemble=self.ensemble)
        return Answer(as_target(made.map, made.frame))

    def known(self, id: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Nothing: a model's identity is that of the evaluation."""
        return {}


def check_model(predictor: Painter, standard: Standard) -> None:
    """EvaluationError unless the predictor's numbers are what the standard scores."""
    space = predictor.space
    if predictor.task.target != standard.target or space not in standard.spaces:
        raise EvaluationError(
            f"{standard.id} scores {' or '.join(standard.spaces)}; this model's {predictor.task.name} is {space!r}; "
            "choose another --protocol or --task"
        )
    if standard.target == "depth" and standard.align == "none":
        raise EvaluationError(
            f"{standard.id} scores metres, and this model knows depth up to scale and shift only; choose another "
            "--protocol, or score metric predictions with --predictions"
        )


class FromFiles:
    """Files of any tool: ``<id>.npy`` and other suffixes, or what ``predictions.jsonl`` lists."""

    def __init__(
        self, root: Path, standard: Standard, scale: float | None = None, frame: str = "RUB"
    ) -> None:
        """Reads the list, if there is one.

        Args:
            root: folder of the predictions.
            standard: whose target they are of.
            scale: what a stored number is multiplied by; 1 / 255 or 1 / 65535 for masks in PNG.
            frame: of vectors.

        Raises:
            EvaluationError: no such folder, or its list is not one.
        """
        if not root.is_dir():
            raise EvaluationError(f"{shown(root)} is not a folder; give the one that holds the predictions")
        self.root, self.standard, self.scale, self.frame = root, standard, scale, frame
        self._listed = read_list(root, standard) if (root / LIST).is_file() else {}

    def __call__(self, sample: Sample, row: Mapping[str, Any]) -> Answer:
        """The stored prediction of the sample's id."""
        path, said = self._path(str(sample.id), row)
        found = decoded(path, self.standard.target, said.scale or self.scale)
        return Answer(
            as_target(found, (said.frame or self.frame) if self.standard.target == "normals" else None)
        )

    def known(self, id: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
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

    def _path(self, id: str, row: Mapping[str, Any]) -> tuple[Path, Listed]:
        if self._listed:
            listed = self._listed.get(id) or self._listed.get(_image_digest(row))
            if listed is None:
                raise MissingError(f"{LIST} lists no prediction of {id!r}")
            return _inside(self.root, listed.path), listed
        for suffix in _ORDER:
            path = self.root / f"{id}{suffix}"
            if path.is_file():
                return _inside(self.root, f"{id}{suffix}"), Listed(f"{id}{suffix}")
        raise MissingError(f"there is no {id}.npy (or {', '.join(_ORDER[1:])}) among the predictions")


class Listed(NamedTuple):
    """What a list says of one prediction; its frame and scale where it says them."""

    path: str
    frame: str = ""
    scale: float | None = None


def read_list(root: Path, standard: Standard) -> dict[str, Listed]:
    """What a folder's ``predictions.jsonl`` lists, by id.

    Rows are ``{"id": ..., "path": ...}``, with a ``frame`` or ``scale`` of their own if need be, or those that
    ``twofold predict`` writes: these name a picture, and hold the sha256 of its file, by which it is known whatever its
    id is.

    Raises:
        EvaluationError: a line is neither.
    """
    found: dict[str, Listed] = {}
    names = [t.name for t in TASKS.values() if t.target == standard.target and t.space in standard.spaces]
    for number, line in enumerate((root / LIST).read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if "path" in row:
                found[str(row["id"])] = Listed(str(row["path"]), str(row.get("frame", "")), row.get("scale"))
                continue
            task = next((t for t in names if t in row["tasks"]), None)
            if task is not None:
                made = row["tasks"][task]
                listed = Listed(made["files"]["npy"]["path"], made["settings"].get("saved_frame", ""))
                found[str(row["name"])] = found[f"sha256:{row['input_sha256']}"] = listed
        except (ValueError, KeyError, TypeError):
            where = f"{shown(root / LIST)}, line {number},"
            raise EvaluationError(f"{where} is no prediction; a row has an 'id' and a 'path'") from None
    return found


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

    Raises:
        EvaluationError: its numbers cannot be those of the target.
        ImageError: the file is damaged.
    """
    raw = read_map(path)
    levels = _levels(path)
    if target == "normals":
        return raw / levels * 2 - 1 if levels else raw
    if raw.shape[0] > 1 and target != "keypoints" and bool((raw == raw[:1]).all()):
        raw = raw[:1]
    if target in _SHARES:
        raw = raw * (scale or (1 / levels if levels else 1.0))
        if not bool((raw[raw.isfinite()].abs() <= 1.001).all()):
            high = float(raw[raw.isfinite()].max())
            raise EvaluationError(
                f"{path.name} goes up to {high:g}, and a {target} is in [0, 1]; give --scale"
            )
        return raw
    return raw * scale if scale else raw


def _levels(path: Path) -> int:
    """The largest number a PNG's sample can hold; 0 for other files."""
    if path.suffix.lower() != ".png":
        return 0
    with path.open("rb") as file:
        head = file.read(26)
    return 2 ** head[24] - 1 if len(head) == 26 else 0
