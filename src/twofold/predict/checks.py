"""Checks that a network, a protocol, a task and an ensemble are compatible."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..backbones.backbone import Backbone
from ..compat.ensemble import diffusers_ensemble
from ..protocols import MultiStep, OneStep
from ..tasks import Task
from ..tasks.ensemble import Merged, affine, closest, mean_direction, median, scale_only
from .prediction import SPACES


def check_channels(backbone: Backbone, protocol: OneStep | MultiStep) -> None:
    """ValueError if the network and the protocol differ in the number of input channels."""
    channels, expected = protocol.channels(backbone.latent_channels), backbone.input_channels
    if channels != expected:
        raise ValueError(
            f"the protocol's input has {channels} channels (condition={protocol.condition!r}, "
            f"num_outputs={protocol.num_outputs}), and the network takes {expected}; use the protocol that the network "
            "was trained with"
        )


def check_times(backbone: Backbone, protocol: OneStep | MultiStep) -> None:
    """ValueError if the protocol uses a time step that the schedule does not have."""
    if isinstance(protocol, MultiStep):
        schedule = backbone.schedule if protocol.noise is None else protocol.noise.schedule
        trained = () if protocol.train_timestep is None else (protocol.train_timestep,)
        times = [*protocol.times(schedule), *trained]
    elif protocol.add_noise:
        schedule, times = backbone.schedule, [protocol.timestep]
    else:
        return
    last = schedule.steps if schedule.prediction_type == "flow" else schedule.steps - 1
    wrong = [t for t in times if not 0 <= t <= last]
    if wrong:
        raise ValueError(
            f"the protocol has the time step {wrong[0]}; expected 0 to {last}, the time steps of the schedule"
        )


def get_ensemble_fn(name: str, task: Task) -> Callable[[Tensor], Merged]:
    """The function that merges an ensemble by the method ``name``.

    Raises:
        ValueError: the method does not apply to the task's kind of map.
    """
    if task.frame is not None:
        able = ("closest", "mean")
    else:
        able = ("affine", "scale", "compat", "median") if task.space in SPACES else ("median",)
    if name not in able:
        raise ValueError(
            f"an ensemble of {task.name} cannot be merged by {name!r}; expected {' or '.join(able)}"
        )
    return MERGES[name]


# By the names that settings have for them.
MERGES: dict[str, Callable[[Tensor], Merged]] = {
    "affine": affine,
    "scale": scale_only,
    "compat": diffusers_ensemble,
    "closest": closest,
    "mean": mean_direction,
    "median": median,
}
