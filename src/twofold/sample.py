"""One picture and what is known about it. Real, rendered and synthetic pictures are the same type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from twofold.geometry import Camera


@dataclass(frozen=True)
class Unit:
    """What the numbers of a target mean: its channels, its unit, and the rest in words."""

    channels: int
    unit: str
    meaning: str
    mixes: bool = (
        True  # whether halfway between two values is a value: not so for ids and for colours that are ids
    )


# Said once, here, for files, tasks, metrics and pictures alike.
UNITS: dict[str, Unit] = {
    "depth": Unit(1, "m", "distance along the camera's z axis; +inf is the sky: known to be far, not valid"),
    "normals": Unit(3, "unit vector", "frame RUB: x right, y up, z to the viewer; zero where unknown"),
    "mask": Unit(1, "0 or 1", "1 is the foreground", mixes=False),
    "matting": Unit(1, "0 to 1", "alpha: how much of the pixel is foreground"),
    "semantic": Unit(
        1, "class id", "whole numbers; the classes are listed in the header of the folder", False
    ),
    "instance": Unit(1, "object id", "whole numbers; 0 belongs to no object", False),
    "parts": Unit(1, "part id", "whole numbers; the parts are listed in the header of the folder", False),
    "trimap": Unit(1, "0, 0.5 or 1", "surely background, unknown, surely foreground", False),
    "edge": Unit(1, "0 to 1", "how surely a boundary runs through the pixel"),
    "segmentation": Unit(3, "0 to 1", "sRGB: the colour that stands for the pixel's class", False),
    "albedo": Unit(3, "0 to 1", "sRGB: what the surface reflects of white light"),
    "shading": Unit(3, "0 to 1", "linear light on the surface: picture = albedo * shading + residual"),
    "residual": Unit(3, "0 to 1", "linear light that albedo * shading does not explain"),
    "material": Unit(3, "0 to 1", "roughness, metalness, 0"),
    # Heatmaps mix: of two sizes of one person the smaller has the narrower peaks, and -1 stays -1.
    "keypoints": Unit(
        17, "0 to 1", "likeness of each joint of COCO, 1 at its place; -1 all over where it is not labelled"
    ),
    "skeleton": Unit(3, "0 to 1", "sRGB: joints and limbs of people in fixed colours, on black"),
}


def mixes(target: str) -> bool:
    """Whether a target may be interpolated; one that the library does not know may."""
    return target not in UNITS or UNITS[target].mixes


@dataclass(frozen=True)
class Origin:
    """Where a sample comes from: a photograph, a renderer, or a generative model with its full settings.

    `parents` are ids of the samples it was made from; `generator` says how (JSON values only).
    """

    kind: Literal["real", "rendered", "synthetic"] = "real"
    parents: tuple[str, ...] = ()
    generator: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in ("real", "rendered", "synthetic"):
            raise ValueError(f"an origin is real, rendered or synthetic, not {self.kind!r}")


@dataclass(frozen=True, eq=False)
class Sample:
    """An image and its targets, or (with a leading dimension b) a batch of them.

    image    float *b 3 h w, sRGB in [0, 1]; uint8 is divided by 255
    targets  by name, *b c h w, in the unit that UNITS gives
    valid    by the same names, bool *b 1 h w: where the target may be trusted; nothing is learned or scored
             elsewhere, and the values there are 0 (or +inf for a depth known to be far)
    camera   of this picture at this size, if known

    In a batch, caption, id, camera and origin are tuples. ValueError for shapes that do not fit together.
    """

    image: Tensor
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    valid: Mapping[str, Tensor] = field(default_factory=dict)
    caption: str | tuple[str, ...] = ""
    id: str | tuple[str, ...] = ""
    camera: Camera | tuple[Camera | None, ...] | None = None
    origin: Origin | tuple[Origin, ...] = Origin("real")

    def __post_init__(self) -> None:
        if self.image.dtype == torch.uint8:
            object.__setattr__(self, "image", self.image.float() / 255)
        *batch, channels, height, width = self.image.shape
        if channels != 3 or len(batch) > 1 or not self.image.is_floating_point():
            raise ValueError(f"an image is float 3 h w or b 3 h w, not {tuple(self.image.shape)}")
        if set(self.targets) != set(self.valid):
            raise ValueError(
                f"targets {sorted(self.targets)} and valid {sorted(self.valid)} must have the same names"
            )
        for name, target in self.targets.items():
            known = UNITS[name].channels if name in UNITS else target.shape[-3]
            self._check(f"target {name}", target, (*batch, known, height, width))
            self._check(f"valid {name}", self.valid[name], (*batch, 1, height, width))
            if self.valid[name].dtype != torch.bool:
                raise ValueError(f"valid {name} of {self.id!r} is {self.valid[name].dtype}; a mask is bool")

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.image.shape))
        targets = ", ".join(self.targets) or "none"
        kind = self.origin.kind if isinstance(self.origin, Origin) else "batch"
        return f"Sample({self.id!r}, image {shape}, targets: {targets}, {kind})"

    def _check(self, name: str, x: Tensor, shape: tuple[int, ...]) -> None:
        if tuple(x.shape) != shape:
            raise ValueError(f"{name} of {self.id!r} is {tuple(x.shape)}; beside this image it is {shape}")

    def to(self, device: torch.device | str) -> Sample:
        """The same sample with its tensors on `device`."""
        return replace(
            self,
            image=self.image.to(device),
            targets={name: x.to(device) for name, x in self.targets.items()},
            valid={name: x.to(device) for name, x in self.valid.items()},
        )


def stack(samples: Sequence[Sample]) -> Sample:
    """Samples of one size as one batch (b ...).

    A target that only some of them have is zero, with `valid` False, for the others. ValueError when there
    is no sample or the sizes differ.
    """
    if not samples:
        raise ValueError("a batch needs at least one sample")
    sizes = {tuple(s.image.shape) for s in samples}
    if len(sizes) > 1:
        raise ValueError(
            f"samples of sizes {sorted(sizes)} do not stack; resize or crop them to one size first"
        )
    names = sorted({name for s in samples for name in s.targets})
    return Sample(
        image=torch.stack([s.image for s in samples]),
        targets={name: _stack_or_zero([s.targets.get(name) for s in samples]) for name in names},
        valid={name: _stack_or_zero([s.valid.get(name) for s in samples]) for name in names},
        caption=tuple(str(s.caption) for s in samples),
        id=tuple(str(s.id) for s in samples),
        camera=tuple(s.camera for s in samples),  # ty: ignore[invalid-argument-type]
        origin=tuple(s.origin for s in samples),  # ty: ignore[invalid-argument-type]
    )


def _stack_or_zero(maps: list[Tensor | None]) -> Tensor:
    """The maps stacked, with zeros (False) in place of None; at least one must be there."""
    like = next(x for x in maps if x is not None)
    return torch.stack([torch.zeros_like(like) if x is None else x for x in maps])
