"""Options of models, devices and inference, and models opened by them."""

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
    """Where to compute."""

    title: ClassVar[str] = "Device"
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps or xpu.")] = "auto"

    def resolve(self) -> str:
        """The device by `environment.resolve_device`; CommandError for an unknown or missing one."""
        from twofold.environment import resolve_device

        try:
            return resolve_device(self.device)
        except ValueError as error:
            raise CommandError(f"--device {self.device}: {error}") from error


def _parse_dtype(name: str) -> str:
    """torch's name of a type of weights; CommandError for anything else."""
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
    """Where and how precisely to compute."""

    title: ClassVar[str] = "Device and precision"
    dtype: Dtype = "float32"


@dataclass(frozen=True)
class ModelOptions(OptionGroup):
    """Which model predicts."""

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
            help="For weights of a module of your own: FILE.py:NAME that builds it. It is run.",
        ),
    ] = ""


@dataclass(frozen=True)
class CheckpointOptions(OptionGroup):
    """How files of weights are read."""

    title: ClassVar[str] = "Model"
    method: Annotated[
        str, typer.Option(metavar="NAME", help="Published method of a checkpoint whose name does not tell.")
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
        """The model ``source``; see `checkpoints.open_model`. ``dtype`` is torch's name of it."""
        require_sound_torchvision()
        import torch

        from twofold.checkpoints import open_model

        revision = self.revision or None
        kind = getattr(torch, dtype)
        return open_model(source, device, kind, self.method, self.base, revision, self.variant, lora_alpha)


@dataclass(frozen=True)
class GeneratorOptions(OptionGroup):
    """Which model generates images."""

    title: ClassVar[str] = "Model"
    model: Annotated[
        str, typer.Option(metavar="M", help="'embedded', a folder, or another model that generates images.")
    ] = "embedded"

    def open(self, runtime: RuntimeOptions) -> Model:
        """The model; see `checkpoints.open_generator`."""
        require_sound_torchvision()
        import torch

        from twofold.checkpoints import open_generator

        return open_generator(self.model, runtime.resolve(), getattr(torch, runtime.dtype))


@dataclass(frozen=True)
class InferenceOptions(OptionGroup):
    """How a model predicts."""

    title: ClassVar[str] = "Inference"
    size: Annotated[
        str,
        typer.Option(
            metavar="N",
            help="Longest edge in pixels that images are resized to, or 'native'; by default the model's.",
        ),
    ] = ""
    odd_sizes: Annotated[
        str,
        choice(
            "--odd-sizes",
            ("pad", "floor"),
            "Edges that are no multiple of the stride: pad, or round down as the original programs do.",
        ),
    ] = "pad"
    steps: Annotated[
        int, typer.Option(min=0, help="Denoising steps of a multi-step model; 0 is the model's own number.")
    ] = 0
    ensemble: Annotated[int, typer.Option(min=1, max=100, help="Predictions to compute and merge.")] = 1

    def longest_edge(self) -> int | None:
        """``--size`` as a number; 0 is native, None the default."""
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


_OF_WEIGHTS = ("method", "base", "revision", "variant")


def check_model_options(model: str, network: str = "") -> None:
    """CommandError for options about the origin of weights, where the model has another origin."""
    if network:
        refuse_unused("with --network, whose weights are in one folder", *_OF_WEIGHTS)
    if model == "embedded":
        refuse_unused("for the embedded model, which is complete", *_OF_WEIGHTS)
    elif Path(model).exists():
        refuse_unused(f"for {model}, which is on this disk: a revision is of a hub repository", "revision")


def open_from_options(
    options: ModelOptions, checkpoint: CheckpointOptions, device: str, dtype: str
) -> Model | Network:
    """The model, or with ``--network`` a module of the user's own.

    Args:
        options: which one.
        checkpoint: how its files are read.
        device: where its weights go.
        dtype: torch's name of their type.
    """
    if not options.network:
        return checkpoint.open(options.model, device, dtype)
    require_sound_torchvision()
    import torch

    from twofold.checkpoints import open_network

    return open_network(options.model, options.network, device, getattr(torch, dtype))
