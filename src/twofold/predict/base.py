"""BasePredictor: pictures in, predictions out. What predictors have in common, whatever it is that paints."""

from __future__ import annotations

import abc
import hashlib
import operator
from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..finite import NonFiniteError, check_finite
from ..geometry import convert_frame, unit
from ..image import ImageInput, longest_edge_size, resized_output
from ..image.bands import by_rows
from ..image.memory import as_levels, as_levels_list
from ..image.resize import OutputResize, resize_levels
from ..image.rgb import as_float
from ..image.square import resized_to_square
from ..tasks import Task
from .prediction import Prediction

# Longest edge in pixels, as a number or its digits; 0 or "native" for the image's own; None for the model's.
Size = int | str | None
# What an edge may be; beyond it no machine has the memory.
MIN_SIZE, MAX_SIZE = 8, 8192
Edge = Literal["longest", "shortest", "both"]


class BasePredictor(nn.Module, abc.ABC):
    """Something asked one dense task, that paints canvases of pictures.

    Args:
        task: what is asked.
        size: longest edge images are brought to before they are shown; 0 leaves them as they are.
        about: facts to carry in every prediction's settings.
        edge: which edge ``size`` is about; ``both`` squeezes every picture into a square, as some were trained.
        space: what a map's numbers are.
        painted_frame: that vectors are painted in.
        output_resize: how maps are brought back to the input's size, see `image.resized_output`.

    Attributes:
        ensemble: how many answers are drawn and merged when a call does not say.
        merge: how the members of an ensemble become one.
        frame: that maps of vectors leave in.
    """

    def __init__(
        self,
        task: Task,
        size: int = 0,
        about: Mapping[str, Any] | None = None,
        edge: Edge = "longest",
        space: str = "",
        painted_frame: str = "RUB",
        output_resize: OutputResize = "bilinear",
    ) -> None:
        super().__init__()
        self.task, self.size, self.about, self.edge = task, parse_size(size), dict(about or {}), edge
        self.space, self.painted_frame = space or task.space, painted_frame
        self.output_resize: OutputResize = output_resize
        self.ensemble, self.merge, self.frame = 1, task.merge, "RUB"

    def __repr__(self) -> str:
        name = f"{self.about['model']!r}, " if "model" in self.about else ""
        size = f"size={self.size}" if self.size else "native size"
        ensemble = f", ensemble={self.ensemble}" if self.ensemble > 1 else ""
        return (
            f"{type(self).__name__}({name}task={self.task.name!r}, {self._method}, {size}{ensemble}, "
            f"{describe_network(self)})"
        )

    @property
    def _method(self) -> str:
        """How a prediction is made, for people."""
        return "one step"

    @property
    def is_stochastic(self) -> bool:
        """Whether answers with other seeds are others."""
        return False

    @abc.abstractmethod
    def paint(self, images: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Canvases ``b c h w`` of images ``b 3 h w`` in [0, 1], and how far off each pixel may be, ``b 1 h w``.

        On the CPU, at the size of the images; no uncertainty where none is known.
        """

    @overload
    def __call__(
        self,
        images: ImageInput,
        size: Size = ...,
        seed: int = ...,
        ensemble: int | None = ...,
        batch: int = ...,
    ) -> Prediction: ...
    @overload
    def __call__(
        self,
        images: Sequence[ImageInput],
        size: Size = ...,
        seed: int | Sequence[int] = ...,
        ensemble: int | None = ...,
        batch: int = ...,
    ) -> list[Prediction]: ...
    def __call__(
        self,
        images: ImageInput | Sequence[ImageInput],
        size: Size = None,
        seed: int | Sequence[int] = 0,
        ensemble: int | None = None,
        batch: int = 8,
    ) -> Prediction | list[Prediction]:
        """Predict one image, or a list of images of any sizes.

        Args:
            images: a path, the bytes of a file, a PIL image, a numpy array ``h w 3`` or ``h w`` or a tensor ``3 h w``
                (uint8, or floats in [0, 1]), or a list of those; a tensor ``b 3 h w`` or an array ``b h w 3`` is a
                list.
            size: longest edge to work at, 8 to 8192 pixels; the model's own by default, 0 or ``"native"`` for the
                image's.
            seed: of whatever is random in the protocol; for a list one seed, or one an image. An image's answer does
                not depend on the others, nor on their order.
            ensemble: how many answers to draw and merge, the predictor's own number by default; with several, the
                prediction has an uncertainty. The first of them is the answer without an ensemble.
            batch: how many images of one size go through the network at once.

        Returns:
            A `Prediction`, or a list of them for a list.

        Raises:
            ImageError: an image that cannot be read, or a tensor or array of another layout, type or range.
            ValueError: an ensemble of a deterministic model, whose answers would all be the same; or no size, seed or
                batch.
            NonFiniteError: the network returned NaN or infinity for an image; ``positions`` says for which.
        """
        several = isinstance(images, Tensor | np.ndarray) and images.ndim == 4
        many = several or isinstance(images, list | tuple)
        loaded = as_levels_list(images) if many else [as_levels(images)]  # ty: ignore[invalid-argument-type]
        seeds = _seeds(seed, len(loaded))
        if batch < 1:
            raise ValueError(f"a batch of {batch} images cannot go through the network")
        count = self.ensemble if ensemble is None else self._drawn(ensemble)
        longest = self.size if size is None else parse_size(size)
        found = self._predict(loaded, longest, seeds, count, batch)
        return found if many else found[0]

    def _drawn(self, ensemble: int) -> int:
        if ensemble < 1:
            raise ValueError(f"an ensemble of {ensemble} answers has nothing to merge")
        if ensemble > 1 and not self.is_stochastic:
            raise ValueError(
                f"this model is deterministic: {ensemble} answers would be {ensemble} times the same one"
            )
        return ensemble

    def _predict(
        self, images: list[Tensor], longest: int, seeds: list[int], ensemble: int, batch: int
    ) -> list[Prediction]:
        shown = [_shown(image, longest, self.edge) for image in images]
        jobs = [(i, member_seed(seeds[i], k)) for i in range(len(images)) for k in range(ensemble)]
        # Images of one size go through together; the answer to each is its own.
        answers: dict[int, list[Tensor]] = {i: [] for i in range(len(images))}
        doubts: dict[int, Tensor | None] = {}
        for shape in dict.fromkeys(x.shape for x in shown):
            group = [job for job in jobs if shown[job[0]].shape == shape]
            for start in range(0, len(group), batch):
                part = group[start : start + batch]
                canvases, doubt = self.paint(torch.stack([shown[i] for i, _ in part]), [s for _, s in part])
                for k, (i, _) in enumerate(part):
                    answers[i].append(canvases[k])
                    doubts.setdefault(i, None if doubt is None else doubt[k])
        about = {**self.about, "size": longest}
        if ensemble > 1:
            about["ensemble"] = ensemble
        self._check_outputs(answers, doubts)
        return [
            self.finished(answers[i], image, {**about, "seed": seeds[i]}, doubts[i])
            for i, image in enumerate(images)
        ]

    def _check_outputs(
        self, canvases: Mapping[int, list[Tensor]], uncertainties: Mapping[int, Tensor | None]
    ) -> None:
        """NonFiniteError that names the images whose outputs are NaN or infinite."""
        found: dict[int, str] = {}
        for i, members in canvases.items():
            try:
                self._check_members(members, uncertainties[i])
            except NonFiniteError as error:
                found[i] = str(error)
        if found:
            first = next(iter(found))
            where = ", ".join(str(i) for i in found)
            many = f"images {where} of {len(canvases)} (counted from 0): " if len(canvases) > 1 else ""
            raise NonFiniteError(many + found[first], tuple(found))

    def _check_members(self, canvases: Sequence[Tensor], uncertainty: Tensor | None) -> None:
        for k, canvas in enumerate(canvases):
            member = f" of ensemble member {k}" if len(canvases) > 1 else ""
            check_finite(canvas, f"the network's {self.task.name} output{member}")
        if uncertainty is not None:
            check_finite(uncertainty, f"the uncertainty of the network's {self.task.name} output")

    def finished(
        self, canvases: list[Tensor], image: Tensor, about: dict[str, Any], doubt: Tensor | None = None
    ) -> Prediction:
        """The prediction of one image (``3 h w``) from the canvas ``c h w`` of each answer, ``about`` its settings.

        ``doubt`` (``1 h w``) is the uncertainty of one answer; several have their disagreement.

        Raises:
            NonFiniteError: a canvas or the uncertainty is NaN or infinite somewhere.
        """
        self._check_members(canvases, doubt)
        members = [self._map(canvas, image) for canvas in canvases]
        maps = members[0] if len(members) == 1 else torch.cat(members)  # without a copy of one
        uncertainty = None
        found = maps[0]
        if len(maps) > 1:
            merged = self.merge(maps)
            found, uncertainty = merged.map, merged.uncertainty
        elif doubt is not None:
            size = (int(image.shape[-2]), int(image.shape[-1]))
            uncertainty = interpolate(doubt[None], size, mode="bilinear", align_corners=False)[0]
        made = Prediction(self.task, found, image, about, self.space, self.task.frame, uncertainty)
        return made if self.task.frame in (None, self.frame) else made.in_frame(self.frame)

    def _decode(self, canvas: Tensor) -> Tensor:
        """Canvas ``b c h w`` to map, at its own size."""
        return self.task.decode(canvas)

    def _map(self, canvas: Tensor, image: Tensor) -> Tensor:
        """Canvas to map ``1 c h w`` at the input's size: decoded first, as the field does, vectors unit again after."""
        found = self._decode(canvas[None])
        size = (int(image.shape[-2]), int(image.shape[-1]))
        if self.task.classes:  # ids do not mix; the share of a mask does
            return interpolate(found, size, mode="nearest-exact")
        if tuple(found.shape[-2:]) != size:
            found = resized_output(found, size, self.output_resize)
        if self.task.frame is None:
            return found
        frames = self.painted_frame, self.task.frame
        own = (
            found if tuple(found.shape[-2:]) != tuple(canvas.shape[-2:]) else None
        )  # resized, so nobody else's
        return by_rows(lambda part: convert_frame(unit(part), *frames), found, out=own)


def member_seed(seed: int, member: int) -> int:
    """The seed of an ensemble's member; its first is the seed itself."""
    if member == 0:
        return seed
    digest = hashlib.sha256(f"{seed}/{member}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def parse_size(size: int | str) -> int:
    """A longest edge in pixels, 0 for the image's own.

    Args:
        size: 0 or ``native``; or a number from `MIN_SIZE` to `MAX_SIZE`, or its digits.

    Raises:
        ValueError: anything else.
    """
    if size == "native":
        return 0
    try:
        edge = int(size) if isinstance(size, str) else operator.index(size)
    except (TypeError, ValueError):
        edge = -1
    if isinstance(size, bool) or (edge != 0 and not MIN_SIZE <= edge <= MAX_SIZE):
        raise ValueError(
            f"size {size!r} is not a number of pixels from {MIN_SIZE} to {MAX_SIZE}, nor 'native' (or 0) for the "
            "image's own size"
        )
    return edge


def _seeds(seed: int | Sequence[int], count: int) -> list[int]:
    """One seed for each of ``count`` images."""
    try:
        given = [operator.index(seed)] * count  # ty: ignore[invalid-argument-type]
    except TypeError:
        try:
            given = [operator.index(s) for s in seed]  # ty: ignore[not-iterable]
        except TypeError:
            raise ValueError(f"seed {seed!r} is not a whole number, nor one for each image") from None
    if len(given) != count:
        raise ValueError(f"{len(given)} seeds for {count} images; give one, or one an image")
    return given


def describe_network(network: nn.Module) -> str:
    """In a few words: ``7.6 M parameters, float32 on cpu``."""
    parameters = list(network.parameters())
    if not parameters:
        return "no parameters"
    count = sum(p.numel() for p in parameters)
    size = f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count:,}"
    kind = str(parameters[0].dtype).removeprefix("torch.")
    return f"{size} parameters, {kind} on {parameters[0].device}"


def _shown(image: Tensor, edge: int, which: str) -> Tensor:
    """The levels of an image as the network gets them: float32 ``3 h w`` at its working size."""
    if not edge:
        return as_float(image)
    if which == "both":
        return resized_to_square(as_float(image), edge).clamp(0, 1)
    height, width = image.shape[-2:]
    longest = edge if which == "longest" else edge * max(height, width) // min(height, width)
    return resize_levels(image, longest_edge_size(height, width, longest)).clamp(0, 1)
