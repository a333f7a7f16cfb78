"""Training crops of semantic segmentation: random scale, a limit on the share of one class, colors, padding."""

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

# Padding is mid-grey, which is 0 in the autoencoder's range [-1, 1].
GREY = 0.5
# The longer edge of an image at scale 1 is at most so many short edges of a crop (mmsegmentation's 2048 for 512).
LONGEST = 4
# Crops that are redrawn because of too much of one class; then the next is used in any case.
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
    """Random crops for semantic segmentation and multi-task training (mmsegmentation, VPD, InvPT).

    Attributes:
        scale: smallest and largest factor by which an image is resized, drawn uniformly; the aspect ratio stays. If the
            resized image is smaller than the crop, the crop is padded with grey at the right and at the bottom, where
            nothing is trained or pseudo-labelled.
        relative_to: what the scale is relative to. ``crop``: at 1 the image's short edge is that of the crop, its long
            edge at most 4 times that (mmsegmentation's ``img_scale=(2048, 512)``). ``image``: at 1 the image has its
            own size (InvPT, TaskPrompter).
        cat_max_ratio: a crop is drawn again, up to ten times, while one class has this share or more of its labelled
            pixels, or there is only one class. The classes are those of the recipe's first task that has classes and
            a target in the sample; without one, or with 1, any crop is used.
        distortion: of colors: ``photometric`` (`augment.photometric`), ``camera`` (`augment.colours`, as in other
            augmented runs), or ``none``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    scale: tuple[Scale, Scale] = (0.5, 2.0)
    relative_to: Literal["crop", "image"] = "crop"
    cat_max_ratio: float = Field(0.75, gt=0, le=1)
    distortion: Literal["photometric", "camera", "none"] = "photometric"

    @model_validator(mode="after")
    def _ordered(self) -> RandomCrop:
        if self.scale[0] > self.scale[1]:
            raise ValueError(
                f"random_crop.scale={list(self.scale)}: the first number must not exceed the second"
            )
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
    """A random crop of one sample, mirrored with probability 1/2.

    Depth in metres is divided by the scale, as if the camera were nearer (InvPT), which affects metric tasks only.

    Args:
        sample: with any targets.
        tasks: by name, those whose targets are returned if the sample has them.
        classes: the task with class ids that ``cat_max_ratio`` applies to; the sample has its target.
        size: height and width of the crop, pixels.
        options: of the crop.
        rng: source of all randomness.
        resample: of the image: ``bilinear`` (antialiased) or ``nearest``.
        mirror: False never mirrors.

    Returns:
        The image ``3 h w`` in [0, 1]; by task, the target ``c h w`` and its valid pixels ``1 h w``; and the mask
        ``1 h w`` of the pixels that are not padding.
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
    """Class ids ``h w`` at ``size``, -1 at invalid pixels."""
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
    """A random box of at most ``size`` in an image of size ``whole``; the share of a class is less than ``most``."""
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
    """A task's target and its valid pixels in the box, before padding."""
    spec = target_spec(task.target)
    target, valid = spec.resize(sample.targets[task.target], sample.valid[task.target], whole)
    return spec.zoom(_cut(target, box), scale), _cut(valid, box)


def _cut(x: Tensor, box: Box) -> Tensor:
    top, left, height, width = box
    return x[..., top : top + height, left : left + width]


def _padded(x: Tensor, size: tuple[int, int], value: float) -> Tensor:
    return F.pad(x, (0, size[1] - x.shape[-1], 0, size[0] - x.shape[-2]), value=value)
