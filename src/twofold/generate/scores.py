"""How good a created sample seems: numbers for its row, and thresholds on them. Nothing is dropped unless asked.

    rms_pixels       root mean square distance to the source, pixels in [0, 1]; near 0 is a copy
    rms_latents      the same between their latents, whose spread is about 1
    drift.TASK       the label against the source's own, inside the mask
    flip.TASK        the label against that of the mirrored picture, mirrored back
    agreement.TASK   labels of the picture under two draws of faint noise (4 of 255) and of the protocol's own
    uncertainty.TASK the mean of what the head says of itself, where it says anything

Those of a task are degrees for vectors, percent of pixels for classes, and percent of the range for all others;
distances are compared after the best scale and shift, of which the scale is not negative: near and far exchanged is no
agreement. There is no perceptual distance (LPIPS): it needs a network of
its own, which is not part of this package.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry import align_affine
from ..predict.base import Painter
from ..predict.prediction import SPACES, Prediction
from ..sample import Sample
from ..tasks import Task
from .config import draw_seed
from .labels import ask

NOISE = 4 / 255
_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_PER_TASK = ("drift", "flip", "agreement", "uncertainty")
_WHOLE = ("rms_pixels", "rms_latents")
_KEEP = re.compile(r"\s*([a-z_]+)(?:\.([A-Za-z0-9_.:-]+))?\s*(<=|>=|<|>)\s*([-+0-9.eE]+)\s*")


@dataclass(frozen=True)
class Keep:
    """A threshold that a sample has to meet to be kept: ``drift<20``, ``drift.normals<20``, ``rms_pixels>0.02``.

    Attributes:
        score: its name; of one that tasks have, every task's must meet it unless ``task`` names one.
        task: its task, or empty.
        sign: one of < <= > >=.
        limit: the number.
    """

    score: str
    task: str
    sign: str
    limit: float

    @classmethod
    def read(cls, text: str) -> Keep:
        """From its text.

        Raises:
            ValueError: it is no threshold, or there is no such score.
        """
        found = _KEEP.fullmatch(text)
        try:
            limit = float(found[4]) if found else math.nan
        except ValueError:
            limit = math.nan
        if found is None or not math.isfinite(limit):
            raise ValueError(
                f"{text!r} is no threshold; write 'drift<20', 'flip.normals<=10' or 'rms_pixels>0.02'"
            )
        if found[1] not in (*_PER_TASK, *_WHOLE) or (found[2] and found[1] in _WHOLE):
            raise ValueError(f"{text!r} is about no score; scores: {', '.join((*_WHOLE, *_PER_TASK))}")
        return cls(found[1], found[2] or "", found[3], limit)

    @property
    def looks(self) -> bool:
        """Whether its score takes further looks of the network: it is not among those that are free."""
        return self.score in ("flip", "agreement")

    def __str__(self) -> str:
        return f"{self.score}{'.' if self.task else ''}{self.task}{self.sign}{self.limit:g}"

    def missed(self, scores: Mapping[str, float]) -> str:
        """Why a sample with these scores is not kept; empty where it is. One without the score is not."""
        names = [n for n in scores if n == self.score or n.startswith(f"{self.score}.")]
        if self.task:
            names = [n for n in names if n == f"{self.score}.{self.task}"]
        if not names:
            return f"{self}: it has no such score"
        wrong = [n for n in names if not _COMPARE[self.sign](scores[n], self.limit)]
        return "; ".join(f"{self}: {n} is {scores[n]:.4g}" for n in wrong)


def free_scores(
    source: Sample,
    image: Tensor,
    latents: tuple[Tensor, Tensor],
    found: Mapping[str, Prediction],
    valid: Mapping[str, Tensor],
) -> dict[str, float]:
    """The scores that need no further look.

    Args:
        source: at the size of ``image``.
        image: created, ``3 h w`` in [0, 1].
        latents: of the source and of the created, each ``z h w``.
        found: the predictions, by task.
        valid: where each target holds, ``1 h w``.
    """
    scores = {"rms_pixels": _rms(image - source.image), "rms_latents": _rms(latents[0] - latents[1])}
    for name, prediction in found.items():
        task, mask = prediction.task, valid[prediction.task.target]
        if task.target in source.targets:
            known = mask & source.valid[task.target]
            drift = _drift(prediction, source.targets[task.target], known)
            if drift is not None:
                scores[f"drift.{name}"] = drift
        if prediction.uncertainty is not None and bool(mask.any()):
            scores[f"uncertainty.{name}"] = float(prediction.uncertainty[mask].double().mean())
    return scores


def asked_scores(
    predictor: Painter,
    name: str,
    images: Tensor,
    seeds: Sequence[int],
    reencoded: Sequence[Prediction],
    masks: Sequence[Tensor],
) -> list[dict[str, float]]:
    """Flip and agreement of each picture of a batch, by three more looks.

    Args:
        predictor: of the task.
        name: it goes by.
        images: ``b 3 h w``, as stored.
        seeds: of each picture.
        reencoded: what the predictor says of them as they are.
        masks: where each label holds, ``1 h w``.
    """
    task = predictor.task
    mirrored = ask(predictor, images.flip(-1), seeds)
    twice = []
    for draw in (1, 2):
        own = [draw_seed(seed, f"{name}/agreement", draw) for seed in seeds]
        noise = [torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(s)) for s in own]
        twice.append(ask(predictor, (images + NOISE * torch.stack(noise)).clamp(0, 1), own))
    scores = []
    for i, mask in enumerate(masks):
        if not bool(mask.any()):
            scores.append({})
            continue
        back = task.flip(mirrored[i].map)
        scores.append({
            f"flip.{name}": _apart(task, reencoded[i].map, back, mask),
            f"agreement.{name}": _apart(task, twice[0][i].map, twice[1][i].map, mask),
        })  # fmt: skip
    return scores


def _rms(x: Tensor) -> float:
    return float(x.double().square().mean().sqrt())


def _apart(task: Task, a: Tensor, b: Tensor, mask: Tensor) -> float:
    """Mean disagreement of two maps over a mask: degrees, or percent."""
    if task.space in SPACES:
        a = _aligned(a, b, mask)
    far = float(task.distance(a[None], b[None])[0][mask].double().mean())
    return far if task.frame is not None else 100 * far  # the distance of vectors is in degrees


def _aligned(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """``a`` after the least-squares scale and shift to ``b``, the scale being 0 or more."""
    scale, shift = align_affine(a, b, mask)
    if scale < 0:  # then the best scale that is allowed is 0, and the best shift the mean
        scale, shift = 0.0, float(b[mask].double().mean())
    return (a.double() * scale + shift).float()


def _drift(prediction: Prediction, target: Tensor, known: Tensor) -> float | None:
    """The label against the source's own, painted and read again as a map; None where nothing is known."""
    task = prediction.task
    if not bool(known.any()):
        return None
    wanted = target
    if prediction.space in SPACES:
        canvas, seen = task.encode(target[None], known[None])
        wanted, known = task.decode(canvas)[0], seen[0] & known
    return _apart(task, prediction.map, wanted, known) if bool(known.any()) else None
