"""Pictures of examples for eyes: input, truth, prediction and error, small, as data that a page can hold."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from .. import visualization
from ..image import resize
from ..metrics import angle
from ..sample import Sample
from ..targets import target_spec
from ..tasks.semantic import show as show_ids
from .measure import truth
from .protocol import EvalProtocol

WIDTH = 420
# Of the scale of errors: what is drawn brightest.
_DEPTH_ERROR, _ANGLE_ERROR = 0.5, 60.0


@dataclass(frozen=True)
class ReportExample:
    """One picture of an evaluation: ``best``, ``median`` or ``worst``, its score, and (caption, data URL) pairs."""

    which: str
    id: str
    value: float
    pictures: tuple[tuple[str, str], ...]


def render_example(
    which: str, value: float, sample: Sample, compared: Tensor, protocol: EvalProtocol, classes: int = 0
) -> ReportExample:
    """The pictures of one sample.

    Args:
        which: place among the others.
        value: its own score.
        sample: cut to the protocol's window.
        compared: the prediction as it was measured, see `measure.measure`.
        protocol: how it was scored.
        classes: how many, of ids.
    """
    target, valid = truth(sample, protocol)
    drawn = _drawn(protocol.target, compared.float(), target.float(), valid, classes)
    pictures = [("input", sample.image), *drawn]
    return ReportExample(which, str(sample.id), value, tuple((name, data_url(x)) for name, x in pictures))


def _drawn(name: str, said: Tensor, true: Tensor, valid: Tensor, classes: int) -> list[tuple[str, Tensor]]:
    """Truth, prediction and error in colours, with their captions."""
    spec = target_spec(name)
    if spec.is_distance:
        low, high = _range(true, valid)
        both = [(x - low) / (high - low) for x in (true, said)]
        error = (said - true).abs() / true.clamp(min=1e-6) / _DEPTH_ERROR
        scale = f"{low:.2g} to {high:.2g} m"
        return [
            (f"truth, {scale}", visualization.color_depth(both[0], valid)),
            ("prediction, fitted, same scale", visualization.color_depth(both[1])),
            (f"relative error, 0 to {_DEPTH_ERROR:.0%}", _heat(error, valid)),
        ]
    if spec.is_direction:
        error = angle(said, true).unsqueeze(-3) / _ANGLE_ERROR
        return [
            ("truth", visualization.color_normals(true, valid)),
            ("prediction", visualization.color_normals(said)),
            (f"angle, 0 to {_ANGLE_ERROR:.0f}°", _heat(error, valid)),
        ]
    if spec.is_ids:
        right = (said == true).float() * 0.85
        wrong = torch.cat([torch.full_like(right, 0.85), right, right])
        return [
            ("truth", torch.where(valid, semantic_colors(true, classes), visualization.UNKNOWN)),
            ("prediction", semantic_colors(said, classes)),
            ("wrong in red", torch.where(valid, wrong, visualization.UNKNOWN)),
        ]
    draw = visualization.color_mask if said.shape[0] == 1 else _any_picture
    error = (said - true).abs().mean(0, keepdim=True)
    return [
        ("truth", draw(true, valid)),
        ("prediction", draw(said)),
        ("error, 0 to 1", _heat(error, valid)),
    ]


def semantic_colors(ids: Tensor, classes: int) -> Tensor:
    """Ids in the colours of the palette."""
    return show_ids(ids, max(classes, 2))


def _any_picture(x: Tensor, valid: Tensor | None = None) -> Tensor:
    """Whatever has several channels: three are a picture, of others the largest is drawn."""
    three = x if x.shape[0] == 3 else x.amax(0, keepdim=True).expand(3, -1, -1)
    return visualization.color_picture(three, valid)


def _heat(level: Tensor, valid: Tensor) -> Tensor:
    return visualization.color_depth(level.clamp(0, 1), valid, "inferno")


def _range(depth: Tensor, valid: Tensor) -> tuple[float, float]:
    """The 2nd and 98th percentile of valid depth."""
    values = depth[valid].sort().values
    low, high = (float(values[round(q * (len(values) - 1))]) for q in (0.02, 0.98))
    return low, max(high, low + 1e-6)


def data_url(picture: Tensor) -> str:
    """A picture ``3 h w`` in [0, 1], at most `WIDTH` wide, as a JPEG inside a URL."""
    height, width = picture.shape[-2:]
    if width > WIDTH:
        picture = resize(picture, (max(1, round(height * WIDTH / width)), WIDTH))
    levels = (picture.float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="JPEG", quality=90, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
