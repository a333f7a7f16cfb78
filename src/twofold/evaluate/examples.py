"""Images of examples for the HTML report: input, truth, prediction and error, as data URLs."""

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
# The upper ends of the error scales.
_DEPTH_ERROR, _ANGLE_ERROR = 0.5, 60.0


@dataclass(frozen=True)
class ReportExample:
    """A sample shown in the report.

    Attributes:
        rank: ``best``, ``median`` or ``worst`` by the first metric.
        id: of the sample.
        value: the sample's score.
        images: (caption, data URL) pairs.
    """

    rank: str
    id: str
    value: float
    images: tuple[tuple[str, str], ...]


def render_example(
    rank: str, value: float, sample: Sample, aligned: Tensor, protocol: EvalProtocol, classes: int = 0
) -> ReportExample:
    """Render input, truth, prediction and error of one sample.

    Args:
        rank: ``best``, ``median`` or ``worst``.
        value: the sample's score.
        sample: the sample, cropped to the protocol's window.
        aligned: the prediction ``c h w`` after alignment, see `measure.measure`.
        protocol: the protocol that it was scored by.
        classes: number of classes, for class ids.
    """
    target, valid = truth(sample, protocol)
    colored = _colored(protocol.target, aligned.float(), target.float(), valid, classes)
    images = [("input", sample.image), *colored]
    return ReportExample(rank, str(sample.id), value, tuple((name, data_url(x)) for name, x in images))


def _colored(name: str, pred: Tensor, true: Tensor, valid: Tensor, classes: int) -> list[tuple[str, Tensor]]:
    """Truth, prediction and error in colours, with their captions."""
    spec = target_spec(name)
    if spec.is_distance:
        low, high = _range(true, valid)
        true_level, pred_level = ((x - low) / (high - low) for x in (true, pred))
        error = (pred - true).abs() / true.clamp(min=1e-6) / _DEPTH_ERROR
        scale = f"{low:.2g} to {high:.2g} m"
        return [
            (f"truth, {scale}", visualization.color_depth(true_level, valid)),
            ("prediction, fitted, same scale", visualization.color_depth(pred_level)),
            (f"relative error, 0 to {_DEPTH_ERROR:.0%}", _heat(error, valid)),
        ]
    if spec.is_direction:
        error = angle(pred, true).unsqueeze(-3) / _ANGLE_ERROR
        return [
            ("truth", visualization.color_normals(true, valid)),
            ("prediction", visualization.color_normals(pred)),
            (f"angle, 0 to {_ANGLE_ERROR:.0f}°", _heat(error, valid)),
        ]
    if spec.is_ids:
        correct = (pred == true).float() * 0.85
        errors = torch.cat([torch.full_like(correct, 0.85), correct, correct])
        return [
            ("truth", torch.where(valid, semantic_colors(true, classes), visualization.UNKNOWN)),
            ("prediction", semantic_colors(pred, classes)),
            ("errors in red", torch.where(valid, errors, visualization.UNKNOWN)),
        ]
    draw = visualization.color_mask if pred.shape[0] == 1 else _any_image
    error = (pred - true).abs().mean(0, keepdim=True)
    return [
        ("truth", draw(true, valid)),
        ("prediction", draw(pred)),
        ("error, 0 to 1", _heat(error, valid)),
    ]


def semantic_colors(ids: Tensor, classes: int) -> Tensor:
    """Class ids in the colours of the palette."""
    return show_ids(ids, max(classes, 2))


def _any_image(x: Tensor, valid: Tensor | None = None) -> Tensor:
    """A map of several channels as an image: as RGB if it has three, else the maximum over channels in grey."""
    rgb = x if x.shape[0] == 3 else x.amax(0, keepdim=True).expand(3, -1, -1)
    return visualization.color_image(rgb, valid)


def _heat(level: Tensor, valid: Tensor) -> Tensor:
    return visualization.color_depth(level.clamp(0, 1), valid, "inferno")


def _range(depth: Tensor, valid: Tensor) -> tuple[float, float]:
    """The 2nd and 98th percentile of valid depth."""
    values = depth[valid].sort().values
    low, high = (float(values[round(q * (len(values) - 1))]) for q in (0.02, 0.98))
    return low, max(high, low + 1e-6)


def data_url(image: Tensor) -> str:
    """An image ``3 h w`` in [0, 1], resized to at most `WIDTH`, as a JPEG data URL."""
    height, width = image.shape[-2:]
    if width > WIDTH:
        image = resize(image, (max(1, round(height * WIDTH / width)), WIDTH))
    levels = (image.float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="JPEG", quality=90, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
