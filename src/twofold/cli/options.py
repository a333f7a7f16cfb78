"""Groups of options that commands share, each option defined once."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import typer

from twofold.cli.command import OptionGroup
from twofold.cli.console import CommandError, check_choice, output_mode, show_library_messages
from twofold.environment import DTYPES
from twofold.io import Shard
from twofold.io.limits import LIMIT_VARIABLE, parse_pixels


def choice(option: str, choices: tuple[str, ...], help: str) -> Any:
    """An option that takes one of ``choices`` (or "", its default in some commands), which shells complete."""

    def check(value: str) -> str:
        return check_choice(option, value, choices) if value else value

    def complete(incomplete: str) -> list[str]:
        return [one for one in choices if one.startswith(incomplete)]

    return typer.Option(option, metavar="|".join(choices), help=help, callback=check, autocompletion=complete)


def _mode_setter(field: str) -> Callable[[bool], bool]:
    def set_mode(value: bool) -> bool:
        if value:
            setattr(output_mode(), field, True)
            if field == "verbose":
                show_library_messages()
        if output_mode().quiet and output_mode().verbose:
            raise CommandError("--quiet and --verbose exclude each other; leave one out")
        return value

    return set_mode


@dataclass(frozen=True)
class GeneralOptions(OptionGroup):
    """Of every command."""

    title: ClassVar[str] = "General"
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print JSON, one object a line.", callback=_mode_setter("json")),
    ] = False
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Print results and errors only.", callback=_mode_setter("quiet")),
    ] = False
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="Also print warnings and logs of libraries, and tracebacks.",
            callback=_mode_setter("verbose"),
        ),
    ] = False


def _set_limit(text: str) -> str:
    """Sets the limit for this process and those that it starts (data loaders, ranks)."""
    if text:
        try:
            os.environ[LIMIT_VARIABLE] = str(parse_pixels(text))
        except ValueError as error:
            raise CommandError(f"--max-pixels: {error}") from None
    return text


@contextmanager
def limits_restored() -> Generator[None]:
    """After the block the limit is what it was before, for programs that run several commands."""
    before = os.environ.get(LIMIT_VARIABLE)
    try:
        yield
    finally:
        os.environ.pop(LIMIT_VARIABLE, None)
        if before is not None:
            os.environ[LIMIT_VARIABLE] = before


ShardText = Annotated[
    str,
    typer.Option(
        "--shard", metavar="I/N", help="Do the I-th of N shares, such as 1/4; other processes do the others."
    ),
]


def parse_shard(text: str) -> Shard:
    """The share of ``--shard``; CommandError for anything else than I/N."""
    try:
        return Shard.parse(text)
    except ValueError as error:
        raise CommandError(f"--shard {error}") from None


@dataclass(frozen=True)
class ImageLimit(OptionGroup):
    """Of commands that read images."""

    title: ClassVar[str] = "General"
    max_pixels: Annotated[
        str,
        typer.Option(
            "--max-pixels",
            metavar="N",
            callback=_set_limit,
            help="Maximal number of pixels of an image or map, such as 200M; 50M by default. Larger ones are refused.",
        ),
    ] = ""


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


Method = Annotated[
    str, typer.Option(metavar="NAME", help="Published method of a checkpoint whose name does not tell.")
]
Base = Annotated[
    str,
    typer.Option(
        metavar="DIR", help="Model whose autoencoder and text encoder complete a checkpoint without them."
    ),
]
Revision = Annotated[str, typer.Option(help="Revision of a hub repository.")]
Variant = Annotated[str, typer.Option(help="Variant of the weight files, such as fp16.")]


@dataclass(frozen=True)
class CheckpointOptions(OptionGroup):
    """How files of weights are read."""

    title: ClassVar[str] = "Model"
    method: Method = ""
    base: Base = ""
    revision: Revision = ""
    variant: Variant = ""


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
    method: Method = ""
    base: Base = ""
    revision: Revision = ""
    variant: Variant = ""


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

    def changes(self) -> dict[str, Any]:
        """The settings of a predictor that differ from its defaults."""
        found: dict[str, Any] = {"steps": self.steps} if self.steps else {}
        return found | ({"odd_sizes": self.odd_sizes} if self.odd_sizes != "pad" else {})


@dataclass(frozen=True)
class GeneratorOptions(OptionGroup):
    """Which model generates images."""

    title: ClassVar[str] = "Model"
    model: Annotated[
        str, typer.Option(metavar="M", help="'embedded', a folder, or another model that generates images.")
    ] = "embedded"


@dataclass(frozen=True)
class SamplingOptions(OptionGroup):
    """How images are generated."""

    title: ClassVar[str] = "Image generation"
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Denoising steps.")] = 40
    sampler: Annotated[
        str,
        choice("--sampler", ("ddim", "dpmpp_2m"), "dpmpp_2m reaches ddim's quality in a third of the steps."),
    ] = "ddim"
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance of the caption; 1 is none.")] = 3.0
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the first image; each further one has the next seed.")
    ] = 0


@dataclass(frozen=True)
class SampleCreationOptions(SamplingOptions):
    """How labelled images are generated from labelled images."""

    steps: Annotated[
        int, typer.Option(min=0, help="Denoising steps; by default 30, or 50 with --compat.")
    ] = 0
    sampler: Annotated[
        str,
        choice(
            "--sampler",
            ("ddim", "dpmpp_2m", "euler", "lcm"),
            "dpmpp_2m reaches ddim's quality in a third of the steps; lcm is for distilled models.",
        ),
    ] = "ddim"
    guidance: Annotated[
        float,
        typer.Option(
            help="Classifier-free guidance of the caption; 1 is none. By default 3, or 1 with --compat."
        ),
    ] = 0.0
    size: Annotated[
        int, typer.Option(min=0, help="Longest edge of generated images; 0 is the source's own.")
    ] = 0
    seed: Annotated[int, typer.Option(min=0, help="Seed of the generated images.")] = 0
    compat: Annotated[
        str,
        choice("--compat", ("official",), "Reproduce the denoising steps of Diff-2-in-1's released code."),
    ] = ""


@dataclass(frozen=True)
class SyntheticLabelOptions(OptionGroup):
    """What is generated from a source, how it is labelled, and what is kept."""

    title: ClassVar[str] = "Samples and labels"
    per_image: Annotated[
        int, typer.Option(min=1, help="Samples of each source (at each strength, in each round).")
    ] = 1
    label_mode: Annotated[
        str,
        choice(
            "--label-mode",
            ("reencode", "denoise"),
            "Labels are predicted from the generated image, or from features of its denoising steps.",
        ),
    ] = ""
    mask: Annotated[
        str, choice("--mask", ("source", "all"), "Labels are valid where the source's are, or everywhere.")
    ] = ""
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter", metavar="SCORE<N", help="Keep samples that pass, such as 'drift<20'; may be repeated."
        ),
    ] = None
    captioner: Annotated[
        str, typer.Option(metavar="HUB_ID", help="Image-to-text model for sources without a caption.")
    ] = ""
    template: Annotated[
        str, typer.Option(help="Caption of sources without one; {classes} lists the classes in the image.")
    ] = "a photograph"
