"""Options of models, devices and inference, and functions that open the selected models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from twofold.cli.command import OptionGroup
from twofold.cli.console import CommandError, check_choice
from twofold.cli.options import choice
from twofold.cli.usage import refuse_unused
from twofold.environment import DTYPES, require_sound_torchvision

if TYPE_CHECKING:
    from twofold.checkpoints import Model, Network
    from twofold.predict.base import BasePredictor


@dataclass(frozen=True)
class DeviceOptions(OptionGroup):
    """Options of commands that compute in float32."""

    title: ClassVar[str] = "Device"
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps or xpu.")] = "auto"

    def resolve(self) -> str:
        """Resolve the device with `environment.resolve_device`. CommandError if it is unknown or not available."""
        from twofold.environment import resolve_device

        try:
            return resolve_device(self.device)
        except ValueError as error:
            raise CommandError(f"--device {self.device}: {error}") from error


def _parse_dtype(name: str) -> str:
    """The name of a dtype in torch. CommandError if the name is unknown."""
    if name not in DTYPES:
        check_choice("--dtype", name, ("float32", "bfloat16", "float16"))
    return DTYPES[name]


Dtype = Annotated[
    str,
    typer.Option(
        metavar="float32|bfloat16|float16",
        help="Precision of the weights.",
        callback=_parse_dtype,
        autocompletion=lambda: ["float32", "bfloat16", "float16"],
    ),
]


@dataclass(frozen=True)
class RuntimeOptions(DeviceOptions):
    """Options of commands with a selectable precision."""

    title: ClassVar[str] = "Device and precision"
    dtype: Dtype = "float32"


@dataclass(frozen=True)
class ModelOptions(OptionGroup):
    """Options that select the model that predicts."""

    title: ClassVar[str] = "Model"
    model: Annotated[
        str,
        typer.Option(
            metavar="M", help="'embedded', a name of 'twofold models', a hub id, a folder or a file."
        ),
    ] = "embedded"
    network: Annotated[
        str,
        typer.Option(
            metavar="CODE",
            help="For weights of your own module: the code that builds it, FILE.py:NAME, which is run.",
        ),
    ] = ""


@dataclass(frozen=True)
class CheckpointOptions(OptionGroup):
    """Options of reading a checkpoint."""

    title: ClassVar[str] = "Model"
    method: Annotated[
        str, typer.Option(metavar="NAME", help="Published model that a folder of another name contains.")
    ] = ""
    base: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Model whose autoencoder and text encoder complete a checkpoint without them.",
        ),
    ] = ""
    revision: Annotated[str, typer.Option(help="Revision of a hub repository.")] = ""
    variant: Annotated[str, typer.Option(help="Variant of the weight files, such as fp16.")] = ""

    def open(self, source: str, device: str, dtype: str, lora_alpha: float | None = None) -> Model:
        """Open the model ``source``; see `checkpoints.open_model`. ``dtype`` is the name of a dtype in torch."""
        require_sound_torchvision()
        import torch

        from twofold.checkpoints import open_model

        revision = self.revision or None
        weights = getattr(torch, dtype)
        return open_model(source, device, weights, self.method, self.base, revision, self.variant, lora_alpha)


@dataclass(frozen=True)
class GeneratorOptions(OptionGroup):
    """Options that select the model that generates images."""

    title: ClassVar[str] = "Model"
    model: Annotated[
        str, typer.Option(metavar="M", help="'embedded', a folder, or another model that generates images.")
    ] = "embedded"

    def open(self, runtime: RuntimeOptions) -> Model:
        """Open the model; see `checkpoints.open_generator`."""
        require_sound_torchvision()
        import torch

        from twofold.checkpoints import open_generator

        return open_generator(self.model, runtime.resolve(), getattr(torch, runtime.dtype))


@dataclass(frozen=True)
class InferenceOptions(OptionGroup):
    """Options of prediction."""

    title: ClassVar[str] = "Inference"
    size: Annotated[
        str,
        typer.Option(
            metavar="N",
            help="Longest edge in pixels that images are resized to, or 'native'; by default that of the model.",
        ),
    ] = ""
    odd_sizes: Annotated[
        str,
        choice(
            "--odd-sizes",
            ("pad", "floor"),
            "For edges that are not a multiple of the stride: pad, or round down as the original code does.",
        ),
    ] = "pad"
    steps: Annotated[
        int, typer.Option(min=0, help="Denoising steps of a multi-step model; 0 is the default of the model.")
    ] = 0
    ensemble: Annotated[int, typer.Option(min=1, max=100, help="Predictions to compute and merge.")] = 1

    def longest_edge(self) -> int | None:
        """``--size`` as a number: 0 for 'native', None for the default of the model."""
        from twofold.predict.batching import parse_size

        if not self.size:
            return None
        try:
            edge = parse_size(self.size)
        except ValueError:
            edge = 0
        if not edge and self.size != "native":
            raise CommandError(f"--size {self.size!r} is not a number of pixels from 8 to 8192, or 'native'")
        return edge

    def apply(self, predictor: BasePredictor, merge: str = "", frame: str = "") -> BasePredictor:
        """The predictor with these options; see `BasePredictor.with_options`."""
        changes: dict[str, Any] = {"steps": self.steps} if self.steps else {}
        changes |= {"odd_sizes": self.odd_sizes} if self.odd_sizes != "pad" else {}
        return predictor.with_options(self.ensemble, merge, frame, **changes)


_CHECKPOINT_OPTIONS = ("method", "base", "revision", "variant")


def check_model_options(model: str, network: str = "") -> None:
    """CommandError for options of `CheckpointOptions` that have no effect for this model."""
    if network:
        refuse_unused("with --network, whose weights are in one folder", *_CHECKPOINT_OPTIONS)
    if model == "embedded":
        refuse_unused("for the embedded model, which is complete", *_CHECKPOINT_OPTIONS)
    elif Path(model).exists():
        refuse_unused(f"for {model}, which is local: only repositories of the hub have revisions", "revision")


def open_from_options(
    options: ModelOptions, checkpoint: CheckpointOptions, device: str, dtype: str
) -> Model | Network:
    """Open the selected model, or with ``--network`` a user-defined network.

    Args:
        options: options that select the model.
        checkpoint: options of reading the checkpoint.
        device: device of the weights.
        dtype: name of the dtype of the weights in torch.
    """
    if not options.network:
        return checkpoint.open(options.model, device, dtype)
    require_sound_torchvision()
    import torch

    from twofold.checkpoints import open_network

    return open_network(options.model, options.network, device, getattr(torch, dtype))
