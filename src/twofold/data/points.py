"""Joints of people that a row holds as numbers: rendered as maps when they are read.

    "keypoints": {"points": [[x, y, v], ...17], "box": [x, y, w, h], "area": A, "ann_id": N, "image_id": N}
    "skeleton":  {"people": [[[x, y, v], ...17], ...]}

As COCO (Lin et al. 2014) has them: x and y are numbers of pixels, the first one's centre is 0; v is 0 for a joint that
is not labelled. A box is measured from the image's edges. A row of keypoints is one person; where it has a box, the
image is cut to it, as top-down networks want it (Xiao et al. 2018): enlarged by `ENLARGE`, brought to 3:4. The
header's descriptor of keypoints may have the `size` of the crop ([height, width]), and `enlarge`.
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

# Targets that may be rendered from such numbers.
INLINE_TARGETS = ("keypoints", "skeleton")
SIZE, ENLARGE = (256, 192), 1.25
# From the edge of a pixel, where maps are measured from, to its centre, where COCO's numbers are.
HALF = 0.5
# More people than an image has, larger cuts and boxes than there are: a manifest may come from anyone.
MAX_PEOPLE, MAX_PIXELS, MAX_BOX = 4096, 2048, 20_000


def is_inline(target: Mapping[str, Any]) -> bool:
    """Whether a row's target holds its numbers itself, and no path."""
    return any(key in target for key in INLINE)


@dataclass(frozen=True)
class Crop:
    """A box of an image, brought to another size; it may reach over the image's edges.

    Attributes:
        left, top, width, height: of the box, in pixels from the image's left and upper edge.
        size: height and width of what is cut out.
    """

    left: float
    top: float
    width: float
    height: float
    size: tuple[int, int] = SIZE

    @classmethod
    def around(cls, box: Sequence[float], size: tuple[int, int] = SIZE, enlarge: float = ENLARGE) -> Crop:
        """The smallest box of ``size``'s shape around ``box`` (x, y, w, h), enlarged around its middle."""
        x, y, w, h = box
        shape = size[1] / size[0]
        width, height = enlarge * max(w, h * shape), enlarge * max(h, w / shape)
        return cls(x + (w - width) / 2, y + (h - height) / 2, width, height, size)

    def to_crop(self, points: Tensor) -> Tensor:
        """Places ``*b 2`` in the image (x, y from its edges) as places in what is cut out of it."""
        scale = points.new_tensor([self.size[1] / self.width, self.size[0] / self.height])
        return (points - points.new_tensor([self.left, self.top])) * scale

    def to_image(self, points: Tensor) -> Tensor:
        """Places ``*b 2`` in what was cut out as places in the image: the inverse of `into`."""
        scale = points.new_tensor([self.width / self.size[1], self.height / self.size[0]])
        return points * scale + points.new_tensor([self.left, self.top])

    def apply(self, image: Tensor) -> Tensor:
        """``c h w`` to ``c *size``: bilinear, antialiased when it shrinks, black beyond the image."""
        down = _weights(image.shape[-2], self.top, self.height, self.size[0])
        across = _weights(image.shape[-1], self.left, self.width, self.size[1])
        return (down @ image.float() @ across.T).clamp(0, 1)


def get_crop(how: Mapping[str, Any]) -> Crop | None:
    """What the image is cut to for a target, by its descriptor; None for the whole of it.

    Raises:
        ValueError: a box or a size that is none.
    """
    box = how.get("box")
    if box is None:
        return None
    if not _numbers(box, 4) or min(box[2:]) <= 0 or max(map(abs, box)) > MAX_BOX:
        raise ValueError(f"a 'box' is [x, y, width, height] of something, not {box!r}")
    size, enlarge = how.get("size", SIZE), how.get("enlarge", ENLARGE)
    whole = isinstance(size, list | tuple) and len(size) == 2 and all(type(n) is int for n in size)
    if not whole or not 1 <= min(size) <= max(size) <= MAX_PIXELS:
        raise ValueError(f"the 'size' of a cut is [height, width], up to {MAX_PIXELS} each, not {size!r}")
    if not _numbers([enlarge], 1) or not 0 < enlarge <= 10:
        raise ValueError(f"'enlarge' is a number above 0 and up to 10, not {enlarge!r}")
    return Crop.around(box, (size[0], size[1]), enlarge)


