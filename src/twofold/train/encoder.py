"""From a sample to training inputs and targets: latents of the image and of each encoded target."""

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

# Canvases in [-1, 1] are kept to this many steps a unit, in two bytes; class ids as they are.
LEVELS = 32767
# Pixels that the autoencoder encodes at once: enough for small images to be fast, no more memory than two of 480 x 640.
BATCH_PIXELS = 1 << 18


class BadSample(ValueError):
    """A sample that nothing can be learned from. One line: which, and why."""


class Unknown(BadSample):
    """Nothing is known of it."""


@dataclass(frozen=True)
class Part:
    """The target of one task for an image.

    Attributes:
        target: latent ``z h w``; None before it is encoded, and without a loss on latents.
        mask: ``1 h w`` bool, the cells all of whose pixels are known; None without a loss on latents.
        canvas: the encoded target ``c H W``, and ``known`` ``1 H W`` bool, where it is valid; None without a loss on
            pixels, once the target is there.
    """

    target: Tensor | None = None
    mask: Tensor | None = None
    canvas: Tensor | None = None
    known: Tensor | None = None


@dataclass(frozen=True)
class Encoded:
    """A sample as the network gets it.

    Attributes:
        image: latent ``z h w``; before it is encoded, and for networks without an autoencoder, the image ``3 H W`` in
            [0, 1].
        caption: of the image.
        parts: by task.
        picture: the image as bytes ``3 H W``, where a loss or an image encoder reads it.
    """

    image: Tensor
    caption: str
    parts: Mapping[str, Part] = field(default_factory=dict)
    picture: Tensor | None = None


@dataclass(frozen=True)
class Encoder:
    """Makes training inputs and targets of samples, in two halves.

    `prepare` reads nothing but the sample, so it can run in another process; `encode` runs the autoencoder, on many at
    once.

    Attributes:
        backbone: whose autoencoder encodes; None leaves images as they are, for networks without one.
        tasks: by name, what is trained.
        latent: whether targets are encoded, for a loss on latents.
        pixels: whether encoded targets are kept as maps, for a loss on pixels.
        pictures: whether the image itself is kept, for losses and image encoders that read it.
        released: height and width that images and targets are resized to afterwards, see
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

    def prepare(self, sample: Sample, mirrored: bool, only: Collection[str] | None = None) -> Encoded:
        """A sample whose sides are multiples of the stride, as it is or mirrored, not encoded yet.

        Of all tasks, or ``only`` of some.

        Raises:
            BadSample: a target has no valid pixel, or values that its task does not have.
        """
        image = sample.image.flip(-1) if mirrored else sample.image
        if self.released:
            image = resize_nearest(image, self.released)
        parts = {
            k: self.part(t, sample, mirrored)
            for k, t in self.tasks.items()
            if t.target in sample.targets and (only is None or k in only)
        }
        picture = (image * 255).round().clamp(0, 255).byte() if self.pictures else None
        return Encoded(image, str(sample.caption), parts, picture)

    def part(self, task: Task, sample: Sample, mirrored: bool = False) -> Part:
        """The target of ``task`` for a sample that has it, not encoded yet."""
        canvas, known = encode_target(task, sample)
        if mirrored:
            canvas, known = task.flip(canvas), known.flip(-1)
        if self.released:
            canvas, known = genpercept_loader.resized(task, canvas, known, self.released)
        mask = cell_mask(known[None], self.stride)[0] if self.latent else None
        return Part(None, mask, canvas, known)

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

    def encode(self, prepared: Sequence[Encoded]) -> list[Encoded]:
        """What `prepare` made, with latents of the images and, for a loss on latents, of the targets."""
        if self.backbone is None:
            return list(prepared)
        canvases: list[Tensor] = []
        for one in prepared:
            canvases.append(one.image * 2 - 1)
            canvases += [p.canvas for p in one.parts.values() if p.canvas is not None and self._lacks(p)]
        latents = iter(encode_canvases(self.backbone, canvases))
        found = []
        for one in prepared:
            image = next(latents)
            parts = {
                k: replace(part, target=next(latents)) if self._lacks(part) else part
                for k, part in one.parts.items()
            }
            if not self.pixels:
                parts = {k: Part(part.target, part.mask) for k, part in parts.items()}
            found.append(replace(one, image=image, parts=parts))
        return found

    def _lacks(self, part: Part) -> bool:
        """Whether a part's target is still to be encoded."""
        return self.latent and part.target is None


@torch.no_grad()
def encode_canvases(backbone: StableDiffusion, canvases: Sequence[Tensor]) -> list[Tensor]:
    """The latents ``z h w``, on the CPU, of images and encoded targets ``3 H W`` in [-1, 1].

    Those of one shape go through the autoencoder in batches of one size, the last one filled up with zeros: libraries
    choose the order of their sums by the shape of a batch, and a latent must depend on nothing but its canvas. Which
    ones are encoded together, in how many processes, and what a killed run had encoded before, changes no bit.
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
    """Canvases of a batch: 2 to 16, of about `BATCH_PIXELS` together."""
    return max(2, min(16, BATCH_PIXELS // (height * width)))


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
