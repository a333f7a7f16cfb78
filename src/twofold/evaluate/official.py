"""Predictions as Diff-2-in-1's released ``test.py`` writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch.nn.functional import interpolate

from ..image.pictures import shown
from ..sample import Sample
from .predictions import Answer, FromFiles, Listed, as_target, decoded
from .standard import EvaluationError, Standard

FRAME = "LUB"
_NAME = re.compile(r"sn_pred_(\d+)\.png")


class FromDiff2in1(FromFiles):
    """``sn_pred_K.png`` of 512 x 512: the K-th image of the test set squeezed into a square, red and blue exchanged.

    Files belong to samples by order, the only thing that they have, so there must be one for each; the first is number
    0 or 1. Their 8 bits are decoded and the vectors are brought to the image's size, as ``evaluation.py`` does.

    Args:
        root: folder of the predictions.
        standard: of normals.
        ids: of all samples of the data folder, in its order.

    Raises:
        EvaluationError: another target than normals, a standard that rounds to 8 bits, or another number of files than
            of samples, or numbers that leave one out.
    """

    def __init__(self, root: Path, standard: Standard, ids: Iterable[str]) -> None:
        if standard.target != "normals":
            raise EvaluationError(
                f"Diff-2-in-1's program writes normals, and {standard.id} scores {standard.target}"
            )
        if standard.name == "normal/diff2in1-script":
            raise EvaluationError(
                f"{standard.id} rounds what it scores to 8 bits, and these files are in 8 bits already; use "
                "--protocol normal/diff2in1-files"
            )
        super().__init__(root, standard, frame=FRAME)
        there = {int(m[1]): p.name for p in root.iterdir() if (m := _NAME.fullmatch(p.name))}
        wanted = list(ids)
        numbers = sorted(there)
        if (
            len(there) != len(wanted)
            or numbers[-1] - numbers[0] + 1 != len(numbers)
            or numbers[0] not in (0, 1)
        ):
            ends = f"{numbers[0]} to {numbers[-1]}" if numbers else "none"
            raise EvaluationError(
                f"{shown(root)} has {len(there)} files sn_pred_K.png (K: {ends}) for {len(wanted)} samples; they "
                "belong together by order, so there must be one for each, numbered from 0 or 1"
            )
        self._listed = {
            id: Listed(there[k], FRAME)
            for id, k in zip(wanted, range(numbers[0], numbers[-1] + 1), strict=True)
        }

    def __call__(self, sample: Sample, row: Mapping[str, Any]) -> Answer:
        """The stored prediction of a sample, at its image's size."""
        path, _ = self._path(str(sample.id), row)
        vectors = decoded(path, "normals").flip(0)
        size = [int(n) for n in sample.image.shape[-2:]]
        sized = interpolate(vectors[None], size, mode="bilinear", align_corners=False)[0]
        return Answer(as_target(sized, FRAME))
