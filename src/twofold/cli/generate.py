"""The command `twofold generate`, which generates images from captions, or from an image and captions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from twofold.cli.command import OptionGroup
from twofold.cli.console import (
    OK,
    SOME_FAILED,
    CommandError,
    counted,
    parse_size_pair,
    print_line,
    print_rows,
)
from twofold.cli.generation import SamplingOptions
from twofold.cli.model import GeneratorOptions, RuntimeOptions
from twofold.cli.usage import refuse_unused
from twofold.io import sha256_file

if TYPE_CHECKING:
    from torch import Tensor

    from twofold.generate.image_files import Request


@dataclass(frozen=True)
class ImageOptions(OptionGroup):
    """Options of the generated images."""

    title: ClassVar[str] = "Images"
    count: Annotated[int, typer.Option(min=1, max=10000, help="Images of each caption.")] = 1
    size: Annotated[
        str,
        typer.Option(
            metavar="WxH",
            help="Width x height in pixels; with --image, the longer of the two is the maximum longest edge.",
        ),
    ] = "256x192"
    image: Annotated[Path | None, typer.Option(metavar="IMAGE", help="Image to start from (img2img).")] = None
    strength: Annotated[
        float, typer.Option(help="Fraction of the noise schedule added to --image, in (0, 1].")
    ] = 0.6


def generate(
    captions: Annotated[list[str], typer.Argument(metavar="CAPTION...", help="Captions of the images.")],
    images: ImageOptions,
    sampling: SamplingOptions,
    model: GeneratorOptions,
    runtime: RuntimeOptions,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the images.")] = Path("images"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Generate existing images again.")] = False,
) -> int:
    """Generate images from captions, or from an image and captions.

    Writes SEED_CAPTION.png with its settings (PNG text 'twofold') and a row in generated.jsonl for each image, and
    sheet.png if there are several. An image depends on its caption, seed and settings only. Existing images with the
    same settings are kept. An image that fails is reported, and the other images are generated.
    """
    if not 0 < images.strength <= 1:
        raise CommandError(f"--strength {images.strength:g} is not above 0 and at most 1")
    if images.image is None:
        refuse_unused("without --image", "strength")
    height, width = parse_size_pair(images.size)
    if max(height, width) > 2048:
        raise CommandError(f"--size {images.size} is larger than 2048 pixels; generate smaller images")
    requests = _requests(captions, sampling.seed, images.count)
    start = None if images.image is None else _start(images.image, max(height, width))
    opened = model.open(runtime)
    settings: dict[str, Any] = {
        "digest": opened.digest,
        "sampler": sampling.sampler,
        "steps": sampling.steps,
        "guidance": sampling.guidance,
        "dtype": runtime.dtype,
        "pixels": [height, width] if start is None else list(start.shape[-2:]),
    }
    if images.image is not None:
        settings |= {"strength": images.strength, "image_sha256": sha256_file(images.image)}
    from twofold.generate.image_files import ImageFileOptions, generate_files
    from twofold.generate.images import ImageGenerator

    sampler: Any = sampling.sampler
    generator = ImageGenerator(opened.backbone, sampling.steps, sampling.guidance, sampler)
    strength = images.strength if images.image else 1.0
    job = ImageFileOptions(generator, requests, out, (height, width), settings, start, strength, overwrite)
    rows: list[dict[str, Any]] = []

    def describe(row: dict[str, Any]) -> str:
        rows.append(row)
        return f"{out / row['path']}{'  kept' if row['status'] == 'kept' else ''}"

    counts = print_rows(generate_files(job), len(requests), "generate", describe)
    print_line(counted(counts, {"done": "generated", "kept": "kept", "failed": "failed"}))
    if len(requests) > 1 and rows:
        _write_sheet(out, rows)
    return SOME_FAILED if counts["failed"] else OK


def _requests(captions: Sequence[str], seed: int, count: int) -> list[Request]:
    """A request for each image. CommandError if two images would have the same file name."""
    from twofold.generate.image_files import Request

    requests = [
        Request(f"{seed + i:04d}_{_slug(text)}", text, seed + i) for text in captions for i in range(count)
    ]
    if len({request.name for request in requests}) < len(requests):
        raise CommandError("two captions give the same file name; change one of them")
    return requests


def _slug(caption: str) -> str:
    """A caption as a part of a file name."""
    return "-".join(re.findall(r"[a-z0-9]+", caption.lower()))[:60].strip("-") or "empty"


def _start(image: Path, longest: int) -> Tensor:
    """Read the image to start from, ``3 h w`` in [0, 1], with a longest edge of at most ``longest``."""
    from twofold.image import longest_edge_size, read_image, resize

    pixels = read_image(image)
    h, w = pixels.shape[-2:]
    return resize(pixels, longest_edge_size(h, w, longest)).clamp(0, 1) if max(h, w) > longest else pixels


def _write_sheet(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    from twofold.image import read_image
    from twofold.visualization import sheet, write_sheet

    images = [read_image(out / row["path"]) for row in rows]
    write_sheet(out / "sheet.png", sheet(images, min(4, len(rows)), [row["caption"] for row in rows]))
    print_line(f"contact sheet: {out / 'sheet.png'}")
