"""Prediction: one map of one image, with the unit and space of its values."""

from __future__ import annotations

import errno
import io
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image as PILImage, fromarray
from torch import Tensor

from ..geometry import convert_frame
from ..image import longest_edge_size, resize, write_image, write_map
from ..image.bands import by_rows
from ..image.quantize import (
    Quantization,
    is_within,
    metre_quantization,
    range_quantization,
    share_quantization,
    write_quantized,
)
from ..image.rgb import as_float
from ..tasks import TASKS, Task
from ..visualization import color_depth, color_disparity, color_image, robust_range, side_by_side

# Unit of each space if the map is metric.
METRIC_UNITS = {
    "depth": "m",
    "disparity": "1/m",
    "sqrt_disparity": "1/sqrt(m)",
    "log_depth": "natural logarithm of m",
}
# Spaces of distances, each a function of depth along z.
SPACES = ("depth", "disparity", "sqrt_disparity", "log_depth")


# Longest edge of each panel in a notebook.
_PREVIEW = 640


@dataclass(frozen=True, eq=False)
class Prediction:
    """One map of one image. Predictions compare equal only to themselves; compare their ``map`` instead.

    Attributes:
        task: the task.
        map: ``c h w`` float32 on the CPU at the size of the input; in ``unit``.
        levels: the input: ``3 h w`` sRGB in [0, 1], or the stored uint8 levels with 3 channels, or 4 with alpha; see
            ``image``.
        settings: model, protocol, size and seed of the prediction.
        space: what the values are: ``depth``, ``disparity``, ``sqrt_disparity`` or ``log_depth`` for distances
            (up to scale and shift unless ``metric``), else the task's space.
        frame: frame of vectors (RUB, LUB or RDF); None for other maps.
        uncertainty: ``1 h w``, the disagreement of the ensemble members, or without an ensemble the expected error
            that the head predicts, if any. For vectors, a share of 180 degrees.
        metric: whether distances are in metres.
    """

    task: Task
    map: Tensor
    levels: Tensor
    settings: Mapping[str, Any] = field(default_factory=dict)
    space: str = ""
    frame: str | None = None
    uncertainty: Tensor | None = None
    metric: bool = False

    def __repr__(self) -> str:
        height, width = self.map.shape[-2:]
        kind = f"{self.space or self.task.name}{', metric' if self.metric else ''}"
        frame = f", frame={self.frame}" if self.frame else ""
        finite = self.map[self.map.isfinite()]
        ends = (
            f", {float(finite.min()):.4g} to {float(finite.max()):.4g}"
            if finite.numel()
            else ", no finite value"
        )
        uncertainty = ", with uncertainty" if self.uncertainty is not None else ""
        by = f", model={self.settings['model']!r}" if "model" in self.settings else ""
        return (
            f"Prediction({self.task.name!r}, {width}x{height} pixels, {kind}{frame}{ends}{uncertainty}{by})"
        )

    def _repr_png_(self) -> bytes:
        """Image and map side by side for notebooks, each at most `_PREVIEW` pixels on its longest edge."""
        height, width = self.map.shape[-2:]
        size = longest_edge_size(height, width, min(_PREVIEW, max(height, width)))
        with io.BytesIO() as file:
            self._side_by_side([resize(x, size) for x in (self.image, self.color)]).save(file, format="PNG")
            return file.getvalue()

    @staticmethod
    def _side_by_side(panels: list[Tensor]) -> PILImage:
        both = side_by_side(panels).clamp(0, 1)
        return fromarray((both * 255).round().byte().permute(1, 2, 0).contiguous().numpy())

    @property
    def array(self) -> np.ndarray:
        """The map as numpy: ``h w``, or ``h w c`` if it has several channels."""
        return self.map.permute(1, 2, 0).squeeze(-1).contiguous().numpy()

    @property
    def image(self) -> Tensor:
        """The input, float32 ``3 h w``, sRGB in [0, 1]."""
        return as_float(self.levels)

    @property
    def color(self) -> Tensor:
        """The map as a preview image ``3 h w`` in [0, 1]; vectors in the frame RUB.

        Distances in metres, and others beyond [0, 1], are coloured by their 2nd and 98th percentiles.
        """
        return by_rows(self._coloring(), self.map)

    def _coloring(self) -> Callable[[Tensor], Tensor]:
        """The function that `color` applies to bands of rows."""
        if self.frame is not None and self.frame != "RUB":
            frame = self.frame
            return lambda part: self.task.show(convert_frame(part, frame, "RUB"))
        if self.space == "linear" and self.task.channels == 3:
            return partial(color_image, linear=True)
        if self.space in SPACES and self.map.shape[0] == 1:
            return self._distance_coloring()
        return self.task.show

    def _distance_coloring(self) -> Callable[[Tensor], Tensor]:
        colored = color_disparity if self.space in ("disparity", "sqrt_disparity") else color_depth
        values = self.map.numpy().ravel()
        if not self.metric and np.fmin.reduce(values) >= 0 and np.fmax.reduce(values) <= 1:  # of no NaN
            return colored
        low, high = robust_range(self.map, self.map.isfinite()) or (math.nan, math.nan)
        return lambda part: colored((part - low) / max(high - low, 1e-6))

    @property
    def unit(self) -> str:
        """Unit of the map's values as text: that of its space if it is metric, else the task's."""
        return METRIC_UNITS[self.space] if self.metric and self.space in SPACES else self.task.unit

    @property
    def encoding(self) -> Quantization | None:
        """Scale of the 16-bit PNG that `save` writes; None if it writes no PNG, an image, or class ids."""
        if self.map.shape[0] != 1 or self.task.classes:
            return None
        if self.metric and self.space == "depth":
            return metre_quantization(self.map)
        share = None if self.metric else share_quantization(self.map, self.unit)
        return share or range_quantization(self.map, self.unit)

    @property
    def numbers(self) -> dict[str, Any]:
        """Meaning of the saved values, as JSON: ``space``, ``unit``, ``metric``, ``frame``, and scale of the ``png``.

        A level of the PNG is ``scale * level + offset`` in ``unit``; the levels ``unknown`` and ``infinite`` are NaN
        and infinity.
        """
        how = self.encoding
        found = {"space": self.space or self.task.space, "unit": self.unit, "metric": self.metric}
        frame = {"frame": self.frame} if self.frame else {}
        return {**found, **frame, **({"png": asdict(how)} if how else {})}

    def in_frame(self, frame: str) -> Prediction:
        """The same vectors in another frame: ``RUB``, ``LUB`` or ``RDF``; see `geometry`.

        Raises:
            ValueError: the map holds no vectors, or the frame is unknown.
        """
        if self.frame is None:
            raise ValueError(f"a {self.task.name} map holds no vectors, so it has no frame")
        return replace(self, map=convert_frame(self.map, self.frame, frame), frame=frame)

    def in_space(self, space: str, scale: float | None = None, shift: float = 0.0) -> Prediction:
        """Convert distances to another space; the result is metric.

        Args:
            space: ``depth`` (m), ``disparity`` (1/m), ``sqrt_disparity`` or ``log_depth``.
            scale: with ``shift``, makes this map metric in its own space: ``scale * map + shift``; the default for a
                task in metres is ``Task.metres``. A map known up to scale and shift cannot be converted without them:
                1 / (a d + b) depends on b / a.
            shift: see ``scale``.

        Raises:
            ValueError: the map holds no distances, the space is unknown, or scale is needed and missing.
        """
        if self.space not in SPACES or space not in SPACES:
            raise ValueError(
                f"cannot convert {self.space or self.task.name!r} to {space!r}; spaces: {', '.join(SPACES)}"
            )
        if scale is None and not self.metric and self.task.metres:
            scale = self.task.metres
        if scale is None and not self.metric:
            raise ValueError(
                f"this {self.space} is known up to scale and shift only; pass the scale and shift that make it metric "
                "(geometry.align_affine fits them to known pixels)"
            )
        known = self.map if scale is None else scale * self.map + shift
        task = self.task if space == self.space else TASKS[space]
        task = replace(task, unit=METRIC_UNITS[space], metres=0.0)
        made = from_metric_depth(to_metric_depth(known, self.space), space)
        return replace(self, task=task, map=made, space=space, metric=True)

    def show(self) -> None:
        """Open image and map side by side in the system's image viewer."""
        self._side_by_side([self.image, self.color]).show()

    def save(self, folder: str | Path, stem: str, overwrite: bool = False) -> dict[str, Path]:
        """Write ``<stem>_<task>.npy`` (exact), ``.png`` and ``_color.png`` (preview image) into ``folder``.

        The PNG of a one-channel map is 16-bit grey: 0 to 65535 for 0 to 1; millimetres for a depth in metres
        (centimetres above 65.5 m, decimetres above 655 m, no PNG above 6.5 km); the range of the map for other values;
        class ids. The scale is stored in the file (`image.quantize.read_quantized` applies it) and in `numbers`.
        The PNG of vectors is 8-bit, (n + 1) / 2; that of an image in [0, 1] is 8-bit. No PNG is written where it would
        clip. An uncertainty is ``<stem>_<task>_uncertainty.npy``. The names of a metric map have ``<task>_metric``, so
        that it does not replace the affine-invariant map it was computed from.

        Returns:
            The written paths, by ``npy``, ``png``, ``color`` and ``uncertainty``.

        Raises:
            FileExistsError: one of these files exists (maps in other frames and spaces have the same names), and
                ``overwrite`` was not passed. Nothing is written.
        """
        base = Path(folder)
        name = f"{stem}_{self.task.name}{'_metric' if self.metric else ''}"
        paths = {
            "npy": base / f"{name}.npy",
            "png": base / f"{name}.png",
            "color": base / f"{name}_color.png",
        }
        uncertainty = base / f"{name}_uncertainty.npy"
        existing = [path for path in (*paths.values(), uncertainty) if os.path.lexists(path)]
        if existing and not overwrite:
            raise FileExistsError(
                errno.EEXIST,
                "it exists; pass overwrite=True to replace it, or another stem or folder",
                str(existing[0]),
            )
        base.mkdir(parents=True, exist_ok=True)
        write_map(paths["npy"], self.map)
        how = self.encoding
        if self.task.classes:
            write_map(paths["png"], self.map)
        elif how is not None:
            write_quantized(paths["png"], self.map, how)
        elif self.task.frame is not None and is_within(self.map, -1, 1):
            write_image(paths["png"], self.map, lambda part: (part + 1) / 2)
        elif self.map.shape[0] == 3 and is_within(self.map, 0, 1):
            write_image(paths["png"], self.map)
        else:
            del paths["png"]  # heatmaps, and values that a PNG cannot store
        write_image(paths["color"], self.map, self._coloring())
        if self.uncertainty is not None:
            paths["uncertainty"] = uncertainty
            write_map(uncertainty, self.uncertainty)
        return paths


def to_metric_depth(x: Tensor, space: str) -> Tensor:
    """Metric distances in a ``space`` to depth in metres."""
    tiny = 1e-6  # a disparity of 0 becomes a large finite depth
    match space:
        case "disparity":
            return 1 / x.clamp(min=tiny)
        case "sqrt_disparity":
            return 1 / x.clamp(min=tiny**0.5).square()
        case "log_depth":
            return x.exp()
    return x


def from_metric_depth(metres: Tensor, space: str) -> Tensor:
    """Depth in metres to distances in another ``space``."""
    metres = metres.clamp(min=1e-6)
    match space:
        case "disparity":
            return 1 / metres
        case "sqrt_disparity":
            return metres.rsqrt()
        case "log_depth":
            return torch.log(metres)
    return metres
