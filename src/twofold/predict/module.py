"""A network of somebody's own, that looks at pictures and paints a canvas for each of its tasks.

It is any `torch.nn.Module` whose ``forward(images)`` takes pictures ``b 3 h w`` in [0, 1] and gives a mapping from
names of tasks to canvases ``b c h w``:

- a canvas has as many channels as `Task.out_channels`, or as many as the task's own canvas: 1 or 3 for depth, 3 for
  normals, one a class for logits; an image is in [-1, 1], as `Task.encode` paints it;
- a canvas of another size than the pictures, such as a quarter of it, is brought to theirs bilinearly;
- a name that begins with a task's and a slash, ``depth/early``, is a further canvas of that task, which is learned from
  the same losses and is no answer (the intermediate supervision of InvPT and its kin);
- pictures may have any size; where the network has a ``stride``, they are padded to multiples of it first.

What it normalises pictures by is its own affair, and so is everything else inside.
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

# By task: the canvas that is its answer, and those that only learn.
Painted = dict[str, tuple[Tensor, ...]]


def padded(network: nn.Module, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Images ``b 3 h w`` grown at the right and the bottom to the network's stride, and the size to cut back to."""
    return pad_to_multiple(images, int(getattr(network, "stride", 1)))


def read(said: Any, tasks: Mapping[str, Task], shown: Sequence[int], size: tuple[int, int]) -> Painted:
    """What a network said, as float32 canvases ``b c h w`` of ``size``, by the names of ``tasks``.

    Args:
        said: what its ``forward`` gave.
        tasks: by the names that are asked for; a network may also know them by `Task.name`.
        shown: shape ``b 3 H W`` of the pictures that it was shown.
        size: that is kept of ``H W``, from the top left.

    Raises:
        ValueError: it did not say what it has to, for one of the tasks; the message says what that would be.
    """
    if not isinstance(said, Mapping):
        raise ValueError(
            f"a network's forward gives a mapping from tasks to canvases, and this one a {type(said).__name__}; "
            f"return {{{', '.join(f'{n!r}: ...' for n in tasks)}}}"
        )
    return {name: _of(said, name, task, shown, size) for name, task in tasks.items()}


def _of(
    said: Mapping[str, Any], name: str, task: Task, shown: Sequence[int], size: tuple[int, int]
) -> tuple[Tensor, ...]:
    called = name if name in said else task.name
    if called not in said:
        raise ValueError(
            f"the network says nothing of {name}; it speaks of {', '.join(map(str, said)) or 'nothing'}"
        )
    further = [v for k, v in said.items() if k.startswith(f"{called}/")]
    return tuple(_canvas(x, name, task, shown, size) for x in (said[called], *further))


def _canvas(x: Any, name: str, task: Task, shown: Sequence[int], size: tuple[int, int]) -> Tensor:
    able = {task.out_channels, 3} if task.is_image and task.out_channels == 1 else {task.out_channels}
    if not isinstance(x, Tensor) or x.ndim != 4 or len(x) != shown[0] or x.shape[1] not in able:
        found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        wanted = " or ".join(str(n) for n in sorted(able))
        raise ValueError(
            f"the network's {name} is {found}; a canvas of {shown[0]} pictures is ({shown[0]}, {wanted}, h, w)"
        )
    x = x.float()
    if x.shape[-2:] != tuple(shown[-2:]):
        x = interpolate(x, (int(shown[-2]), int(shown[-1])), mode="bilinear", align_corners=False)
    x = x[..., : size[0], : size[1]]
    return x.expand(-1, 3, -1, -1) if task.is_image and x.shape[1] == 1 else x


class ModulePredictor(BasePredictor):
    """One task of a network of somebody's own: pictures in, predictions out.

    Args:
        network: see the top of this file; it should be in evaluation mode.
        task: what is asked.
        name: that the network may know it by, where it is not `Task.name`.
        size: longest edge pictures are brought to before they are shown; 0 leaves them as they are.
        about: facts to carry in every prediction's settings.
    """

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        name: str = "",
        size: int = 0,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(task, size, about)
        self.network, self.name = network, name or task.name

    @property
    def _method(self) -> str:
        return f"network={type(self.network).__name__}"

    @torch.no_grad()
    def paint(self, images: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """See `BasePredictor`; the network is deterministic, and says nothing of how sure it is."""
        shown, size = padded(self.network, images)
        weights = next(self.network.parameters(), None)
        shown = shown if weights is None else shown.to(weights)
        found = read(self.network(shown), {self.name: self.task}, shown.shape, size)
        return found[self.name][0].cpu(), None

    def asked(
        self, ensemble: int | None = None, merge: str = "", frame: str = "", **changes: Any
    ) -> ModulePredictor:
        """The same, with maps of vectors in another ``frame``.

        Raises:
            ValueError: several answers, or a protocol to change: it has one answer, in one look.
        """
        if changes or merge:
            raise ValueError(
                f"a network of one's own is asked in one look; it has no {next(iter(changes), 'merge')!r}"
            )
        made = ModulePredictor(self.network, self.task, self.name, self.size, self.about)
        made.ensemble, made.merge = made._drawn(1 if ensemble is None else ensemble), self.merge
        made.frame = frame or self.frame
        return made
