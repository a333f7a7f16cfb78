"""Predictions of Diff-2-in-1's test.py: numbered 8-bit square files with red and blue swapped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from ..data.folder import Folder
from ..io import escape
from .prediction_list import ListedPrediction
from .predictions import FilePredictions, MissingError, decode_file
from .protocol import EvalProtocol, EvaluationError

FRAME = "LUB"  # camera frame of the vectors, which is that of its training data


class Diff2in1Predictions(FilePredictions):
    """Reads ``sn_pred_K.png`` as evaluation.py does: K, from 1, numbers the images by file name of their normals.

    test.py passes RGB to OpenCV's ``imwrite``, which expects BGR; its files are 512 x 512 for images of any size. The
    files ``sn_gt_K.png``, the resized truth, are not read.
    """

    def __init__(self, root: Path, protocol: EvalProtocol, folder: Folder) -> None:
        """Number the images of ``folder``, which has to be the whole predicted split.

        Raises:
            EvaluationError: the protocol scores another target, or files and images do not match.
        """
        if protocol.target != "normals":
            raise EvaluationError(
                f"--layout diff2in1 is for normals, and {protocol.id} scores {protocol.target}; leave it out"
            )
        super().__init__(root, protocol, frame=FRAME, stretch=True)
        self._listed = {}
        truths = {
            row["id"]: PurePosixPath(str(row["targets"]["normals"]["path"]))
            for row in folder.rows
            if "path" in (row.get("targets") or {}).get("normals", {})
        }
        ordered = sorted(truths, key=lambda id: (truths[id].name, str(truths[id])))
        self._names = {id: f"sn_pred_{number}.png" for number, id in enumerate(ordered, 1)}
        files = {path.name for path in root.glob("sn_pred_*.png")}
        unmatched = sorted(files ^ set(self._names.values()))
        if unmatched:
            problem = "belongs to no image" if unmatched[0] in files else "is missing"
            raise EvaluationError(
                f"{escape(root)} has {len(files)} files sn_pred_K.png and the data has {len(self._names)} images: "
                f"{unmatched[0]} {problem}. They are paired by order; pass all files and the whole predicted split"
            )

    def unpaired(self, rows: Iterable[Mapping[str, Any]]) -> list[str]:
        """Empty, because `__init__` checks that files and images match."""
        return []

    def _decode(self, path: Path, listed: ListedPrediction) -> Tensor:
        return decode_file(path, self.protocol.target).flip(0)

    def _path(self, id: str, row: Mapping[str, Any]) -> tuple[Path, ListedPrediction]:
        if id not in self._names:
            raise MissingError(f"{id!r} has no normals in a file, by whose name its prediction is numbered")
        return self.root / self._names[id], ListedPrediction(self._names[id])
