"""What a run trains: a stage of the autoencoder, of the denoiser, or of a user-defined network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from ..backbones.stable_diffusion import StableDiffusion
from ..heads import Head
from .distributed import DistributedContext
from .recipe import Recipe
from .state import Ema
from .step import Loss


class Stage(Protocol):
    """What a run trains: batches, loss and validation."""

    module: nn.Module
    teacher: Ema | None  # the averaged weights, which may predict pseudo-labels

    @property
    def draw(self) -> Callable[[int], Sequence[Any]]:
        """This process's examples of a step, a function of the recipe's seed and the step only."""
        ...

    def loss(self, examples: Sequence[Any]) -> Loss:
        """The loss of ``examples``, a part of a batch."""
        ...

    def validate(self) -> dict[str, float]:
        """Scores of the current weights on held-out data, by name."""
        ...

    def preview(self) -> Tensor | None:
        """A preview image ``3 h w`` in [0, 1] of predictions on held-out data, or None."""
        ...

    def close(self) -> None:
        """End what draws examples ahead; called after the last step, and when a run is interrupted."""
        ...

    def finish(self) -> None:
        """Called once, after the last step."""
        ...


def build_trainer(
    backbone: nn.Module, recipe: Recipe, run: Path, heads: dict[str, Head], distributed: DistributedContext
) -> Stage:
    """The stage of a recipe's kind. Latents are cached beside the run's folder, shared by the runs in its parent."""
    if recipe.model.kind == "network":
        from .network import NetworkStage

        return NetworkStage(backbone, recipe, run, distributed)
    if not isinstance(backbone, StableDiffusion):
        raise TypeError(
            f"a run of kind {recipe.model.kind!r} trains a StableDiffusion, not a {type(backbone).__name__}"
        )
    if recipe.model.kind == "autoencoder":
        from .autoencoder import AutoencoderStage

        return AutoencoderStage(backbone, recipe, distributed)
    from .denoiser import DenoiserStage

    return DenoiserStage(backbone, recipe, run, heads, distributed)
