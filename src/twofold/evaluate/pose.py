"""Scores human keypoints: one prediction for each person, and COCO's average precision over the whole set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.folder import Folder
from ..data.points import coco_result
from ..io import escape, parse_json
from ..metrics import Metric, keypoint_ap, oks
from ..metrics.pose import STATISTICS
from .protocol import EvalProtocol, EvaluationError

FAMILY = "POSE"


def is_pose(protocol: EvalProtocol) -> bool:
    """Whether a protocol scores people over the whole set."""
    return protocol.metrics[0].startswith(f"{FAMILY}.")


def _unused(*_: object) -> Any:
    raise NotImplementedError("people are scored over the whole set: see pose_scores")


# Names of COCO's statistics; `pose_scores` computes their values from the detections of the whole set.
POSE: dict[str, Metric] = {name: Metric(name, "", "higher", _unused, _unused) for name in STATISTICS}
# Keypoint similarity of one person, which ranks the examples of a report.
OKS = Metric("oks", "", "higher", _unused, _unused)


class CocoResults:
    """A COCO results file of any detector, which lists people by image, not by row of the manifest.

    The people of an image are assigned to the first row of the image.
    """

    def __init__(self, path: Path, folder: Folder) -> None:
        """Read the file. EvaluationError if it is not a results file."""
        try:
            data = path.read_bytes()
            people = parse_json(data, escape(path))
            by_image: dict[int, list[dict[str, Any]]] = {}
            for person in people:
                by_image.setdefault(int(person["image_id"]), []).append(person)
        except OSError as error:
            raise EvaluationError(f"{escape(path)} cannot be read ({error.strerror})") from None
        except (ValueError, KeyError, TypeError, OverflowError):
            raise EvaluationError(
                f"{escape(path)} is not a COCO results file, a list of detected people"
            ) from None
        self.path, self.digest = path, hashlib.sha256(data).hexdigest()
        self._people: dict[str, list[dict[str, Any]]] = {row["id"]: [] for row in folder.rows}
        for row in folder.rows:
            self._people[row["id"]] = by_image.pop(folder.descriptor(row, "keypoints")["image_id"], [])
        self.unmatched = sum(map(len, by_image.values()))  # in images that the folder does not have

    def people(self, id: str) -> list[dict[str, Any]]:
        """The people detected in the image of a row; empty if the row is not the first of its image."""
        return self._people[id]

    def __call__(self, sample: Any, row: Mapping[str, Any]) -> Any:
        """EvaluationError: a results file has no maps."""
        raise EvaluationError(f"{escape(self.path)} has people, not maps")

    def fingerprint(self, id: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """The name of the file and its sha256."""
        return {"file": self.path.name, "sha256": self.digest}


def detections(prediction: Tensor, descriptor: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The predicted person as a list of one entry in COCO's results format.

    Args:
        prediction: heatmaps ``17 h w`` of the image cropped to the person's box.
        descriptor: the descriptor of the target, see `data.points`.

    Raises:
        EvaluationError: the prediction has another number of channels, or a NaN or infinite value.
    """
    if prediction.shape[0] != 17:
        raise EvaluationError(f"it has {prediction.shape[0]} channels, and a person has 17 keypoints")
    if not bool(prediction.isfinite().all()):
        raise EvaluationError("it is NaN or infinite")
    return [coco_result(prediction, descriptor)]


def keypoint_similarity(person: Mapping[str, Any], descriptor: Mapping[str, Any]) -> float:
    """Object keypoint similarity (OKS) of a predicted person and the truth, in [0, 1]."""
    pred = torch.tensor(person["keypoints"], dtype=torch.float64).reshape(-1, 3)
    true = torch.tensor(descriptor["points"], dtype=torch.float64)
    return float(oks(pred[:, :2], true[:, :2], true[:, 2], torch.tensor(float(descriptor["area"]))))


def coco_annotations(folder: Folder, ids: Iterable[str]) -> dict[str, Any]:
    """The samples of these ids as a COCO annotation file."""
    selected = set(ids)
    images: dict[int, dict[str, Any]] = {}
    people = []
    for row in folder.rows:
        if row["id"] not in selected:
            continue
        descriptor = folder.descriptor(row, "keypoints")
        images[descriptor["image_id"]] = {"id": descriptor["image_id"]}
        people.append(_annotation(descriptor, row["id"]))
    category = {"id": 1, "name": "person"}
    return {"images": list(images.values()), "annotations": people, "categories": [category]}


def _annotation(descriptor: Mapping[str, Any], id: str) -> dict[str, Any]:
    missing = [key for key in ("points", "area", "ann_id", "image_id") if key not in descriptor]
    if missing:
        raise EvaluationError(f"the keypoints of {id!r} have no {missing[0]!r}, which their score needs")
    points = [float(x) for point in descriptor["points"] for x in point]
    known = sum(point[2] > 0 for point in descriptor["points"])
    box = list(descriptor.get("box") or _bounding_box(descriptor["points"]))
    return {
        "id": descriptor["ann_id"],
        "image_id": descriptor["image_id"],
        "category_id": 1,
        "keypoints": points,
        "num_keypoints": known,
        "bbox": box,
        "area": descriptor["area"],
        "iscrowd": 0,
    }


def _bounding_box(points: Sequence[Sequence[float]]) -> list[float]:
    known = [point for point in points if point[2] > 0]
    xs, ys = [p[0] for p in known], [p[1] for p in known]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def pose_scores(
    folder: Folder, rows: Iterable[Mapping[str, Any]], selected: Iterable[str]
) -> dict[str, float]:
    """COCO's statistics of the detections in rows with status ``done``, given the truth of the selected ids.

    A person whose row failed counts as missed, unlike in other scores, which exclude failed rows.
    """
    people = [person for row in rows if row["status"] == "done" for person in row["detections"]]
    return keypoint_ap(coco_annotations(folder, selected), people)
