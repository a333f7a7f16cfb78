"""BasePredictor: the part of prediction that does not depend on the network (sizes, batches, ensembles, maps)."""

from __future__ import annotations

import abc
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self, overload

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..geometry import convert_frame, unit
from ..image import ImageInput, resized_output
from ..image.bands import by_rows
from ..image.memory import as_levels, as_levels_list
from ..tasks import Task
from .batching import Edge, ImageBatch, Size, group_images, member_seed, parse_seeds, parse_size
from .config import DEFAULT_CONFIG, OutputConfig, decode_unbounded
from .finite import check_outputs
from .prediction import Prediction


class BasePredictor(nn.Module, abc.ABC):
    """Predicts one dense task.

    Args:
        task: the task that is predicted.
        size: longest edge in pixels that images are resized to; 0 keeps their size.
        metadata: entries of every prediction's settings.
        edge: the edge that ``size`` refers to; ``both`` resizes every image to a square, as some networks were trained.
        config: conditioning and output settings of the network.

    Attributes:
        ensemble: default number of predictions that are merged.
        merge: function that merges the members of an ensemble.
        frame: frame of the vectors of a map.
    """

    def __init__(
        self,
        task: Task,
        size: int = 0,
        metadata: Mapping[str, Any] | None = None,
        edge: Edge = "longest",
        config: OutputConfig = DEFAULT_CONFIG,
    ) -> None:
        super().__init__()
        self.task, self.size, self.metadata, self.edge = task, parse_size(size), dict(metadata or {}), edge
        self.config = config
        self.space, self.output_frame = config.space or task.space, config.frame or "RUB"
        self.ensemble, self.merge, self.frame = 1, task.merge, "RUB"

    def __repr__(self) -> str:
        name = f"{self.metadata['model']!r}, " if "model" in self.metadata else ""
        size = f"size={self.size}" if self.size else "native size"
        ensemble = f", ensemble={self.ensemble}" if self.ensemble > 1 else ""
        return (
            f"{type(self).__name__}({name}task={self.task.name!r}, {self._method}, {size}{ensemble}, "
            f"{describe_network(self)})"
        )

    @property
    def _method(self) -> str:
        """Short description of how a prediction is computed, for `repr`."""
        return "one step"

    @property
    def is_stochastic(self) -> bool:
        """Whether the prediction depends on the seed."""
        return False

    @abc.abstractmethod
    def predict_raw(
        self, inputs: ImageBatch, index: Sequence[int], seeds: Sequence[int]
    ) -> tuple[Tensor, Tensor | None]:
        """The network's outputs ``b c h w`` and the expected error of each pixel, ``b 1 h w`` or None if unknown.

        Args:
            inputs: images ``3 h w`` in [0, 1] of one shape, with a cache for values that depend on the images alone.
            index: index of the image of each output.
            seeds: seed of each output.

        Returns:
            Tensors on the CPU at the size of the images.
        """

    def with_options(
        self, ensemble: int | None = None, merge: str = "", frame: str = "", **changes: Any
    ) -> Self:
        """The same network with other options; see the subclasses."""
        raise NotImplementedError(f"{type(self).__name__} has no options to change")

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
            size: longest edge that images are resized to, 8 to 8192 pixels; by default the model's, 0 or ``"native"``
                for no resizing.
            seed: seed of the protocol's noise; for a list one seed, or one per image. The prediction of an image does
                not depend on the other images or their order.
            ensemble: number of predictions to merge, by default the predictor's; with several, the prediction has
                an uncertainty. The first member is the prediction without an ensemble.
            batch: number of images of one size in a batch of the network.

        Returns:
            A `Prediction`, or a list of them for a list.

        Raises:
            ImageError: an image that cannot be read, or a tensor or array of another layout, type or range.
            ValueError: an ensemble of a deterministic model, whose members would be equal; or an invalid size, seed or
                batch.
            NonFiniteError: the network returned NaN or infinity for the images at ``positions``.
        """
        several = isinstance(images, Tensor | np.ndarray) and images.ndim == 4
        many = several or isinstance(images, list | tuple)
        loaded = as_levels_list(images) if many else [as_levels(images)]  # ty: ignore[invalid-argument-type]
        [(_, found)] = predict_tasks({"": self}, loaded, size, seed, ensemble, batch)
        return found if many else found[0]

    def _check_ensemble_size(self, ensemble: int) -> int:
        if ensemble < 1:
            raise ValueError(f"ensemble is {ensemble}; expected at least 1 prediction")
        if ensemble > 1 and not self.is_stochastic:
            raise ValueError(
                f"this model is deterministic, so {ensemble} predictions would be equal; pass ensemble=1"
            )
        return ensemble

    def predict_batches(
        self,
        images: Sequence[Tensor],
        batches: Iterable[tuple[Sequence[int], ImageBatch]],
        seeds: Sequence[int],
        ensemble: int,
        batch: int,
        metadata: Mapping[str, Any],
    ) -> list[Prediction]:
        """Predictions of ``images`` (``3 h w`` each) from their `group_images`; see `predict_tasks`."""
        outputs: dict[int, list[Tensor]] = {i: [] for i in range(len(images))}
        uncertainties: dict[int, Tensor | None] = {}
        for places, inputs in batches:
            members = [(k, i, m) for k, i in enumerate(places) for m in range(ensemble)]
            for start in range(0, len(members), batch):
                part = members[start : start + batch]
                index, part_seeds = [k for k, _, _ in part], [member_seed(seeds[i], m) for _, i, m in part]
                output, uncertainty = self.predict_raw(inputs, index, part_seeds)
                for row, (_, i, _) in enumerate(part):
                    outputs[i].append(output[row])
                    uncertainties.setdefault(i, None if uncertainty is None else uncertainty[row])
        check_outputs(self.task.name, [(outputs[i], uncertainties[i]) for i in range(len(images))])
        return [
            self.postprocess(outputs[i], image, {**metadata, "seed": seeds[i]}, uncertainties[i])
            for i, image in enumerate(images)
        ]

    def postprocess(
        self,
        outputs: Sequence[Tensor],
        image: Tensor,
        metadata: dict[str, Any],
        uncertainty: Tensor | None = None,
    ) -> Prediction:
        """The prediction of one image (``3 h w``) from the output ``c h w`` of each ensemble member.

        Args:
            outputs: one or several, finite (`finite.check_outputs`).
            image: the input.
            metadata: the settings of the prediction.
            uncertainty: ``1 h w`` of a single output; that of several is their disagreement.
        """
        members = [self._to_map(output, image) for output in outputs]
        maps = members[0] if len(members) == 1 else torch.cat(members)  # without a copy of one
        found = maps[0]
        if len(maps) > 1:
            merged = self.merge(maps)
            found, uncertainty = merged.map, merged.uncertainty
        elif uncertainty is not None:
            size = (int(image.shape[-2]), int(image.shape[-1]))
            uncertainty = interpolate(uncertainty[None], size, mode="bilinear", align_corners=False)[0]
        made = Prediction(self.task, found, image, metadata, self.space, self.task.frame, uncertainty)
        return made if self.task.frame in (None, self.frame) else made.in_frame(self.frame)

    def _to_map(self, output: Tensor, image: Tensor) -> Tensor:
        """Output to map ``1 c h w`` at the input's size: decoded first, then resized, then vectors normalized."""
        decode = decode_unbounded if self.config.clip == "lower" else self.task.decode
        found = decode(output[None])
        size = (int(image.shape[-2]), int(image.shape[-1]))
        if self.task.classes:  # ids cannot be interpolated
            return interpolate(found, size, mode="nearest-exact")
        if tuple(found.shape[-2:]) != size:
            found = resized_output(found, size, self.config.resize)
        if self.task.frame is None:
            return found
        frames = self.output_frame, self.task.frame
        resized = tuple(found.shape[-2:]) != tuple(output.shape[-2:])
        # A resized map is a new tensor and may be overwritten.
        return by_rows(lambda part: convert_frame(unit(part), *frames), found, out=found if resized else None)


