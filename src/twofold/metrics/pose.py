"""COCO's average precision of keypoints (Lin et al. 2014; cocodataset.org, keypoint evaluation).

Detections are ranked over the whole set, so it is not computed from sums: concatenate the detections of all shards, in
any order, and score once. Points are in COCO's pixel coordinates.

The score of a person is part of the method: published tables use (box score) x (mean score of the joints above 0.2),
boxes of a detector, flip testing and OKS non-maximum suppression. Report which of these you use.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

# COCO's per-joint standard deviations of annotators, as a fraction of the square root of the person's area.
SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087,
    0.089, 0.089,
)  # fmt: skip
# In COCO's order. M: people of 32^2 to 96^2 pixels, L: larger ones.
STATISTICS = ("AP", "AP50", "AP75", "AP_M", "AP_L", "AR", "AR50", "AR75", "AR_M", "AR_L")


def oks(
    points: Tensor, truth: Tensor, visible: Tensor, area: Tensor, sigmas: Sequence[float] = SIGMAS
) -> Tensor:
    """Object keypoint similarity, in [0, 1]: the mean over labelled joints of exp(-e^2 / 2 area (2 sigma)^2).

    Args:
        points: predicted x and y, ``*b k 2``.
        truth: true x and y, ``*b k 2``.
        visible: ``*b k``, above 0 where the joint is labelled.
        area: ``*b``, area of the person's *segmentation* in square pixels, not of the box.
        sigmas: k standard deviations, see `SIGMAS`.

    Returns:
        ``*b``, float64; NaN where no joint is labelled.
    """
    width = 2 * torch.as_tensor(sigmas, dtype=torch.float64, device=points.device)
    # COCO's code adds the least float64, 2.2e-16, to the area.
    scale = 2 * (area.double()[..., None] + 2.220446049250313e-16) * width.square()
    similarity = (-(points.double() - truth.double()).square().sum(-1) / scale).exp()
    labelled = visible > 0
    return torch.where(labelled, similarity, 0.0).sum(-1) / labelled.sum(-1)


def detection(image: int, points: Tensor, score: float, category: int = 1) -> dict[str, Any]:
    """One detected person in COCO's results format; points ``k 3``: x, y and a third number that COCO ignores."""
    flat = [float(x) for x in points.reshape(-1)]
    return {"image_id": image, "category_id": category, "keypoints": flat, "score": float(score)}


def rescore(box: float, joints: Tensor, least: float = 0.2) -> float:
    """Box score times the mean of the joint scores above `least` (Xiao et al. 2018); 0 when none is above."""
    sure = joints[joints > least]
    return box * float(sure.double().mean()) if len(sure) else 0.0


def keypoint_ap(
    truth: Mapping[str, Any] | Path | str,
    found: Sequence[Mapping[str, Any]],
    sigmas: Sequence[float] = SIGMAS,
    backend: Literal["pycocotools", "faster-coco-eval"] = "pycocotools",
) -> dict[str, float]:
    """COCO's ten keypoint scores (STATISTICS, in that order); NaN where no annotation has that size.

    Args:
        truth: COCO annotations (``images``, ``annotations``, ``categories``), or their JSON file.
        found: detections in the format of `detection`; the 20 highest scores of an image count.
        sigmas: one standard deviation per joint.
        backend: the implementation to use; both agree.

    Raises:
        ValueError: an annotation's id is below 1 or duplicated, it has no area, or a detection has an unknown image or
            category, another number of joints, or a number that is not finite.
        ImportError: the backend is not installed.
    """
    annotations = json.loads(Path(truth).read_text()) if isinstance(truth, Path | str) else dict(truth)
    _check_truth(annotations)
    # The backends write into their inputs.
    annotations["annotations"] = [dict(x) for x in annotations["annotations"]]
    # Detections of equal score are matched in input order: make that order independent of the split.
    found = sorted(found, key=lambda x: (x["image_id"], -x["score"], tuple(x["keypoints"])))
    _check_found(annotations, found, len(sigmas))
    coco_class, evaluation_class = _import_backend(backend)
    # Both backends print to standard output.
    with contextlib.redirect_stdout(io.StringIO()):
        coco = coco_class()
        coco.dataset = annotations
        coco.createIndex()
        # The backends refuse an empty list of results.
        results = coco.loadRes([dict(x) for x in found]) if found else _empty_results(coco_class, annotations)
        evaluation = evaluation_class(coco, results, "keypoints")
        evaluation.params.kpt_oks_sigmas = torch.tensor(sigmas, dtype=torch.float64).numpy()
        for step in (evaluation.evaluate, evaluation.accumulate, evaluation.summarize):
            step()
    numbers = [float(x) for x in list(evaluation.stats)[: len(STATISTICS)]]
    # The backends return -1 where there is no ground truth.
    return {n: math.nan if x == -1 else x for n, x in zip(STATISTICS, numbers, strict=True)}


def _empty_results(coco_class: Any, annotations: dict[str, Any]) -> Any:
    empty = coco_class()
    empty.dataset = {**annotations, "annotations": []}
    empty.createIndex()
    return empty


def _check_truth(annotations: Mapping[str, Any]) -> None:
    missing = [key for key in ("images", "annotations", "categories") if key not in annotations]
    if missing:
        raise ValueError(f"the annotations have no {missing[0]!r}; expected COCO's format")
    seen: set[int] = set()
    for annotation in annotations["annotations"]:
        number = annotation["id"]
        if number < 1:
            # COCO uses id 0 for "unmatched", so such an annotation would never be matched.
            raise ValueError(f"an annotation has the id {number}; COCO ids start at 1: renumber them")
        if number in seen:
            raise ValueError(f"two annotations have the id {number}; renumber them")
        seen.add(number)
        if "area" not in annotation:
            raise ValueError(f"annotation {number} has no area (of its segmentation), which OKS needs")


def _check_found(annotations: Mapping[str, Any], found: Sequence[Mapping[str, Any]], joints: int) -> None:
    images = {image["id"] for image in annotations["images"]}
    kinds = {kind["id"] for kind in annotations["categories"]}
    for person in found:
        if person["image_id"] not in images:
            raise ValueError(
                f"a detection has the image id {person['image_id']}, which is not in the annotations"
            )
        if person["category_id"] not in kinds:
            raise ValueError(
                f"a detection has the category {person['category_id']}, which is not in the annotations"
            )
        if len(person["keypoints"]) != 3 * joints:
            raise ValueError(
                f"a detection has {len(person['keypoints'])} keypoint numbers; expected 3 x {joints}"
            )
        if not all(math.isfinite(x) for x in (*person["keypoints"], person["score"])):
            raise ValueError(
                f"a detection in image {person['image_id']} has a number that is NaN or infinite"
            )


def _import_backend(name: str) -> tuple[Any, Any]:
    if name not in ("pycocotools", "faster-coco-eval"):
        raise ValueError(f"unknown backend {name!r}; expected pycocotools or faster-coco-eval")
    try:
        if name == "pycocotools":
            from pycocotools.coco import COCO
            from pycocotools.cocoeval import COCOeval

            return COCO, COCOeval
        from faster_coco_eval import COCO, COCOeval_faster

        return COCO, COCOeval_faster
    except ImportError as error:
        raise ImportError(f"average precision needs {name}; pip install 'twofold[pose]'") from error
