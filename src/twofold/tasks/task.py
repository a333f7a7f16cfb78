"""What a dense map means: a record of plain functions, so that one test can check a property of all tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from ..metrics import Metric
from ..suggest import did_you_mean
from .ensemble import Merged

# (prediction, target, mask) -> scalar; both are encoded targets.
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
# One that reads the image too: (prediction, target, mask, image ``b 3 h w`` in [0, 1]) -> scalar.
ImageLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Task:
    """One dense prediction task.

    A *target* is a map of a sample (``b c h w`` with a ``valid`` mask ``b 1 h w``; see `targets.TARGETS`), an *encoded
    target* is what the network is trained to output (an image ``b 3 h w`` in [-1, 1]; for class logits and heatmaps
    ``out_channels`` channels of any range), a *map* is what a user gets (``b c h w``).

    Attributes:
        name: of the task, and of its target unless ``target_key`` is set.
        channels: of a map.
        unit: of a map, as text.
        space: what a map's values are; recorded with every prediction.
        frame: of a map of unit vectors; None for other maps.
        prompt: the default text condition.
        encode: (target, valid) -> (encoded target, mask of the pixels that are trained on).
        decode: encoded map -> map.
        losses: by name, (prediction, target, mask) -> scalar; their sum by ``weights`` is the pixel loss.
        weights: of the losses.
        flip: map or target -> that of the mirrored image.
        distance: (map, map) -> ``b 1 h w`` disagreement.
        merge: ``n c h w`` several maps of one image -> one map with its uncertainty.
        show: map ``c h w`` -> preview image ``3 h w`` in [0, 1], pixel-wise.
        align: (map, target, valid) of one image -> the map as the metrics compare it.
        metrics: computed on aligned maps.
        target_key: name of the target in a sample, if it is not the task's name.
        head_channels: channels of a head's output, if they are not those of a map; 1 is repeated to three.
        classes: names of the classes in the order of their ids, for a map of ids.
        is_image: whether encoded targets are images, which an autoencoder can encode and decode; False for class ids
            of logits and for heatmaps, which only a head that reads features can predict.
        metres: depth in metres that the value 1 of a map stands for; 0 for a map up to scale and shift.
        image_losses: more losses, with names of their own, that also read the image.
    """

    name: str
    channels: int
    unit: str
    space: str
    frame: Literal["RUB"] | None
    prompt: str
    encode: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    decode: Callable[[Tensor], Tensor]
    losses: Mapping[str, Loss]
    weights: Mapping[str, float]
    flip: Callable[[Tensor], Tensor]
    distance: Callable[[Tensor, Tensor], Tensor]
    merge: Callable[[Tensor], Merged]
    show: Callable[[Tensor], Tensor]
    align: Callable[[Tensor, Tensor, Tensor], Tensor]
    metrics: tuple[Metric, ...]
    target_key: str = ""
    head_channels: int = 0
    classes: tuple[str, ...] = ()
    is_image: bool = True
    metres: float = 0.0
    image_losses: Mapping[str, ImageLoss] = field(default_factory=dict)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle a task of this package by its name: some of its functions are made at import and have no name."""
        from . import TASKS, get_task

        if TASKS.get(self.name) is self:
            return get_task, (self.name,)
        return super().__reduce_ex__(protocol)

    def __repr__(self) -> str:
        return f"Task({self.name!r}, {self.channels} channel{'s' if self.channels > 1 else ''}, {self.unit})"

    @property
    def target(self) -> str:
        """Name of the target in a sample."""
        return self.target_key or self.name

    @property
    def out_channels(self) -> int:
        """Channels of a head's output: `head_channels`, else those of a map."""
        return self.head_channels or self.channels

    @property
    def loss_names(self) -> tuple[str, ...]:
        """Names of all losses that ``weights`` may contain."""
        return (*self.losses, *self.image_losses)

    def loss(
        self,
        pred: Tensor,
        target: Tensor,
        mask: Tensor,
        weights: Mapping[str, float] | None = None,
        image: Tensor | None = None,
    ) -> Tensor:
        """Weighted sum of this task's losses on encoded targets.

        Args:
            pred: the network's output, ``b c h w``.
            target: the encoded target.
            mask: ``b 1 h w`` bool, where the target is valid.
            weights: weight by name of the loss; None for the task's default weights.
            image: ``b 3 h w`` in [0, 1], for `image_losses`; no default loss needs it.

        Raises:
            ValueError: a weight for an unknown loss, or a loss that needs the image without one.
        """
        weights = self.weights if weights is None else weights
        strange = sorted(set(weights) - set(self.loss_names))
        if strange:
            hint = did_you_mean(strange[0], self.loss_names)
            has = f"it has {', '.join(self.loss_names)}"
            raise ValueError(f"{self.name} has no loss {strange[0]!r}{hint}; {has}")
        total = pred.new_zeros(())
        for name, weight in weights.items():
            if name in self.losses:
                total = total + weight * self.losses[name](pred, target, mask)
            elif image is None:
                raise ValueError(f"the loss {name!r} of {self.name} reads the image; pass image=")
            else:
                total = total + weight * self.image_losses[name](pred, target, mask, image)
        return total
