"""From a sample to training inputs and targets: latents of the image and of each encoded target."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..backbones.stable_diffusion import StableDiffusion
from ..compat import genpercept_loader
from ..image import resize, resize_nearest
from ..sample import Sample
from ..targets import target_spec
from ..tasks import Task

# Canvases in [-1, 1] are kept to this many steps a unit, in two bytes; class ids as they are.
LEVELS = 32767


class BadSample(ValueError):
    """A sample that nothing can be learned from. One line: which, and why."""


class Unknown(BadSample):
    """Nothing is known of it."""


@dataclass(frozen=True)
class Part:
    """What one task has to say of a picture.

    Attributes:
        target: latent ``z h w``, and ``mask`` ``1 h w`` bool, of the cells all of whose pixels are known; None without
            a loss on latents.
        canvas: ``c H W``, and ``known`` ``1 H W`` bool; None without a loss on pixels.
    """

    target: Tensor | None = None
    mask: Tensor | None = None
    canvas: Tensor | None = None
    known: Tensor | None = None


@dataclass(frozen=True)
class Encoded:
    """A picture's latent ``z h w`` or itself, caption, parts by task; bytes ``3 H W`` where a loss looks at them."""

    image: Tensor
    caption: str
    parts: Mapping[str, Part] = field(default_factory=dict)
    picture: Tensor | None = None


