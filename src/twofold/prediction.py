"""Prediction: one map of one image, with what its numbers mean."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
import torch
from PIL.Image import Image as PILImage
from PIL.Image import fromarray
from torch import Tensor

from .geometry import convert_frame
from .image import longest_edge_size, resize, write_image, write_map
from .show import color_picture, side_by_side
from .tasks import Task

# Distances, each as a function of metres along z; the four ways of the field to paint them.
SPACES = ("depth", "disparity", "sqrt_disparity", "log_depth")


# Longest edge of each panel in a notebook.
_PREVIEW = 640


@dataclass(frozen=True, eq=False)
class Prediction:
    """One map of one image. Two predictions are equal only if they are one object; compare their ``map`` instead.

    Attributes:
        task: what the map means.
        map: ``c h w`` float32 on the CPU at the size of the input; units in ``task.unit``.
        image: ``3 h w`` sRGB in [0, 1], the input.
        settings: model, protocol, size and seed that made it.
        space: what the numbers are: ``depth``, ``disparity``, ``sqrt_disparity`` or ``log_depth`` for distances
            (up to scale and shift unless ``metric``), else the task's own.
        frame: of vectors (RUB, LUB or RDF); None for anything else.
        uncertainty: ``1 h w``, how much the members of an ensemble disagree; of one answer, how far off its head
            expects it to be, and None where it does not say. Of vectors, a share of 180 degrees.
        metric: whether distances are in metres.
    """

    task: Task
    map: Tensor
    image: Tensor
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
        unsure = ", with uncertainty" if self.uncertainty is not None else ""
        by = f", model={self.settings['model']!r}" if "model" in self.settings else ""
        return f"Prediction({self.task.name!r}, {width}x{height} pixels, {kind}{frame}{ends}{unsure}{by})"

    def _repr_png_(self) -> bytes:
        """Image and map side by side, as notebooks show it: at most `_PREVIEW` pixels an edge each."""
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
        """The map as numpy: ``h w``, or ``h w c`` where it has several channels."""
        return self.map.permute(1, 2, 0).squeeze(-1).contiguous().numpy()

    @property
    def color(self) -> Tensor:
        """The map as a picture ``3 h w`` in [0, 1], for eyes only; vectors are shown in the frame RUB."""
        if self.frame not in (None, "RUB"):
            return self.in_frame("RUB").color
        if self.space == "linear" and self.task.channels == 3:
            return color_picture(self.map, linear=True)
        return self.task.show(self.map)

    def in_frame(self, frame: str) -> Prediction:
        """The same vectors in another frame: ``RUB``, ``LUB`` or ``RDF``; see `geometry`.

        Raises:
            ValueError: the map holds no vectors, or there is no such frame.
        """
        if self.frame is None:
            raise ValueError(f"a {self.task.name} map holds no vectors, so it has no frame")
        return replace(self, map=convert_frame(self.map, self.frame, frame), frame=frame)

    def in_space(self, space: str, scale: float | None = None, shift: float = 0.0) -> Prediction:
        """Distances in another space, in metres from then on.

        Args:
            space: ``depth`` (m), ``disparity`` (1/m), ``sqrt_disparity`` or ``log_depth``.
            scale: with ``shift``, what makes this map metric in its own space: ``scale * map + shift``. A map known
                up to scale and shift cannot be converted without them: 1 / (a d + b) depends on b / a.
            shift: see ``scale``.

        Raises:
            ValueError: the map holds no distances, the space is unknown, or scale is needed and missing.
        """
        if self.space not in SPACES or space not in SPACES:
            raise ValueError(
                f"cannot convert {self.space or self.task.name!r} to {space!r}; spaces: {', '.join(SPACES)}"
            )
        if scale is None and not self.metric:
            raise ValueError(
                f"this {self.space} is known up to scale and shift only; give the scale and shift that make it "
                "metric (geometry.fit_scale_shift finds them from known pixels)"
            )
        known = self.map if scale is None else scale * self.map + shift
        return replace(self, map=_paint(_metres(known, self.space), space), space=space, metric=True)

    def show(self) -> None:
        """Open image and map side by side in the system's picture viewer."""
        self._side_by_side([self.image, self.color]).show()

    def save(self, folder: str | Path, stem: str) -> dict[str, Path]:
        """Write ``<stem>_<task>.npy`` (exact), ``.png`` (lossless) and ``_color.png`` (for eyes) into ``folder``.

        The PNG of a one-channel map is 16-bit grey, 0 to 65535 for 0 to 1, or the ids of classes; that of vectors is
        8-bit, (n + 1) / 2; that of a picture is 8-bit. An uncertainty is ``<stem>_<task>_uncertainty.npy``.
        """
        base = Path(folder)
        base.mkdir(parents=True, exist_ok=True)
        name = f"{stem}_{self.task.name}"
        paths = {
            "npy": base / f"{name}.npy",
            "png": base / f"{name}.png",
            "color": base / f"{name}_color.png",
        }
        write_map(paths["npy"], self.map)
        if self.task.classes:
            write_map(paths["png"], self.map)
        elif self.task.channels == 1:
            write_map(paths["png"], (self.map.clamp(0, 1) * 65535).round())
        elif self.task.channels != 3:
            del paths["png"]  # heatmaps are no picture
        else:
            write_image(paths["png"], self.map if self.task.frame is None else (self.map + 1) / 2)
        write_image(paths["color"], self.color)
        if self.uncertainty is not None:
            paths["uncertainty"] = base / f"{name}_uncertainty.npy"
            write_map(paths["uncertainty"], self.uncertainty)
        return paths


class Sees(Protocol):
    """Whatever answers pictures with predictions of one task: a `Predictor`, or any network of one's own.

    A single tensor ``3 h w`` in [0, 1] gives a `Prediction`, a list of them a list.
    """

    @property
    def task(self) -> Task:
        """What it predicts."""
        ...

    @overload
    def __call__(self, images: Tensor, /) -> Prediction: ...
    @overload
    def __call__(self, images: list[Tensor], /) -> list[Prediction]: ...
    def __call__(self, images: Tensor | list[Tensor], /) -> Prediction | list[Prediction]:
        """One prediction, or a list of them for a list."""
        ...


def _metres(x: Tensor, space: str) -> Tensor:
    tiny = 1e-6  # a disparity of 0 is infinitely far; a file holds a large number instead
    match space:
        case "disparity":
            return 1 / x.clamp(min=tiny)
        case "sqrt_disparity":
            return 1 / x.clamp(min=tiny**0.5).square()
        case "log_depth":
            return x.exp()
    return x


def _paint(metres: Tensor, space: str) -> Tensor:
    metres = metres.clamp(min=1e-6)
    match space:
        case "disparity":
            return 1 / metres
        case "sqrt_disparity":
            return metres.rsqrt()
        case "log_depth":
            return torch.log(metres)
    return metres
