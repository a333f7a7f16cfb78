"""What a dense map means: a record of plain functions, so that laws can be tested over all tasks at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from ..ensemble import Merged
from ..metrics import Metric
from ..suggest import did_you_mean

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
# One that looks at the picture as well: (canvas said, canvas wanted, mask, image ``b 3 h w`` in [0, 1]) -> scalar.
PictureLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Task:
    """One dense prediction task.

    A *target* is what data holds (``b c h w`` with a ``valid`` mask ``b 1 h w``; see `targets.TARGETS`), a *canvas*
    is the picture the network paints of it (``b 3 h w`` in [-1, 1]), a *map* is what a user gets (``b c h w``).
    Where no picture is painted, of class logits and of heatmaps, a canvas has ``outputs`` channels of any numbers.

    Attributes:
        name: as in ``Sample.targets``.
        channels: of a map.
        unit: of a map, in words.
        space: what a map's numbers are: recorded with every prediction.
        frame: of a map of unit vectors; None where a map holds anything else.
        prompt: the text that tells a shared network which task is asked.
        encode: (target, valid) -> (canvas, mask): the mask says where the canvas may be learned from.
        decode: canvas -> map.
        losses: by name, (canvas said, canvas wanted, mask) -> scalar; their sum by ``weights`` is the image loss.
        weights: of the losses.
        flip: map or target -> its mirror image.
        distance: (map, map) -> ``b 1 h w`` disagreement.
        merge: ``n c h w`` several maps of one image -> one map with its uncertainty.
        show: map ``c h w`` -> ``3 h w`` in [0, 1], for eyes only; treats each pixel by itself.
        align: (map, target, valid) of one image -> the map as the metrics compare it.
        metrics: measured on aligned maps.
        source: name of the target in the data that it is learned from, where that is not its own.
        paints: channels that a head has to give, where those are not as many as a map has; 1 is repeated to three.
        classes: names of the classes in the order of their ids, of a map of ids.
        painted: whether canvases are pictures, which an autoencoder can encode and decode; False for ids wanted of
            logits and for heatmaps, which only a head that reads features can give.
        metres: that 1 of a map of depth is, where it is not known up to scale and shift only; 0 where it is.
        picture_losses: more losses, of names of their own, that also look at the picture.
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
    source: str = ""
    paints: int = 0
    classes: tuple[str, ...] = ()
    painted: bool = True
    metres: float = 0.0
    picture_losses: Mapping[str, PictureLoss] = field(default_factory=dict)

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
        """What the data calls the target that this task is learned from."""
        return self.source or self.name

    @property
    def outputs(self) -> int:
        """Channels that a head is made for: ``paints`` where it is said, else those of a map."""
        return self.paints or self.channels

    @property
    def loss_names(self) -> tuple[str, ...]:
        """Of every loss that may be given a weight."""
        return (*self.losses, *self.picture_losses)

    def loss(
        self,
        said: Tensor,
        wanted: Tensor,
        mask: Tensor,
        weights: Mapping[str, float] | None = None,
        image: Tensor | None = None,
    ) -> Tensor:
        """The sum of this task's losses on canvases, by ``weights`` or by its own.

        Args:
            said: the canvas that the network paints, ``b c h w``.
            wanted: the canvas that `encode` makes of the truth.
            mask: ``b 1 h w`` bool, where it may be learned from.
            weights: by name of the loss; the task's own when None.
            image: the picture ``b 3 h w`` in [0, 1], for losses that look at it; none of the default ones does.

        Raises:
            ValueError: a weight for a loss that the task does not have, or one that needs the picture without it.
        """
        weights = self.weights if weights is None else weights
        strange = sorted(set(weights) - set(self.loss_names))
        if strange:
            hint = did_you_mean(strange[0], self.loss_names)
            has = f"it has {', '.join(self.loss_names)}"
            raise ValueError(f"{self.name} has no loss {strange[0]!r}{hint}; {has}")
        total = said.new_zeros(())
        for name, weight in weights.items():
            if name in self.losses:
                total = total + weight * self.losses[name](said, wanted, mask)
            elif image is None:
                raise ValueError(f"the loss {name!r} of {self.name} looks at the picture; pass image=")
            else:
                total = total + weight * self.picture_losses[name](said, wanted, mask, image)
        return total
