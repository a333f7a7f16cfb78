"""How good a model is on folders with truth, beside guesses that look at no picture.

    python benchmarks/quality.py --model embedded data/rooms-val data/views --out quality.json

Prints one JSON object a folder and group: number of samples, the scores of each task, and for depth the scores of the
three baselines and the ratio of the model's AbsRel to the best one's. ``--group`` splits a folder by the part of the
sample ids before the first ``-``.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import torch

from twofold.checkpoints import Model, open_model
from twofold.data.folder import Folder
from twofold.evaluate import score, score_baselines
from twofold.evaluate.score import scorable
from twofold.sample import Sample


def groups(folder: Folder, split: bool, count: int) -> dict[str, list[Sample]]:
    """Samples by group; all in one unless split."""
    found: dict[str, list[Sample]] = defaultdict(list)
    for i in range(min(count or len(folder), len(folder))):
        sample = folder[i]
        found[str(sample.id).partition("-")[0] if split else "all"].append(sample)
    return found


def quality(model: Model, samples: list[Sample], size: int | None) -> dict:
    """Scores of every task the samples have targets for."""
    row: dict = {"samples": len(samples)}
    for task in model.tasks:
        if not any(scorable(s, task) for s in samples):
            continue
        predictor = model.predictor(task)
        if size is not None:
            predictor.size = size
        row.update(score(predictor, samples))
    if "depth/abs_rel" in row:
        task = model.predictor("depth").task
        baselines = {k: v["abs_rel"] for k, v in score_baselines(task.metrics, samples).items()}
        row["baselines abs_rel"] = baselines
        row["abs_rel to best baseline"] = row["depth/abs_rel"] / min(baselines.values())
    return row


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--size", type=int, default=None)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--group", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=None)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    model = open_model(asked.model)
    rows = []
    for path in asked.folders:
        for name, samples in groups(Folder(path), asked.group, asked.count).items():
            row = {"folder": Path(path).name, "group": name, "model": model.digest[:12], "size": asked.size}
            rows.append({**row, **quality(model, samples, asked.size)})
            print(json.dumps(rows[-1]), flush=True)
    if asked.out:
        asked.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