def predict_tasks(
    predictors: Mapping[str, BasePredictor],
    images: Sequence[Tensor],
    size: Size = None,
    seed: int | Sequence[int] = 0,
    ensemble: int | None = None,
    batch: int = 8,
) -> Iterator[tuple[str, list[Prediction]]]:
    """Predict several tasks of the same images, one task after the other.

    With a shared backbone each image is encoded once and each prompt embedded once for all tasks, ensemble members and
    denoising steps.

    Args:
        predictors: predictors by any names.
        images: ``3 h w`` in [0, 1], or levels of 8 bits (see `image.rgb.read_levels`), of any sizes.
        size: see `BasePredictor.__call__`.
        seed: see `BasePredictor.__call__`.
        ensemble: see `BasePredictor.__call__`.
        batch: see `BasePredictor.__call__`.

    Yields:
        Each name with its predictions, one per image.

    Raises:
        ValueError, NonFiniteError: see `BasePredictor.__call__`.
    """
    seeds = parse_seeds(seed, len(images))
    if batch < 1:
        raise ValueError(f"batch is {batch}; expected at least 1 image")
    sizes = {name: p.size if size is None else parse_size(size) for name, p in predictors.items()}
    counts = {
        name: p.ensemble if ensemble is None else p._check_ensemble_size(ensemble)
        for name, p in predictors.items()
    }
    left = [(sizes[name], p.edge) for name, p in predictors.items()]
    embeddings: dict[Hashable, Tensor] = {}
    groups: dict[tuple[int, Edge], list[tuple[list[int], ImageBatch]]] = {}
    for name, predictor in predictors.items():
        key = left.pop(0)
        if key not in groups:
            groups[key] = group_images(images, *key, batch, embeddings)
        batches = groups[key] if key in left else _consume(groups.pop(key))
        count = counts[name]
        metadata = {**predictor.metadata, "size": key[0], **({"ensemble": count} if count > 1 else {})}
        yield name, predictor.predict_batches(images, batches, seeds, count, batch, metadata)


def _consume(items: list[tuple[list[int], ImageBatch]]) -> Iterator[tuple[list[int], ImageBatch]]:
    """Yield the items and remove them from the list, so that their memory can be freed."""
    items.reverse()
    while items:
        yield items.pop()


def describe_network(network: nn.Module) -> str:
    """A short description: ``7.6 M parameters, float32 on cpu``."""
    parameters = list(network.parameters())
    if not parameters:
        return "no parameters"
    count = sum(p.numel() for p in parameters)
    size = f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count:,}"
    kind = str(parameters[0].dtype).removeprefix("torch.")
    return f"{size} parameters, {kind} on {parameters[0].device}"