@dataclass(frozen=True)
class Encoder:
    """Encodes samples one by one, so that a latent depends on its picture and on nothing beside it.

    Attributes:
        backbone: whose autoencoder is asked; None leaves pictures as they are, for networks that look at pictures.
        tasks: by name, what is to be learned.
        latent: whether targets are encoded, for a loss on latents.
        pixels: whether canvases are kept, for a loss on pixels.
        pictures: whether the picture itself is kept, for losses that look at it.
        released: height and width that images and canvases are resized to after encoding, see
            `compat.genpercept_loader`; None for samples that have their training size.
    """

    backbone: StableDiffusion | None
    tasks: Mapping[str, Task]
    latent: bool
    pixels: bool
    pictures: bool = False
    released: tuple[int, int] | None = None

    @property
    def stride(self) -> int:
        """Pixels a cell."""
        return 1 if self.backbone is None else self.backbone.stride

    def __call__(self, sample: Sample, mirrored: bool, only: Collection[str] | None = None) -> Encoded:
        """A sample whose sides are multiples of the stride, as it is or mirrored; of all tasks, or ``only`` of some."""
        image = sample.image.flip(-1) if mirrored else sample.image
        if self.released:
            image = resize_nearest(image, self.released)
        parts = {
            k: self.part(t, sample, mirrored)
            for k, t in self.tasks.items()
            if t.target in sample.targets and (only is None or k in only)
        }
        seen = (image * 255).round().clamp(0, 255).byte() if self.pictures else None
        return Encoded(self.picture(image), str(sample.caption), parts, seen)

    def part(self, task: Task, sample: Sample, mirrored: bool) -> Part:
        """What ``task`` has to say of a sample that has its target."""
        canvas, known = encode_target(task, sample)
        if mirrored:
            canvas, known = task.flip(canvas), known.flip(-1)
        if self.released:
            canvas, known = genpercept_loader.resized(task, canvas, known, self.released)
        kept = (canvas, known) if self.pixels else (None, None)
        if not self.latent:
            return Part(None, None, *kept)
        return Part(self.encode(canvas), cell_mask(known[None], self.stride)[0], *kept)

    def nothing(self, task: Task, size: tuple[int, int], known: bool | Tensor = False) -> Part:
        """A part at ``size`` pixels without a target of its own.

        ``known`` (or a mask ``1 H W``) is where a target is filled in later, by the EMA teacher.
        """
        h, w = size
        cells = (h // self.stride, w // self.stride)
        canvas = torch.zeros(3 if task.is_image else max(1, task.channels), h, w)
        where = known if isinstance(known, Tensor) else torch.full((1, h, w), known)
        kept = (canvas, where) if self.pixels else (None, None)
        if not self.latent:
            return Part(None, None, *kept)
        assert self.backbone is not None
        z = self.backbone.latent_channels
        return Part(torch.zeros(z, *cells), cell_mask(where[None], self.stride)[0], *kept)

    def picture(self, image: Tensor) -> Tensor:
        """What an example shows of an image ``3 H W`` in [0, 1]: its latent ``z h w``, or itself."""
        return image if self.backbone is None else self.encode(image * 2 - 1)

    @torch.no_grad()
    def encode(self, canvas: Tensor) -> Tensor:
        """A canvas ``3 H W`` to its latent ``z h w``, on the CPU."""
        assert self.backbone is not None
        x = canvas[None].to(self.backbone.device).contiguous(memory_format=torch.channels_last)
        return self.backbone.encode(x)[0].float().cpu().contiguous()


def encode_target(task: Task, sample: Sample) -> tuple[Tensor, Tensor]:
    """A task's canvas ``c H W`` of a sample, in steps of 1 / `LEVELS`, and where it is known.

    Raises:
        Unknown: no pixel of the target is known.
        BadSample: what is known is no value of the task.
    """
    target, valid = sample.targets[task.target][None], sample.valid[task.target][None]
    try:
        canvas, known = task.encode(target, valid)
    except ValueError as error:
        raise BadSample(f"{sample.id}: {task.target}: {error}") from error
    canvas, known = canvas[0].float(), known[0]
    seen = canvas[known.expand_as(canvas)]
    if not len(seen):
        raise Unknown(f"{sample.id}: {task.target} has no valid pixel")
    if not bool(seen.isfinite().all()):
        raise BadSample(f"{sample.id}: {task.target} is NaN or infinite where it should be valid")
    canvas = torch.where(known, canvas, canvas.nan_to_num(0.0, 0.0, 0.0))
    if not task.is_image:
        return canvas, known
    if float(seen.abs().max()) > 1.001:
        raise BadSample(f"{sample.id}: {task.target} goes beyond the range of a {task.name}")
    return (canvas.clamp(-1, 1) * LEVELS).round() / LEVELS, known


def check(sample: Sample, tasks: Iterable[Task]) -> None:
    """That each of ``tasks`` whose target a sample has can be learned from it.

    Raises:
        BadSample: one cannot.
    """
    for task in tasks:
        if task.target in sample.targets:
            encode_target(task, sample)


def cell_mask(known: Tensor, stride: int) -> Tensor:
    """``b 1 H W`` of pixels to ``b 1 h w`` of latent cells: a cell counts if every pixel of it is known."""
    return -F.max_pool2d(-known.float(), stride) > 0.5


def targets_of(tasks: Iterable[Task]) -> tuple[str, ...]:
    """What the data calls the targets of ``tasks``."""
    return tuple(dict.fromkeys(t.target for t in tasks))


def resize_and_crop(sample: Sample, size: tuple[int, int], stride: int, resample: str = "bilinear") -> Sample:
    """A sample brought to training size: never stretched, cut to multiples of ``stride``.

    With ``resample="genpercept"`` the sample keeps its own size, and `Encoder.released` resizes what is made of it.
    A labelled one is scaled to cover ``size`` (height, width), an unlabelled one so that its short edge is that of
    ``size``: photographs come in both orientations.
    """
    if resample == "genpercept":
        return genpercept_loader.prepared(sample)
    h, w = sample.image.shape[-2:]
    scale = max(size[0] / h, size[1] / w) if sample.targets else min(size) / min(h, w)
    new = (max(stride, round(h * scale)), max(stride, round(w * scale)))
    image = (
        resize_nearest(sample.image, new) if resample == "nearest" else resize(sample.image, new).clamp(0, 1)
    )
    h, w = (n // stride * stride for n in new)
    targets, valid = {}, {}
    for name, target in sample.targets.items():
        moved, known = target_spec(name).resize(target, sample.valid[name], new)
        targets[name], valid[name] = moved[..., :h, :w], known[..., :h, :w]
    return replace(sample, image=image[..., :h, :w], targets=targets, valid=valid, camera=None)
