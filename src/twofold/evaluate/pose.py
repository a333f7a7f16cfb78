"""People's joints: found one by one, scored over the whole set, because a person found twice is a mistake of a set."""

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
    """Whether a protocol counts people over the whole set."""
    return protocol.metrics[0].startswith(f"{FAMILY}.")


def _nothing(*_: object) -> Any:
    raise NotImplementedError("people are counted over a whole set: see evaluate.pose")


# The statistics of COCO, for their names: nothing of them adds but the lists of who was found.
POSE: dict[str, Metric] = {name: Metric(name, "", "higher", _nothing, _nothing) for name in STATISTICS}
# What one person's joints are worth alone.
OWN = Metric("oks", "", "higher", _nothing, _nothing)


class CocoResults:
    """A file of COCO's results, of any detector: people by image, not by row.

    Those of an image are counted once, with the first row of the image.
    """

    def __init__(self, path: Path, folder: Folder) -> None:
        """Reads the file. EvaluationError when it is not one of results."""
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
                f"{escape(path)} is no file of COCO's results: a list of people found"
            ) from None
        self.path, self.digest = path, hashlib.sha256(data).hexdigest()
        self._people: dict[str, list[dict[str, Any]]] = {row["id"]: [] for row in folder.rows}
        for row in folder.rows:
            self._people[row["id"]] = by_image.pop(folder.descriptor(row, "keypoints")["image_id"], [])
        self.left = sum(map(len, by_image.values()))  # in images that the folder does not have

    def people(self, id: str) -> list[dict[str, Any]]:
        """Who was found in a row's image, if the row is the first of it."""
        return self._people[id]

    def __call__(self, sample: Any, row: Mapping[str, Any]) -> Any:
        """EvaluationError: results hold no maps."""
        raise EvaluationError(f"{escape(self.path)} holds people, not maps")

    def fingerprint(self, id: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """The file's sha256."""
        return {"file": self.path.name, "sha256": self.digest}


def found(prediction: Tensor, how: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Who one prediction finds: a person, as a line of COCO's results.

    Args:
        prediction: heatmaps ``17 h w`` of the picture that was cut to the person's box.
        how: the target's descriptor, see `data.points`.

    Raises:
        EvaluationError: it is not that of a person.
    """
    if prediction.shape[0] != 17:
        raise EvaluationError(f"it has {prediction.shape[0]} channels, and a person has 17 joints")
    if not bool(prediction.isfinite().all()):
        raise EvaluationError("it is NaN or infinite")
    return [coco_result(prediction, how)]


def keypoint_similarity(person: Mapping[str, Any], how: Mapping[str, Any]) -> float:
    """Object keypoint similarity of one person with the truth, in [0, 1]."""
    said = torch.tensor(person["keypoints"], dtype=torch.float64).reshape(-1, 3)
    true = torch.tensor(how["points"], dtype=torch.float64)
    return float(oks(said[:, :2], true[:, :2], true[:, 2], torch.tensor(float(how["area"]))))


def coco_annotations(folder: Folder, ids: Iterable[str]) -> dict[str, Any]:
    """COCO's annotations of the people that a data folder lists, of those ids."""
    wanted = set(ids)
    images: dict[int, dict[str, Any]] = {}
    people = []
    for row in folder.rows:
        if row["id"] not in wanted:
            continue
        how = folder.descriptor(row, "keypoints")
        images[how["image_id"]] = {"id": how["image_id"]}
        people.append(_annotation(how, row["id"]))
    category = {"id": 1, "name": "person"}
    return {"images": list(images.values()), "annotations": people, "categories": [category]}


def _annotation(how: Mapping[str, Any], id: str) -> dict[str, Any]:
    missing = [key for key in ("points", "area", "ann_id", "image_id") if key not in how]
    if missing:
        raise EvaluationError(f"the keypoints of {id!r} have no {missing[0]!r}, which their score needs")
    points = [float(x) for point in how["points"] for x in point]
    known = sum(point[2] > 0 for point in how["points"])
    more = {"bbox": list(how.get("box") or _around(how["points"])), "area": how["area"], "iscrowd": 0}
    return {
        "id": how["ann_id"],
        "image_id": how["image_id"],
        "category_id": 1,
        "keypoints": points,
        "num_keypoints": known,
        **more,
    }


def _around(points: Sequence[Sequence[float]]) -> list[float]:
    seen = [point for point in points if point[2] > 0]
    xs, ys = [p[0] for p in seen], [p[1] for p in seen]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def pose_scores(
    folder: Folder, rows: Iterable[Mapping[str, Any]], selected: Iterable[str]
) -> dict[str, float]:
    """COCO's statistics of the people found in rows that are done, over the truth of what was selected.

    A person whose row failed is missed, as a detector would have missed it: unlike other scores this one counts it.
    """
    people = [person for row in rows if row["status"] == "done" for person in row["found"]]
    return keypoint_ap(coco_annotations(folder, selected), people)
