"""Inline targets: joints of people that a row holds as numbers and that are rendered to maps when read.

    "keypoints": {"points": [[x, y, v], ...17], "box": [x, y, w, h], "area": A, "ann_id": N, "image_id": N}
    "skeleton":  {"people": [[[x, y, v], ...17], ...]}

The format is that of COCO (Lin et al. 2014): x and y are in pixels, with 0 at the centre of the first; v is 0 for a
joint that is not labelled. A box is in pixels from the image's edges. A row of keypoints is one person; with a box, the
image is cropped to it as for top-down networks (Xiao et al. 2018): enlarged by `ENLARGE`, with aspect ratio 3:4. The
header's descriptor of keypoints may set the `size` of the crop ([height, width]) and `enlarge`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from twofold.data.layout import INLINE
from twofold.metrics import peaks
from twofold.metrics.pose import rescore
from twofold.targets.people import JOINTS, SIGMA, draw, heatmaps

# Targets that may be inline.
INLINE_TARGETS = ("keypoints", "skeleton")
SIZE, ENLARGE = (256, 192), 1.25
# Offset from COCO's coordinates (0 at the centre of the first pixel) to those of maps (0 at its edge).
HALF = 0.5
# Limits for untrusted manifests.
MAX_PEOPLE, MAX_PIXELS, MAX_BOX = 4096, 2048, 20_000


def is_inline(target: Mapping[str, Any]) -> bool:
    """Whether a row's target is inline: numbers instead of a path."""
    return any(key in target for key in INLINE)


@dataclass(frozen=True)
class Crop:
    """A crop of an image to a box, resized to ``size``; the box may exceed the image.

    Attributes:
        left, top, width, height: the box, in pixels from the image's left and upper edge.
        size: height and width of the result.
    """

    left: float
    top: float
    width: float
    height: float
    size: tuple[int, int] = SIZE

    @classmethod
    def around(cls, box: Sequence[float], size: tuple[int, int] = SIZE, enlarge: float = ENLARGE) -> Crop:
        """The smallest box with the aspect ratio of ``size`` around ``box`` (x, y, w, h), enlarged about its centre."""
        x, y, w, h = box
        shape = size[1] / size[0]
        width, height = enlarge * max(w, h * shape), enlarge * max(h, w / shape)
        return cls(x + (w - width) / 2, y + (h - height) / 2, width, height, size)

    def to_crop(self, points: Tensor) -> Tensor:
        """Points ``*b 2`` in the image (x, y from its edges) to points in the crop."""
        scale = points.new_tensor([self.size[1] / self.width, self.size[0] / self.height])
        return (points - points.new_tensor([self.left, self.top])) * scale

    def to_image(self, points: Tensor) -> Tensor:
        """Points ``*b 2`` in the crop to points in the image: the inverse of `to_crop`."""
        scale = points.new_tensor([self.width / self.size[1], self.height / self.size[0]])
        return points * scale + points.new_tensor([self.left, self.top])

    def apply(self, image: Tensor) -> Tensor:
        """Crop ``c h w`` to ``c *size``: bilinear, antialiased when downscaling, black outside the image."""
        down = _weights(image.shape[-2], self.top, self.height, self.size[0])
        across = _weights(image.shape[-1], self.left, self.width, self.size[1])
        return (down @ image.float() @ across.T).clamp(0, 1)


def get_crop(how: Mapping[str, Any]) -> Crop | None:
    """The crop of a target's descriptor; None for the whole image.

    Raises:
        ValueError: an invalid box, size or enlarge.
    """
    box = how.get("box")
    if box is None:
        return None
    if not _numbers(box, 4) or min(box[2:]) <= 0 or max(map(abs, box)) > MAX_BOX:
        raise ValueError(f"'box' is {box!r}; expected [x, y, width, height] with a positive size")
    size, enlarge = how.get("size", SIZE), how.get("enlarge", ENLARGE)
    whole = isinstance(size, list | tuple) and len(size) == 2 and all(type(n) is int for n in size)
    if not whole or not 1 <= min(size) <= max(size) <= MAX_PIXELS:
        raise ValueError(
            f"the 'size' of a crop is {size!r}; expected [height, width], up to {MAX_PIXELS} each"
        )
    if not _numbers([enlarge], 1) or not 0 < enlarge <= 10:
        raise ValueError(f"'enlarge' is {enlarge!r}; expected a number above 0 and up to 10")
    return Crop.around(box, (size[0], size[1]), enlarge)


def render_inline(
    image: Tensor, inline: Mapping[str, Mapping[str, Any]]
) -> tuple[Tensor, bool, dict[str, tuple[Tensor, Tensor]]]:
    """Render the inline targets of an image ``3 h w``, and crop it to the box that one of them may have.

    Args:
        image: the whole image.
        inline: the targets' descriptors, by name.

    Returns:
        The image, whether it was cropped, and each target's map with its mask.

    Raises:
        ValueError: an invalid target.
    """
    crop = next((c for c in map(get_crop, inline.values()) if c is not None), None)
    image = image if crop is None else crop.apply(image)
    size = (int(image.shape[-2]), int(image.shape[-1]))
    return image, crop is not None, {name: read_points(how, size, crop) for name, how in inline.items()}


