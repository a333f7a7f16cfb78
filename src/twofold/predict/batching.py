"""Inputs of predictors: sizes, seeds, and batches of images of one shape with cached intermediate results."""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from twofold.io import derive_seed

from ..backbones.backbone import Backbone
from ..image import longest_edge_size
from ..image.resize import resize_levels
from ..image.rgb import as_float
from ..image.square import resized_to_square

# Longest edge in pixels, as a number or its digits; 0 or "native" for the image's size; None for the model's default.
Size = int | str | None
# Limits of an edge in pixels.
MIN_SIZE, MAX_SIZE = 8, 8192
Edge = Literal["longest", "shortest", "both"]


class ImageBatch:
    """Images ``3 h w`` of one shape, with a cache that all tasks and ensemble members of a call share.

    Args:
        images: the images.
        embeddings: cache of prompt embeddings, shared by the batches of a call.

    Attributes:
        shape: height and width of the images.
    """

    def __init__(self, images: Sequence[Tensor], embeddings: dict[Hashable, Tensor] | None = None) -> None:
        self._images = list(images)
        self.shape = int(images[0].shape[-2]), int(images[0].shape[-1])
        self._embeddings = {} if embeddings is None else embeddings
        self._cache: dict[Hashable, Any] = {}

    def select(self, index: Sequence[int]) -> Tensor:
        """The images at ``index``, which may repeat: ``b 3 h w``; a view if it is one image."""
        found = [self._images[i] for i in index]
        return found[0][None] if len(found) == 1 else torch.stack(found)

    @property
    def images(self) -> Tensor:
        """All images: ``n 3 h w``."""
        return self.select(range(len(self._images)))

    def cached(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """The result of ``compute()``, which is called once for each ``key``."""
        if key not in self._cache:
            self._cache[key] = compute()
        return self._cache[key]

    def embed(self, backbone: Backbone, prompt: str, pad: bool) -> Tensor:
        """The embedding ``1 n d`` of a prompt, computed once."""
        key = id(backbone), prompt, pad
        if key not in self._embeddings:
            self._embeddings[key] = backbone.embed([prompt], pad)
        return self._embeddings[key]


def group_images(
    images: Sequence[Tensor], size: int, edge: Edge, batch: int, embeddings: dict[Hashable, Tensor]
) -> list[tuple[list[int], ImageBatch]]:
    """Resize the images and group them into batches of one shape and at most ``batch`` images: (indices, batch)."""
    resized = [resize_input(image, size, edge) for image in images]
    groups: list[tuple[list[int], ImageBatch]] = []
    for shape in dict.fromkeys(x.shape for x in resized):
        same = [i for i, x in enumerate(resized) if x.shape == shape]
        for start in range(0, len(same), batch):
            part = same[start : start + batch]
            groups.append((part, ImageBatch([resized[i] for i in part], embeddings)))
    return groups


def resize_input(levels: Tensor, size: int, edge: Edge) -> Tensor:
    """Levels of an image (see `image.rgb.read_levels`) as float32 ``3 h w`` in [0, 1], resized to ``size``.

    ``size`` is the length of ``edge`` in pixels; 0 keeps the size.
    """
    if not size:
        return as_float(levels)
    if edge == "both":
        return resized_to_square(as_float(levels), size).clamp(0, 1)
    height, width = levels.shape[-2:]
    longest = size if edge == "longest" else size * max(height, width) // min(height, width)
    return resize_levels(levels, longest_edge_size(height, width, longest)).clamp(0, 1)


def member_seed(seed: int, member: int) -> int:
    """The seed of an ensemble member; ``seed`` itself for the first."""
    if member == 0:
        return seed
    return derive_seed(seed, member)


def parse_size(size: int | str) -> int:
    """Parse a longest edge in pixels; 0 for the image's size.

    Args:
        size: 0 or ``native``; or a number from `MIN_SIZE` to `MAX_SIZE`, or its digits.

    Raises:
        ValueError: any other value.
    """
    if size == "native":
        return 0
    try:
        edge = int(size) if isinstance(size, str) else operator.index(size)
    except (TypeError, ValueError):
        edge = -1
    if isinstance(size, bool) or (edge != 0 and not MIN_SIZE <= edge <= MAX_SIZE):
        raise ValueError(
            f"size is {size!r}; expected a number of pixels from {MIN_SIZE} to {MAX_SIZE}, or 'native' (or 0) for the "
            "image's size"
        )
    return edge


def parse_seeds(seed: int | Sequence[int], count: int) -> list[int]:
    """One seed for each of ``count`` images.

    Raises:
        ValueError: ``seed`` is neither an integer nor ``count`` of them.
    """
    try:
        given = [operator.index(seed)] * count  # ty: ignore[invalid-argument-type]
    except TypeError:
        try:
            given = [operator.index(s) for s in seed]  # ty: ignore[not-iterable]
        except TypeError:
            raise ValueError(f"seed is {seed!r}; expected an integer, or one per image") from None
    if len(given) != count:
        raise ValueError(f"{len(given)} seeds for {count} images; pass one, or one per image")
    return given
