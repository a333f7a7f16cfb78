"""Human keypoints: protocol and test set."""

from __future__ import annotations

from ..protocol import EvalProtocol
from .benchmark import Benchmark

COCO_KP = EvalProtocol(
    name="pose/coco-kp",
    version=1,
    title="people's joints: COCO's average precision",
    target="keypoints",
    spaces=("keypoints",),
    metrics=tuple(
        f"POSE.{name}"
        for name in ("AP", "AP50", "AP75", "AP_M", "AP_L", "AR", "AR50", "AR75", "AR_M", "AR_L")
    ),
    average="set",
    source="Lin et al. 2014; pycocotools counts",
    notes="A model gets each person cropped by the true box, worth some two points over a detector's; a person's "
    "score is the mean height of the joints' peaks above 0.2. There is no flip test and no removal of duplicates. "
    "The folder has no crowd regions: detections in one count as false positives.",
)

PROTOCOLS = (COCO_KP,)

BENCHMARKS = (
    Benchmark(
        "coco-keypoints", "COCO val2017, people with labelled points", "coco-keypoints", "val2017",
        (COCO_KP,), 6352,
        notes="One row for each person, cropped by the true box: published tables use detected boxes and are lower.",
    ),
)  # fmt: skip