def check_joints(how: Mapping[str, Any]) -> Tensor:
    """The joints of an inline target: ``17 3`` of ``points``, ``n 17 3`` of ``people``; x, y and v, float64.

    Raises:
        ValueError: invalid joints, or an invalid box.
    """
    get_crop(how)
    if "people" not in how:
        return _joints(how.get("points"), "'points'")
    people = how["people"]
    if not isinstance(people, list) or len(people) > MAX_PEOPLE:
        raise ValueError(f"'people' must be a list of at most {MAX_PEOPLE} persons")
    nobody = torch.zeros(0, len(JOINTS), 3, dtype=torch.float64)
    return torch.stack([_joints(p, "each of 'people'") for p in people]) if people else nobody


def read_points(
    how: Mapping[str, Any], size: tuple[int, int], crop: Crop | None = None
) -> tuple[Tensor, Tensor]:
    """The map of an inline target, and its mask, which is True everywhere.

    Args:
        how: the target's descriptor, updated with the row's entries.
        size: height and width of the (cropped) image.
        crop: the crop of the image, if any.

    Returns:
        For ``points``, heatmaps ``17 h w`` (`targets.TARGETS`); for ``people``, their skeletons ``3 h w``. A joint more
        than three standard deviations outside the image counts as not labelled.

    Raises:
        ValueError: invalid joints.
    """
    found, everywhere = check_joints(how), torch.ones(1, *size, dtype=torch.bool)
    if "people" in how:
        return draw(_to_pixels(found, crop), found[..., 2] > 0, size), everywhere
    places, sigma = _to_pixels(found, crop), SIGMA * max(size) / max(SIZE)
    edges = places.new_tensor([size[1], size[0]])
    near = ((places > -3 * sigma) & (places < edges + 3 * sigma)).all(-1)
    return heatmaps(places.float(), (found[:, 2] > 0) & near, size, sigma), everywhere


def coco_result(found: Tensor, how: Mapping[str, Any], box_score: float = 1.0) -> dict[str, Any]:
    """Convert heatmaps of one person to an entry of COCO's results format.

    Args:
        found: predicted heatmaps ``17 h w`` at the size of the image that `Folder` returned.
        how: the target's descriptor (`Folder.descriptor`), with ``image_id``, and ``box`` if there is one.
        box_score: detection score of the box; 1 for ground-truth boxes.

    Returns:
        ``image_id``, ``category_id`` 1, 51 ``keypoints`` in pixels of the image, and ``score``: the box score times the
        mean of the peak heights above 0.2 (`metrics.pose.rescore`).
    """
    crop = get_crop({**how, "size": list(found.shape[-2:])})
    places = peaks(found).double()
    at, height = places[:, :2], places[:, 2:]
    if crop is not None:
        at = crop.to_image(at)
    flat = torch.cat([at - HALF, height], 1).flatten().tolist()
    return {
        "image_id": how["image_id"],
        "category_id": 1,
        "keypoints": flat,
        "score": rescore(box_score, height),
    }


def _to_pixels(found: Tensor, crop: Crop | None) -> Tensor:
    places = found[..., :2] + HALF
    return places if crop is None else crop.to_crop(places)


def _joints(points: Any, what: str) -> Tensor:
    if not isinstance(points, list) or len(points) != len(JOINTS) or not all(_numbers(p, 3) for p in points):
        raise ValueError(f"{what} must have {len(JOINTS)} entries [x, y, v]")
    return torch.tensor(points, dtype=torch.float64)


def _numbers(values: Any, count: int) -> bool:
    """Whether ``values`` are ``count`` finite numbers."""
    if not isinstance(values, list | tuple) or len(values) != count:
        return False
    return all(isinstance(v, int | float) and abs(v) < 1e9 for v in values)


def _weights(edge: int, start: float, length: float, count: int) -> Tensor:
    """Interpolation matrix ``count edge`` from an axis of ``edge`` pixels to ``count`` pixels over ``length``.

    A triangle filter as wide as the larger pixel of the two grids; pixels outside the axis count as 0.
    """
    step = length / count
    at = start + (torch.arange(count, dtype=torch.float64) + 0.5) * step
    reach = max(step, 1.0)
    beyond = math.ceil(reach) + 1
    first, last = math.floor(start) - beyond, math.ceil(start + length) + beyond
    pixels = torch.arange(first, last, dtype=torch.float64) + 0.5
    share = (1 - (pixels - at[:, None]).abs() / reach).clamp(min=0)
    share = share / share.sum(1, keepdim=True)
    inside = torch.zeros(count, edge, dtype=torch.float64)
    low, high = min(max(first, 0), edge), min(max(last, 0), edge)
    inside[:, low:high] = share[:, low - first : high - first]
    return inside.float()
