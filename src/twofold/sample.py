"""Sample: one image with its labels, real, rendered or synthetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from twofold.geometry import Camera
from twofold.targets import target_spec


@dataclass(frozen=True)
class Provenance:
    """Where a sample comes from.

    Attributes:
        kind: ``real`` (a photograph), ``rendered``, or ``synthetic`` (from a generative model).
        parents: ids of the samples it was generated from.
        generator: the generator's settings, JSON values only.
    """

    kind: Literal["real", "rendered", "synthetic"] = "real"
    parents: tuple[str, ...] = ()
    generator: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in ("real", "rendered", "synthetic"):
            raise ValueError(f"the origin of a sample is {self.kind!r}; expected real, rendered or synthetic")


@dataclass(frozen=True, eq=False)
class Sample:
    """An image and its targets, or (with a leading dimension b) a batch of them.

    image    float *b 3 h w, sRGB in [0, 1]; uint8 is divided by 255
    targets  by name, *b c h w, in the unit of `targets.TARGETS`
    valid    by the same names, bool *b 1 h w: where the target is valid; other pixels are not used in training or
             evaluation, and have the value 0 (or +inf for a depth known to be far)
    camera   camera of this image at this size, if known

    In a batch, caption, id, camera and origin are tuples. ValueError for inconsistent shapes.
    """

    image: Tensor
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    valid: Mapping[str, Tensor] = field(default_factory=dict)
    caption: str | tuple[str, ...] = ""
    id: str | tuple[str, ...] = ""
    camera: Camera | tuple[Camera | None, ...] | None = None
    origin: Provenance | tuple[Provenance, ...] = Provenance("real")

    def __post_init__(self) -> None:
        if self.image.dtype == torch.uint8:
            object.__setattr__(self, "image", self.image.float() / 255)
        *batch, channels, height, width = self.image.shape
        if channels != 3 or len(batch) > 1 or not self.image.is_floating_point():
            raise ValueError(
                f"the image is {self.image.dtype} {tuple(self.image.shape)}; expected float 3 h w or b 3 h w"
            )
        if set(self.targets) != set(self.valid):
            raise ValueError(
                f"targets {sorted(self.targets)} and valid {sorted(self.valid)} have different names"
            )
        for name, target in self.targets.items():
            known = target_spec(name).channels or target.shape[-3]
            self._check(f"target {name}", target, (*batch, known, height, width))
            self._check(f"valid {name}", self.valid[name], (*batch, 1, height, width))
            if self.valid[name].dtype != torch.bool:
                raise ValueError(f"valid {name} of {self.id!r} is {self.valid[name].dtype}; expected bool")

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.image.shape))
        targets = ", ".join(self.targets) or "none"
        kind = self.origin.kind if isinstance(self.origin, Provenance) else "batch"
        return f"Sample({self.id!r}, image {shape}, targets: {targets}, {kind})"

    def _check(self, name: str, x: Tensor, shape: tuple[int, ...]) -> None:
        if tuple(x.shape) != shape:
            raise ValueError(f"{name} of {self.id!r} is {tuple(x.shape)}; for this image expected {shape}")

    def to(self, device: torch.device | str) -> Sample:
        """The same sample with its tensors on `device`."""
        return replace(
            self,
            image=self.image.to(device),
            targets={name: x.to(device) for name, x in self.targets.items()},
            valid={name: x.to(device) for name, x in self.valid.items()},
        )


def stack(samples: Sequence[Sample]) -> Sample:
    """Stack samples of one size to a batch (b ...).

    A target that only some samples have is zero and invalid for the others. ValueError without a sample, or when the
    sizes differ.
    """
    if not samples:
        raise ValueError("a batch needs at least one sample")
    sizes = {tuple(s.image.shape) for s in samples}
    if len(sizes) > 1:
        raise ValueError(
            f"samples have the sizes {sorted(sizes)}; resize or crop them to one size to stack them"
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
    """The maps stacked, with zeros (False) in place of None; at least one is not None."""
    like = next(x for x in maps if x is not None)
    return torch.stack([torch.zeros_like(like) if x is None else x for x in maps])
