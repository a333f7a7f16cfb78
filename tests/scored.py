"""Small data folders with every kind of target, and predictions of them, for the tests of evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twofold.data.folder import Folder
from twofold.data.writer import FolderWriter
from twofold.evaluate import EvalProtocol, EvalRequest, evaluation_from_files, run_and_report
from twofold.geometry import unit
from twofold.predict.base import BasePredictor
from twofold.predict.batching import ImageBatch
from twofold.sample import Provenance, Sample
from twofold.tasks import TASKS
from world import sphere

SIZE = 48
CLASSES = ("nothing", "ball", "wall")


def sample(seed: int, kind: str = "real") -> Sample:
    """A ball with every target: also its mask, a soft matte, classes and parts; some of it unknown."""
    ball = sphere(seed, SIZE)
    on = (ball.targets["normals"][2:] < 0.999).float()
    soft = torch.nn.functional.avg_pool2d(on[None], 5, 1, 2, count_include_pad=False)[0]
    ids = on + 1
    parts = on * (1 + torch.arange(SIZE) // 8 % 6)
    known = torch.ones(1, SIZE, SIZE, dtype=torch.bool)
    known[:, :, :3] = False
    targets = {**ball.targets, "mask": on, "matting": soft, "semantic": ids, "parts": parts}
    valid = {
        **dict.fromkeys(("depth", "normals", "semantic"), known),
        **{name: torch.ones_like(known) for name in ("mask", "matting", "parts")},
    }
    targets = {name: torch.where(valid[name], x, 0.0) for name, x in targets.items()}
    return replace(ball, targets=targets, valid=valid, id=f"set/ball-{seed}", origin=Provenance(kind))  # ty: ignore


def folder(root: Path, count: int = 5, kind: str = "real") -> Path:
    """A data folder of that many."""
    codecs: dict[str, Any] = {
        "depth": {"codec": "npy"}, "normals": {"codec": "exr", "frame": "RUB", "invalid": "zero"}, "mask": {},
        "matting": {"codec": "npy"}, "semantic": {}, "parts": {"codec": "png8", "ignore": [255]},
    }  # fmt: skip
    writer = FolderWriter(root, {"name": "balls", "targets": codecs, "classes": list(CLASSES)})
    for seed in range(count):
        writer.write(sample(seed, kind))
    writer.finish()
    return root


def stored(root: Path, id: str, prediction: Tensor) -> Path:
    """A prediction ``c h w`` as another tool would leave it."""
    path = root / f"{id}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, prediction.permute(1, 2, 0).squeeze(-1).float().numpy())
    return path


def guess(one: Sample, target: str, seed: int = 0) -> Tensor:
    """A prediction that is not quite right."""
    rng = torch.Generator().manual_seed(seed + sum(map(ord, str(one.id))))
    true = one.targets[target]
    noise = torch.randn(true.shape, generator=rng)
    if target in ("semantic", "parts"):
        return torch.where(noise > 1, 1.0, true)
    if target in ("mask", "matting"):
        return (true + 0.2 * noise).clamp(0, 1)
    return true + 0.1 * noise


def guesses(data: Path, root: Path, target: str, count: int = 0) -> Path:
    """Stored guesses of a folder's samples."""
    for one in list(Folder(data))[: count or None]:
        stored(root, str(one.id), guess(one, target))
    return root


def scored(data: Path, root: Path, protocol: EvalProtocol, out: Path, **arguments: Any) -> dict[str, Any]:
    """The report of stored predictions, without images."""
    job, metadata = evaluation_from_files(EvalRequest(Folder(data), protocol, out, **arguments), root)
    return run_and_report(job, metadata, images=False)


class Eyes(BasePredictor):
    """A predictor without a network, whose prediction depends on image and seed."""

    def __init__(self, task: str = "depth") -> None:
        super().__init__(TASKS[task], metadata={"model": "eyes", "digest": "d" * 64})

    def predict_raw(
        self, inputs: ImageBatch, index: Sequence[int], seeds: Sequence[int]
    ) -> tuple[Tensor, None]:
        images = inputs.select(index)
        if self.task.frame:
            return unit(images * 2 - 0.9), None
        return (images[:, :1] * 0.9 + seeds[0] / 1e5) * 2 - 1, None
