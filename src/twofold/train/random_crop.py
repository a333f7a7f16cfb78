"""Training crops of semantic segmentation: zoom in and out, no crop of almost one class, color distortion, padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from ..image import resize, resize_nearest
from ..sample import Sample
from ..targets import target_spec
from ..tasks import Task
from .augment import chance, colours, photometric, uniform

# Padding is mid-grey, which is 0 for an autoencoder.
GREY = 0.5
# The longer edge of an image at scale 1 is at most so many short edges of a crop (mmsegmentation's 2048 for 512).
LONGEST = 4
# Crops drawn until one has not too much of one class; then the next is taken whatever it shows.
TRIES = 10

Scale = Annotated[float, Field(gt=0)]
# Top, left, height and width, in pixels.
Box = tuple[int, int, int, int]

_DISTORTIONS: Mapping[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "photometric": photometric,
    "camera": colours,
    "none": lambda image, rng: image,
}


class RandomCrop(BaseModel):
    """How crops are drawn for semantic segmentation and multi-task training (mmsegmentation, VPD, InvPT).

    Attributes:
        scale: least and largest factor by which an image is resized, its aspect ratio kept; it is drawn uniformly.
            Where the resized image is smaller than the crop, the rest is grey at the right and at the bottom, and is
            neither trained on nor pseudo-labelled.
        relative_to: what the scale is relative to. ``crop``: at 1 the image's short edge is the crop's, its long edge
            at most 4 times that (mmsegmentation's ``img_scale=(2048, 512)``). ``image``: at 1 the image has its own
            size (InvPT, TaskPrompter).
        cat_max_ratio: a crop is drawn again, up to ten times, while one class has this share or more of its labelled
            pixels, or there is only one class. The classes are those of the recipe's first task that has classes and
            a target in the sample; without one any crop is taken. 1 takes any crop.
        distortion: of colors: ``photometric`` (`augment.photometric`), ``camera`` (that of other augmented runs,
            `augment.colours`), or ``none``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    scale: tuple[Scale, Scale] = (0.5, 2.0)
    relative_to: Literal["crop", "image"] = "crop"
    cat_max_ratio: float = Field(0.75, gt=0, le=1)
    distortion: Literal["photometric", "camera", "none"] = "photometric"

    @model_validator(mode="after")
    def _ordered(self) -> RandomCrop:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"random_crop.scale is least and largest, not {list(self.scale)}")
        return self

    def resized(self, shape: tuple[int, int], crop: tuple[int, int], scale: float) -> tuple[int, int]:
        """Height and width of an image of ``shape`` at ``scale``, for crops of height and width ``crop``."""
        if self.relative_to == "crop":
            scale *= min(min(crop) / min(shape), LONGEST * min(crop) / max(shape))
        height, width = (max(1, int(n * scale + 0.5)) for n in shape)
        return height, width


def random_crop(
    sample: Sample,
    tasks: Mapping[str, Task],
    classes: Task | None,
    size: tuple[int, int],
    options: RandomCrop,
    rng: torch.Generator,
    resample: str = "bilinear",
    mirror: bool = True,
) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]], Tensor]:
    """A random crop of one sample at ``size`` (height, width), half the time mirrored.

    Depth in metres is divided by the scale, as if the camera were nearer (InvPT): it matters to metric tasks alone.

    Args:
        sample: with any targets.
        tasks: by name, those whose targets are returned, where the sample has them.
        classes: task with class ids that ``cat_max_ratio`` is about, whose target the sample has.
        size: of the crop.
        options: how it is drawn.
        rng: that it is drawn from.
        resample: how the image is resized: ``bilinear`` (antialiased) or ``nearest``. Labels never mix.
        mirror: whether half of the crops are mirrored.

    Returns:
        The image ``3 h w`` in [0, 1]; by task, the target ``c h w`` and its mask ``1 h w``; and the mask ``1 h w`` of
        the pixels that are not padding.
    """
    scale = uniform(rng, *options.scale)
    shape = (int(sample.image.shape[-2]), int(sample.image.shape[-1]))
    whole = options.resized(shape, size, scale)
    labels = None
    if classes is not None and options.cat_max_ratio < 1:
        labels = _class_ids(sample, classes, whole)
    box = _draw(whole, size, labels, options.cat_max_ratio, rng)
    mirrored = chance(rng, 0.5) and mirror
    resized = resize_nearest if resample == "nearest" else resize
    image = _cut(resized(sample.image, whole).clamp(0, 1), box)
    image = _DISTORTIONS[options.distortion](image.flip(-1) if mirrored else image, rng)
    targets = {}
    for name, task in tasks.items():
        if task.target in sample.targets:
            target, valid = _target(sample, task, whole, box, scale)
            target, valid = (task.flip(target), valid.flip(-1)) if mirrored else (target, valid)
            targets[name] = _padded(target, size, 0), _padded(valid, size, False)
    inside = _padded(torch.ones(1, *box[2:], dtype=torch.bool), size, False)
    return _padded(image, size, GREY), targets, inside


def _class_ids(sample: Sample, task: Task, size: tuple[int, int]) -> Tensor:
    """Class ids ``h w`` at ``size``, -1 where nothing is trained on."""
    ids, valid = sample.targets[task.target], sample.valid[task.target]
    _, known = task.encode(ids[None], valid[None])
    return resize_nearest(torch.where(known[0], ids.float(), -1), size)[0]


def _draw(
    whole: tuple[int, int],
    size: tuple[int, int],
    labels: Tensor | None,
    most: float,
    rng: torch.Generator,
) -> Box:
    """A box of at most ``size`` somewhere in an image of size ``whole``."""
    height, width = (min(n, m) for n, m in zip(whole, size, strict=True))

    def drawn() -> Box:
        top = int(torch.randint(whole[0] - height + 1, (), generator=rng))
        return top, int(torch.randint(whole[1] - width + 1, (), generator=rng)), height, width

    box = drawn()
    for _ in range(TRIES if labels is not None else 0):
        assert labels is not None
        found = _cut(labels, box)
        counts = found[found >= 0].unique(return_counts=True)[1]
        if len(counts) > 1 and float(counts.max()) / float(counts.sum()) < most:
            break
        box = drawn()
    return box


def _target(
    sample: Sample, task: Task, whole: tuple[int, int], box: Box, scale: float
) -> tuple[Tensor, Tensor]:
    """A task's target in the box and where it is known, before padding."""
    spec = target_spec(task.target)
    target, valid = spec.resize(sample.targets[task.target], sample.valid[task.target], whole)
    return spec.zoom(_cut(target, box), scale), _cut(valid, box)


def _cut(x: Tensor, box: Box) -> Tensor:
    top, left, height, width = box
    return x[..., top : top + height, left : left + width]


def _padded(x: Tensor, size: tuple[int, int], value: float) -> Tensor:
    return F.pad(x, (0, size[1] - x.shape[-1], 0, size[0] - x.shape[-2]), value=value)
