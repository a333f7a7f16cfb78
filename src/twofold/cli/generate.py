"""`twofold generate`: captions, or an image and captions, to new images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twofold.cli.console import (
    NOTHING_STARTED,
    OK,
    SOME_FAILED,
    CommandError,
    parse_size_pair,
    print_error,
    print_json,
    print_line,
    with_progress,
)
from twofold.cli.options import GeneratorOptions, RuntimeOptions, SamplingOptions
from twofold.cli.usage import refuse_unused
from twofold.io import sha256_file

if TYPE_CHECKING:
    from torch import Tensor

    from twofold.generate.image_files import Request
    from twofold.generate.images import ImageGenerator


def generate(
    captions: Annotated[
        list[str], typer.Argument(metavar="CAPTION...", help="Captions of the images, one or more of each.")
    ],
    sampling: SamplingOptions,
    model: GeneratorOptions,
    runtime: RuntimeOptions,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the images.")] = Path("images"),
    count: Annotated[int, typer.Option(min=1, max=10000, help="Images of each caption.")] = 1,
    image: Annotated[
        Path | None, typer.Option(metavar="IMAGE", help="Image to start from (img2img).")
    ] = None,
    strength: Annotated[
        float, typer.Option(help="Fraction of the noise schedule added to --image, in (0, 1].")
    ] = 0.6,
    size: Annotated[
        str,
        typer.Option(
            metavar="WxH",
            help="Width x height in pixels; with --image, its longer edge is at most the longer of the two.",
        ),
    ] = "256x192",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Generate existing images again.")] = False,
) -> int:
    """Generate images from captions, or from an image and captions.

    Writes SEED_CAPTION.png for each, with its settings inside (PNG text 'twofold'), a row in generated.jsonl, and
    sheet.png when there are several. An image depends on its caption, seed and settings only. Existing images with
    the same settings are kept; an image that fails is reported and the rest is done.
    """
    if not 0 < strength <= 1:
        raise CommandError(f"--strength {strength:g} is not above 0 and at most 1")
    if image is None:
        refuse_unused("without --image", "strength")
    height, width = parse_size_pair(size)
    if max(height, width) > 2048:
        raise CommandError(f"--size {size} is larger than 2048 pixels; generate smaller images")
    requests = _requests(captions, sampling.seed, count)
    start = None if image is None else _start(image, max(height, width))
    device = runtime.resolve()
    generator, digest = _open(model.model, device, runtime.dtype, sampling)
    settings: dict[str, Any] = {
        "digest": digest,
        "sampler": sampling.sampler,
        "steps": sampling.steps,
        "guidance": sampling.guidance,
        "dtype": runtime.dtype,
        "pixels": [height, width] if start is None else list(start.shape[-2:]),
    }
    if image is not None:
        settings |= {"strength": strength, "image_sha256": sha256_file(image)}
    from twofold.generate.image_files import ImageFileOptions, generate_files
    from twofold.predict.files import OutputError

    job = ImageFileOptions(
        generator, requests, out, (height, width), settings, start, strength if image else 1.0, overwrite
    )
    counts: Counter[str] = Counter()
    paths: list[Path] = []
    try:
        for row in with_progress(generate_files(job), len(requests), "generate"):
            counts[row["status"]] += 1
            if row["status"] != "failed":
                paths.append(out / row["path"])
            _report(row, out)
    except OutputError as error:
        raise CommandError(str(error), SOME_FAILED if error.started else NOTHING_STARTED) from error
    words = {"done": "generated", "kept": "kept", "failed": "failed"}
    print_line(", ".join(f"{counts[status]} {word}" for status, word in words.items() if counts[status]))
    if len(requests) > 1 and paths:
        _write_sheet(out / "sheet.png", paths, {r.name: r.caption for r in requests})
        print_line(f"contact sheet: {out / 'sheet.png'}")
    return SOME_FAILED if counts["failed"] else OK


def _requests(captions: Sequence[str], seed: int, count: int) -> list[Request]:
    """One request an image; CommandError where two would have one file."""
    from twofold.generate.image_files import Request

    found = [
        Request(f"{seed + i:04d}_{_slug(text)}", text, seed + i) for text in captions for i in range(count)
    ]
    if len({request.name for request in found}) < len(found):
        raise CommandError("two captions give the same file name; change one of them")
    return found


def _slug(caption: str) -> str:
    """A caption as a part of a file name."""
    return "-".join(re.findall(r"[a-z0-9]+", caption.lower()))[:60].strip("-") or "empty"


def _start(image: Path, longest: int) -> Tensor:
    """The image to start from, 3 h w in [0, 1], no larger than what is generated."""
    from twofold.image import longest_edge_size, read_image, resize

    pixels = read_image(image)
    h, w = pixels.shape[-2:]
    return resize(pixels, longest_edge_size(h, w, longest)).clamp(0, 1) if max(h, w) > longest else pixels


def _open(model: str, device: str, dtype: str, sampling: SamplingOptions) -> tuple[ImageGenerator, str]:
    """The generator, and the sha256 over the model's weights."""
    from twofold.environment import require_sound_torchvision

    require_sound_torchvision()
    from twofold.checkpoints import open_generator
    from twofold.generate.images import ImageGenerator

    opened = open_generator(model, device, dtype)
    sampler: Any = sampling.sampler
    return ImageGenerator(opened.backbone, sampling.steps, sampling.guidance, sampler), opened.digest


def _report(row: dict[str, Any], out: Path) -> None:
    """One image's row or line; a failure is on standard error in any case."""
    print_json(row)
    if row["status"] == "failed":
        print_error(row["error"])
    else:
        print_line(f"{out / row['path']}{'  kept' if row['status'] == 'kept' else ''}")


def _write_sheet(path: Path, images: Sequence[Path], captions: dict[str, str]) -> None:
    from twofold.image import read_image
    from twofold.visualization import sheet, write_sheet

    titles = [captions[image.stem] for image in images]
    write_sheet(path, sheet([read_image(image) for image in images], min(4, len(images)), titles))