def render_inline(
    image: Tensor, inline: Mapping[str, Mapping[str, Any]]
) -> tuple[Tensor, bool, dict[str, tuple[Tensor, Tensor]]]:
    """The inline targets of an image ``3 h w``, by name, and the image cut to the box that one of them has.

    Args:
        image: the whole image.
        inline: the targets' descriptors.

    Returns:
        The image, whether it was cut, and each target's map with its mask.

    Raises:
        ValueError: a target does not hold what it should.
    """
    crop = next((c for c in map(get_crop, inline.values()) if c is not None), None)
    image = image if crop is None else crop.apply(image)
    size = (int(image.shape[-2]), int(image.shape[-1]))
    return image, crop is not None, {name: read_points(how, size, crop) for name, how in inline.items()}


def check_joints(how: Mapping[str, Any]) -> Tensor:
    """The joints of an inline target: ``17 3`` of ``points``, ``n 17 3`` of ``people``; x, y and v, float64.

    Raises:
        ValueError: the numbers are no joints, or its box is none.
    """
    get_crop(how)
    if "people" not in how:
        return _joints(how.get("points"), "'points'")
    people = how["people"]
    if not isinstance(people, list) or len(people) > MAX_PEOPLE:
        raise ValueError(f"'people' is a list of at most {MAX_PEOPLE} persons")
    nobody = torch.zeros(0, len(JOINTS), 3, dtype=torch.float64)
    return torch.stack([_joints(p, "each of 'people'") for p in people]) if people else nobody


def read_points(
    how: Mapping[str, Any], size: tuple[int, int], crop: Crop | None = None
) -> tuple[Tensor, Tensor]:
    """The map of an inline target, and its mask, which holds everywhere.

    Args:
        how: the target's descriptor with the row's own entries over it.
        size: height and width of the image, cut or not.
        crop: what the image was cut to.

    Returns:
        Of ``points``, heatmaps ``17 h w`` (`targets.TARGETS`); of ``people``, their skeletons ``3 h w``. A joint whose
        whole peak is outside of the image is taken as not labelled.

    Raises:
        ValueError: the numbers are no joints.
    """
    found, everywhere = check_joints(how), torch.ones(1, *size, dtype=torch.bool)
    if "people" in how:
        return draw(_to_pixels(found, crop), found[..., 2] > 0, size), everywhere
    places, sigma = _to_pixels(found, crop), SIGMA * max(size) / max(SIZE)
    edges = places.new_tensor([size[1], size[0]])
    near = ((places > -3 * sigma) & (places < edges + 3 * sigma)).all(-1)
    return heatmaps(places.float(), (found[:, 2] > 0) & near, size, sigma), everywhere


def coco_result(found: Tensor, how: Mapping[str, Any], box_score: float = 1.0) -> dict[str, Any]:
    """Heatmaps of one person as a line of COCO's results, to be scored by object keypoint similarity.

    Args:
        found: ``17 h w``, what was predicted for the image that `Folder` gave, at its size.
        how: the target's descriptor (`Folder.descriptor`), with ``image_id``, and ``box`` where there is one.
        box_score: how sure it is that there is a person; 1 for boxes that are true.

    Returns:
        ``image_id``, ``category_id`` 1, 51 ``keypoints`` in pixels of the image, and the ``score``: that of the box
        times the mean height of the surer peaks (`metrics.pose.rescore`).
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
        raise ValueError(f"{what} is {len(JOINTS)} times [x, y, v]")
    return torch.tensor(points, dtype=torch.float64)


def _numbers(values: Any, count: int) -> bool:
    """Whether these are so many finite numbers."""
    if not isinstance(values, list | tuple) or len(values) != count:
        return False
    return all(isinstance(v, int | float) and abs(v) < 1e9 for v in values)


def _weights(edge: int, start: float, length: float, count: int) -> Tensor:
    """``count edge``: what each of ``count`` pixels, cut from ``start`` on, takes of an axis of ``edge`` pixels.

    A triangle as wide as a pixel of the larger of the two grids; what it takes beyond the axis is 0.
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
