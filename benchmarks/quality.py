"""Scores of a model on folders with ground truth, compared with image-independent baselines.

    python benchmarks/quality.py --model embedded data/rooms-val data/views --out quality.json

Prints one JSON object per folder and group: number of samples, scores of each task, and for depth the scores of the
three baselines and the ratio of the model's AbsRel to that of the best baseline. ``--group`` splits a folder by the
part of the sample ids before the first ``-``.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from twofold.checkpoints import Model, open_model
from twofold.data.folder import Folder
from twofold.evaluate import score, score_baselines
from twofold.metrics.boundaries import BOUNDARIES
from twofold.predict.prediction import SPACES, Prediction
from twofold.sample import Sample
from twofold.tasks import get_task


def groups(folder: Folder, split: bool, count: int) -> dict[str, list[Sample]]:
    """Samples by group; one group unless ``split``."""
    found: dict[str, list[Sample]] = defaultdict(list)
    for i in range(min(count or len(folder), len(folder))):
        sample = folder[i]
        found[str(sample.id).partition("-")[0] if split else "all"].append(sample)
    return found


class OnnxDisparity:
    """A predictor for comparison from an ONNX file: RGB 0-255 at a fixed size to inverse depth."""

    def __init__(self, path: str, height: int = 192, width: int = 320) -> None:
        import onnxruntime

        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.task, self.size = get_task("disparity"), (height, width)

    def __call__(self, image: torch.Tensor) -> Prediction:
        """Disparity of an image ``3 h w`` in [0, 1], at its size."""
        resize = partial(torch.nn.functional.interpolate, mode="bilinear", align_corners=False)
        x = resize(image[None] * 255, self.size, antialias=True)
        found = self.session.run(None, {self.session.get_inputs()[0].name: x.numpy()})[0]
        disparity = torch.from_numpy(found).reshape(1, 1, *self.size)
        return Prediction(self.task, resize(disparity, image.shape[-2:])[0], image, space="disparity")


def with_boundaries(predictor: Any) -> None:
    """Add boundary F1 to a predictor's metrics if it predicts distances; the ground truth has to be dense."""
    task = predictor.task
    if task.space in SPACES:
        predictor.task = replace(task, metrics=(*task.metrics, BOUNDARIES["boundary_f1_pooled"]))


def quality(predictors: Mapping[str, Any], samples: list[Sample], size: int | None, boundaries: bool) -> dict:
    """Scores of every task whose target the samples have."""
    row: dict = {"samples": len(samples)}
    for predictor in predictors.values():
        if size is not None:
            predictor.size = size
        if boundaries:
            with_boundaries(predictor)
    row.update(score(predictors.values(), samples))
    found = [row[k] for k in ("depth/abs_rel", "disparity/abs_rel") if k in row]
    if found:
        metrics = get_task("depth").metrics
        baselines = {k: v["abs_rel"] for k, v in score_baselines(metrics, samples).items()}
        row["baselines abs_rel"] = baselines
        row["abs_rel to best baseline"] = min(found) / min(baselines.values())
    return row


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--size", type=int, default=None)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--group", action="store_true")
    parser.add_argument("--boundaries", action="store_true", help="add boundary F1; needs dense ground truth")
    parser.add_argument(
        "--onnx", default="", help="score this file (RGB 0-255, 192x320, inverse depth) instead"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.onnx:
        name, predictors = Path(args.onnx).name, {"disparity": OnnxDisparity(args.onnx)}
    else:
        model: Model = open_model(args.model)
        name, predictors = model.digest[:12], {t: model.predictor(t) for t in model.tasks}
    rows = []
    for path in args.folders:
        for group, samples in groups(Folder(path), args.group, args.count).items():
            row = {"folder": Path(path).name, "group": group, "model": name, "size": args.size}
            rows.append({**row, **quality(predictors, samples, args.size, args.boundaries)})
            print(json.dumps(rows[-1]), flush=True)
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
