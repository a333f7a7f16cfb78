"""Options of the commands that generate images or labelled images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import typer

from twofold.cli.command import OptionGroup
from twofold.cli.console import CommandError
from twofold.cli.options import choice


@dataclass(frozen=True)
class SamplingOptions(OptionGroup):
    """Options of image generation."""

    title: ClassVar[str] = "Image generation"
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Denoising steps.")] = 40
    sampler: Annotated[
        str,
        choice("--sampler", ("ddim", "dpmpp_2m"), "dpmpp_2m reaches ddim's quality in a third of the steps."),
    ] = "ddim"
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance of the caption; 1 is none.")] = 3.0
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the first image; each further image has the next seed.")
    ] = 0


@dataclass(frozen=True)
class SampleCreationOptions(SamplingOptions):
    """Options of the generation of labelled images from labelled images."""

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
        int, typer.Option(min=0, help="Longest edge of generated images; 0 is that of the source.")
    ] = 0
    seed: Annotated[int, typer.Option(min=0, help="Seed of the generated images.")] = 0
    compat: Annotated[
        str,
        choice("--compat", ("official",), "Reproduce the denoising steps of Diff-2-in-1's released code."),
    ] = ""


@dataclass(frozen=True)
class SyntheticLabelOptions(OptionGroup):
    """Options of synthetic samples: their number for each source, their labels, and filters."""

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


def creation_settings(
    strength: float, sampling: SampleCreationOptions, labels: SyntheticLabelOptions, scoring: str
) -> Any:
    """Convert options to a `GenerationConfig`. Options of 0 and "" get defaults that depend on ``--compat``.

    Raises:
        CommandError: a value is invalid.
    """
    from pydantic import ValidationError

    from twofold.generate.config import OFFICIAL, GenerationConfig
    from twofold.protocols import reason

    passed = {
        "steps": sampling.steps,
        "guidance": sampling.guidance,
        "size": sampling.size,
        "label_mode": labels.label_mode,
        "mask": labels.mask,
    }
    changes: dict[str, Any] = {name: value for name, value in passed.items() if value}
    changes |= {"sampler": sampling.sampler, "seed": sampling.seed, "scoring": scoring}
    base = OFFICIAL if sampling.compat == "official" else GenerationConfig()
    try:
        return replace(base, strength=strength, **changes)
    except ValidationError as error:
        raise CommandError(reason(error)) from error
