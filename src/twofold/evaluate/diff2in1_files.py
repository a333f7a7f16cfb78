"""Predictions that Diff-2-in-1's test.py wrote: numbered 8-bit files of squeezed images, red and blue exchanged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from ..data.folder import Folder
from ..io import escape
from .prediction_list import ListedPrediction
from .predictions import FilePredictions, MissingError, decoded
from .protocol import EvalProtocol, EvaluationError

FRAME = "LUB"  # of its vectors, as of the truth it was trained on


class Diff2in1Predictions(FilePredictions):
    """``sn_pred_K.png``, K from 1, of the K-th test image by the file names of the normals, as evaluation.py reads it.

    The program hands RGB to OpenCV's ``imwrite``, which takes it for BGR; the files are 512 x 512 whatever the images
    are. Its ``sn_gt_K.png``, the truth as the program saw it, are not read.
    """

    def __init__(self, root: Path, protocol: EvalProtocol, folder: Folder) -> None:
        """Numbers the images of ``folder``, which has to hold the whole split that was predicted.

        Raises:
            EvaluationError: the protocol scores something else than normals, or there are other files than images.
        """
        if protocol.target != "normals":
            raise EvaluationError(
                f"--layout diff2in1 is of normals, and {protocol.id} scores {protocol.target}; leave it out"
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
        there = {path.name for path in root.glob("sn_pred_*.png")}
        other = sorted(there ^ set(self._names.values()))
        if other:
            kind = "belongs to no image" if other[0] in there else "is missing"
            raise EvaluationError(
                f"{escape(root)} has {len(there)} files sn_pred_K.png and the data have {len(self._names)} images: "
                f"{other[0]} {kind}. They pair by their order; give all files and the whole split that was predicted"
            )

    def unpaired(self, asked: Iterable[Mapping[str, Any]]) -> list[str]:
        """None: files and images were counted."""
        return []

    def _decoded(self, path: Path, said: ListedPrediction) -> Tensor:
        return decoded(path, self.protocol.target).flip(0)

    def _path(self, id: str, row: Mapping[str, Any]) -> tuple[Path, ListedPrediction]:
        if id not in self._names:
            raise MissingError(f"{id!r} has no normals in a file, by whose name its prediction is numbered")
        return self.root / self._names[id], ListedPrediction(self._names[id])
