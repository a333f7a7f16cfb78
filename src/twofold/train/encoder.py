"""Encoding of samples to training inputs and targets: latents of the image and of each encoded target."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
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

# Encoded targets in [-1, 1] are quantised to multiples of 1 / LEVELS and stored in two bytes; class ids are not.
LEVELS = 32767
# Pixels of a batch of the autoencoder: fast for small images, and at most the memory of two images of 480 x 640.
BATCH_PIXELS = 1 << 18


class BadSample(ValueError):
    """A sample that cannot be used in training. The message is one line: the sample and the reason."""


class NoValidPixels(BadSample):
    """A target has no valid pixel."""


@dataclass(frozen=True)
class EncodedTarget:
    """The target of one task for an image.

    Attributes:
        target: latent ``z h w``; None before it is encoded, and without a loss on latents.
        mask: ``1 h w`` bool, the cells all of whose pixels are valid; None without a loss on latents.
        canvas: the encoded target ``c H W``, and ``known`` ``1 H W`` bool, where it is valid; None without a loss on
            pixels, once the target is there.
    """

    target: Tensor | None = None
    mask: Tensor | None = None
    canvas: Tensor | None = None
    known: Tensor | None = None


@dataclass(frozen=True)
class Encoded:
    """The training input of a sample.

    Attributes:
        image: latent ``z h w``; before it is encoded, and for networks without an autoencoder, the image ``3 H W`` in
            [0, 1].
        caption: of the image.
        targets: by task.
        image_uint8: the image as bytes ``3 H W``, where a loss or an image encoder reads it.
    """

    image: Tensor
    caption: str
    targets: Mapping[str, EncodedTarget] = field(default_factory=dict)
    image_uint8: Tensor | None = None


@dataclass(frozen=True)
class Encoder:
    """Makes training inputs and targets of samples, in two halves.

    `prepare` reads nothing but the sample, so it can run in another process; `encode` runs the autoencoder, on many at
    once.

    Attributes:
        backbone: whose autoencoder encodes; None leaves images as they are, for networks without one.
        tasks: that are trained, by name.
        latent: whether targets are encoded, for a loss on latents.
        pixels: whether encoded targets are kept as maps, for a loss on pixels.
        keep_image: whether the image itself is returned, for losses and image encoders that read it.
        released: height and width that images and targets are resized to afterwards, see
            `compat.genpercept_loader`; None for samples that have their training size.
    """

    backbone: StableDiffusion | None
    tasks: Mapping[str, Task]
    latent: bool
    pixels: bool
    keep_image: bool = False
    released: tuple[int, int] | None = None

    @property
    def stride(self) -> int:
        """Pixels per latent cell, along each axis."""
        return 1 if self.backbone is None else self.backbone.stride

    def prepare(self, sample: Sample, mirrored: bool, only: Collection[str] | None = None) -> Encoded:
        """The training input of a sample, before the autoencoder.

        Args:
            sample: whose height and width are multiples of the stride.
            mirrored: flip image and targets.
            only: names of tasks to include; None is all.

        Raises:
            BadSample: a target has no valid pixel, or values outside of its task's range.
        """
        image = sample.image.flip(-1) if mirrored else sample.image
        if self.released:
            image = resize_nearest(image, self.released)
        targets = {
            k: self.encoded_target(t, sample, mirrored)
            for k, t in self.tasks.items()
            if t.target in sample.targets and (only is None or k in only)
        }
        image_uint8 = (image * 255).round().clamp(0, 255).byte() if self.keep_image else None
        return Encoded(image, str(sample.caption), targets, image_uint8)

    def encoded_target(self, task: Task, sample: Sample, mirrored: bool = False) -> EncodedTarget:
        """The target of ``task`` for a sample that has it, not encoded yet."""
        canvas, known = encode_target(task, sample)
        if mirrored:
            canvas, known = task.flip(canvas), known.flip(-1)
        if self.released:
            canvas, known = genpercept_loader.resized(task, canvas, known, self.released)
        mask = cell_mask(known[None], self.stride)[0] if self.latent else None
        return EncodedTarget(None, mask, canvas, known)

    def empty_target(self, task: Task, size: tuple[int, int], known: bool | Tensor = False) -> EncodedTarget:
        """An empty target of ``size`` (height, width) pixels.

        ``known``, a bool or a mask ``1 H W``, marks the pixels that get a pseudo-label of the EMA teacher later.
        """
        h, w = size
        cells = (h // self.stride, w // self.stride)
        canvas = torch.zeros(3 if task.is_image else max(1, task.channels), h, w)
        where = known if isinstance(known, Tensor) else torch.full((1, h, w), known)
        kept = (canvas, where) if self.pixels else (None, None)
        if not self.latent:
            return EncodedTarget(None, None, *kept)
        assert self.backbone is not None
        z = self.backbone.latent_channels
        return EncodedTarget(torch.zeros(z, *cells), cell_mask(where[None], self.stride)[0], *kept)

    def encode(self, prepared: Sequence[Encoded]) -> list[Encoded]:
        """The results of `prepare` with latents of the images and, for a loss on latents, of the targets."""
        if self.backbone is None:
            return list(prepared)
        canvases: list[Tensor] = []
        for one in prepared:
            canvases.append(one.image * 2 - 1)
            canvases += [p.canvas for p in one.targets.values() if p.canvas is not None and self._lacks(p)]
        latents = iter(encode_canvases(self.backbone, canvases))
        found = []
        for one in prepared:
            image = next(latents)
            targets = {
                k: replace(target, target=next(latents)) if self._lacks(target) else target
                for k, target in one.targets.items()
            }
            if not self.pixels:
                targets = {k: EncodedTarget(target.target, target.mask) for k, target in targets.items()}
            found.append(replace(one, image=image, targets=targets))
        return found

    def _lacks(self, target: EncodedTarget) -> bool:
        """Whether the latent of a target is missing."""
        return self.latent and target.target is None


@torch.no_grad()
def encode_canvases(backbone: StableDiffusion, canvases: Sequence[Tensor]) -> list[Tensor]:
    """The latents ``z h w``, on the CPU, of images and encoded targets ``3 H W`` in [-1, 1].

    Inputs of one shape are encoded in batches of a fixed size, the last one padded with zeros: libraries choose the
    order of summation by the batch's shape, and a latent must depend on its input only. So the composition of batches,
    the number of processes and an earlier killed run do not change a bit.
    """
    by_shape: dict[torch.Size, list[int]] = {}
    for place, canvas in enumerate(canvases):
        by_shape.setdefault(canvas.shape, []).append(place)
    found: dict[int, Tensor] = {}
    for shape, places in by_shape.items():
        size = batch_size(shape[-2], shape[-1])
        for start in range(0, len(places), size):
            chosen = places[start : start + size]
            batch = torch.zeros(size, *shape)
            for row, place in zip(batch, chosen, strict=False):
                row.copy_(canvases[place])
            batch = batch.to(backbone.device).contiguous(memory_format=torch.channels_last)
            latents = backbone.encode(batch).float().cpu()
            for place, latent in zip(chosen, latents, strict=False):
                found[place] = latent.clone(memory_format=torch.contiguous_format)
    return [found[place] for place in range(len(canvases))]


def batch_size(height: int, width: int) -> int:
    """The number of images in a batch: 2 to 16, with about `BATCH_PIXELS` pixels in total."""
    return max(2, min(16, BATCH_PIXELS // (height * width)))


def encode_target(task: Task, sample: Sample) -> tuple[Tensor, Tensor]:
    """A task's encoded target ``c H W`` of a sample, in multiples of 1 / `LEVELS`, and its valid pixels ``1 H W``.

    Raises:
        NoValidPixels: no pixel of the target is valid.
        BadSample: a valid pixel has a value outside of the task's range.
    """
    target, valid = sample.targets[task.target][None], sample.valid[task.target][None]
    try:
        canvas, known = task.encode(target, valid)
    except ValueError as error:
        raise BadSample(f"{sample.id}: {task.target}: {error}") from error
    canvas, known = canvas[0].float(), known[0]
    values = canvas[known.expand_as(canvas)]
    if not len(values):
        raise NoValidPixels(f"{sample.id}: {task.target} has no valid pixel")
    if not bool(values.isfinite().all()):
        raise BadSample(f"{sample.id}: {task.target} is NaN or infinite where it should be valid")
    canvas = torch.where(known, canvas, canvas.nan_to_num(0.0, 0.0, 0.0))
    if not task.is_image:
        return canvas, known
    if float(values.abs().max()) > 1.001:
        raise BadSample(f"{sample.id}: {task.target} exceeds the range of {task.name}")
    return (canvas.clamp(-1, 1) * LEVELS).round() / LEVELS, known


def check(sample: Sample, tasks: Iterable[Task]) -> None:
    """Check the targets of ``tasks`` that a sample has.

    Raises:
        BadSample: a target has no valid pixel, or values outside of its task's range.
    """
    for task in tasks:
        if task.target in sample.targets:
            encode_target(task, sample)


def cell_mask(known: Tensor, stride: int) -> Tensor:
    """A mask of pixels ``b 1 H W`` to one of latent cells ``b 1 h w``: a cell is valid if all of its pixels are."""
    return -F.max_pool2d(-known.float(), stride) > 0.5


def targets_of(tasks: Iterable[Task]) -> tuple[str, ...]:
    """The names of the targets of ``tasks``, without duplicates."""
    return tuple(dict.fromkeys(t.target for t in tasks))


def resize_and_crop(sample: Sample, size: tuple[int, int], stride: int, resample: str = "bilinear") -> Sample:
    """A sample resized to training size with its aspect ratio, and cropped to multiples of ``stride``.

    A labelled sample is scaled to cover ``size`` (height, width), an unlabelled one so that its short edge is that of
    ``size``: photographs have both orientations. With ``resample="genpercept"`` the sample keeps its own size, and
    `Encoder.released` is the size to which the results are resized.
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
