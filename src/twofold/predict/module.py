"""Predictors for a user-defined network, which outputs encoded targets for each of its tasks.

The network is any `torch.nn.Module` whose ``forward(images)`` takes images ``b 3 h w`` in [0, 1] and returns a mapping
from names of tasks to encoded targets ``b c h w``:

- an output has `Task.out_channels` channels, or as many as the task's encoded target: 1 or 3 for depth, 3 for
  normals, one per class for logits; images are in [-1, 1], as `Task.encode` returns them;
- an output of another size than the images, such as a quarter of it, is resized to their size bilinearly;
- a name that begins with a task's and a slash, ``depth/early``, is an auxiliary output of that task: the same losses
  apply to it, and it is not predicted (the intermediate supervision of InvPT and similar networks);
- images may have any size; if the network has a ``stride``, they are padded to multiples of it first.

The network has to normalize its input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..image import pad_to_multiple
from ..tasks import Task
from .base import BasePredictor
from .batching import ImageBatch

# By task: its output, and its auxiliary outputs.
TaskOutputs = dict[str, tuple[Tensor, ...]]


def pad_images(network: nn.Module, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Images ``b 3 h w`` padded at the right and the bottom to the network's stride, and their size before."""
    return pad_to_multiple(images, int(getattr(network, "stride", 1)))


def parse_outputs(
    outputs: Any, tasks: Mapping[str, Task], shape: Sequence[int], size: tuple[int, int]
) -> TaskOutputs:
    """A network's outputs as float32 encoded targets ``b c h w`` of ``size``, by the names of ``tasks``.

    Args:
        outputs: the return value of its ``forward``.
        tasks: tasks by name; the network may also use `Task.name` as keys.
        shape: ``b 3 H W`` of its input.
        size: height and width that outputs are cropped to, from the top left.

    Raises:
        ValueError: an output of one of the tasks is missing or has another shape than expected.
    """
    if not isinstance(outputs, Mapping):
        raise ValueError(
            f"a network's forward returned a {type(outputs).__name__}; expected a mapping from tasks to outputs: "
            f"return {{{', '.join(f'{n!r}: ...' for n in tasks)}}}"
        )
    return {name: _outputs_of(outputs, name, task, shape, size) for name, task in tasks.items()}


def _outputs_of(
    outputs: Mapping[str, Any], name: str, task: Task, shape: Sequence[int], size: tuple[int, int]
) -> tuple[Tensor, ...]:
    key = name if name in outputs else task.name
    if key not in outputs:
        raise ValueError(f"the network has no output {name}; it has {', '.join(map(str, outputs)) or 'none'}")
    auxiliary = [v for k, v in outputs.items() if k.startswith(f"{key}/")]
    return tuple(_resized_output(x, name, task, shape, size) for x in (outputs[key], *auxiliary))


def _resized_output(x: Any, name: str, task: Task, shape: Sequence[int], size: tuple[int, int]) -> Tensor:
    channels = {task.out_channels, 3} if task.is_image and task.out_channels == 1 else {task.out_channels}
    if not isinstance(x, Tensor) or x.ndim != 4 or len(x) != shape[0] or x.shape[1] not in channels:
        found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        able = " or ".join(str(n) for n in sorted(channels))
        raise ValueError(
            f"the network's output {name} is {found}; expected ({shape[0]}, {able}, h, w) for {shape[0]} images"
        )
    x = x.float()
    if x.shape[-2:] != tuple(shape[-2:]):
        x = interpolate(x, (int(shape[-2]), int(shape[-1])), mode="bilinear", align_corners=False)
    x = x[..., : size[0], : size[1]]
    return x.expand(-1, 3, -1, -1) if task.is_image and x.shape[1] == 1 else x


class ModulePredictor(BasePredictor):
    """Predictor of one task of a user-defined network.

    Args:
        network: see the top of this file; in evaluation mode.
        task: the task that is predicted.
        name: key of the task's output, if it is not `Task.name`.
        size: longest edge in pixels that images are resized to; 0 keeps their size.
        metadata: entries of every prediction's settings.
    """

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        name: str = "",
        size: int = 0,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(task, size, metadata)
        self.network, self.name = network, name or task.name

    @property
    def _method(self) -> str:
        return f"network={type(self.network).__name__}"

    @torch.no_grad()
    def predict_raw(
        self, inputs: ImageBatch, index: Sequence[int], seeds: Sequence[int]
    ) -> tuple[Tensor, Tensor | None]:
        """See `BasePredictor.predict_raw`; the network runs once for all its tasks and predicts no uncertainty."""

        def run() -> tuple[Any, tuple[int, ...], tuple[int, int]]:
            padded, size = pad_images(self.network, inputs.images)
            weights = next(self.network.parameters(), None)
            padded = padded if weights is None else padded.to(weights)
            return self.network(padded), tuple(padded.shape), size

        outputs, shape, size = inputs.cached(("module", id(self.network)), run)
        found = parse_outputs(outputs, {self.name: self.task}, shape, size)[self.name][0].cpu()
        rows = list(index)
        return found if rows == list(range(len(found))) else found[rows], None

    def with_options(
        self, ensemble: int | None = None, merge: str = "", frame: str = "", **changes: Any
    ) -> ModulePredictor:
        """The same network, with vectors of a map in another ``frame``.

        Raises:
            ValueError: an ensemble or a setting of a protocol: the network is deterministic and has no protocol.
        """
        if changes or merge:
            raise ValueError(
                f"a user-defined network is deterministic and has no setting {next(iter(changes), 'merge')!r}"
            )
        made = ModulePredictor(self.network, self.task, self.name, self.size, self.metadata)
        made.ensemble = made._check_ensemble_size(1 if ensemble is None else ensemble)
        made.merge, made.frame = self.merge, frame or self.frame
        return made
