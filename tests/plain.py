"""A minimal user-defined network: a few convolutions, and one more for each task."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

OUTPUTS = {"depth": 1, "normals": 3}


class Plain(nn.Module):
    """Pictures to canvases at half their size; padded to even sizes by who asks.

    Args:
        outputs: channels by task.
        norm: whether pictures shown together are normalised together.
        early: whether there is a further canvas of each task while it learns.
    """

    stride = 2

    def __init__(self, outputs: Mapping[str, int] = OUTPUTS, norm: bool = False, early: bool = False) -> None:
        super().__init__()
        layers = [nn.Conv2d(3, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 16, 5, padding=2), nn.ReLU()]
        self.first = nn.Sequential(*layers[:2], nn.BatchNorm2d(16) if norm else nn.Identity())
        self.then = nn.Sequential(*layers[2:])
        self.heads = nn.ModuleDict({name: nn.Conv2d(16, n, 1) for name, n in outputs.items()})
        self.early = nn.ModuleDict({name: nn.Conv2d(16, n, 1) for name, n in outputs.items() if early})
        self.shown: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        self.shown.append(tuple(images.shape))
        x = self.first(images - 0.5)
        output = {f"{name}/early": head(x) for name, head in self.early.items()} if self.training else {}
        x = self.then(x)
        return {name: head(x) for name, head in self.heads.items()} | output


class Tied(nn.Module):
    """Two names of the same weights, and one that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 3, 3, padding=1)
        self.other = nn.Conv2d(3, 3, 3, padding=1)
        self.other.weight = self.one.weight
        self.still = nn.Conv2d(3, 3, 1).requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"normals": self.still(self.other(torch.tanh(self.one(images))))}


def nothing() -> str:
    """Returns no network; never called."""
    raise AssertionError("called")


def narrow(norm: bool = False) -> Plain:
    """A function that makes one."""
    return Plain(norm=norm)


def liar() -> nn.Module:
    """Its annotation says that it returns a network."""
    return "nothing"  # ty: ignore[invalid-return-type]
