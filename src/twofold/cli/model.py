"""Models opened by a command's options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from twofold.cli.options import ModelOptions
from twofold.cli.usage import refuse_unused

if TYPE_CHECKING:
    from twofold.checkpoints import Model, Network

_OF_WEIGHTS = ("method", "base", "revision", "variant")


def check_model_options(model: str, network: str = "") -> None:
    """CommandError for options about the origin of weights, where the model has another origin."""
    if network:
        refuse_unused("with --network, whose weights are in one folder", *_OF_WEIGHTS)
    if model == "embedded":
        refuse_unused("for the embedded model, which is complete", *_OF_WEIGHTS)
    elif Path(model).exists():
        refuse_unused(f"for {model}, which is on this disk: a revision is of a hub repository", "revision")


def open_from_options(options: ModelOptions, device: str, dtype: str) -> Model | Network:
    """The model, or with ``--network`` a module of the user's own.

    Args:
        options: which one.
        device: where its weights go.
        dtype: torch's name of their type.
    """
    from twofold.environment import require_sound_torchvision

    require_sound_torchvision()
    import torch

    from twofold.checkpoints import open_model, open_network

    kind = getattr(torch, dtype)
    if options.network:
        return open_network(options.model, options.network, device, kind)
    return open_model(
        options.model, device, kind, options.method, options.base, options.revision or None, options.variant
    )
