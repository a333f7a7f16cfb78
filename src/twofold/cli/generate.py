"""`twofold generate`: captions, or a picture and captions, to new pictures."""

from __future__ import annotations

import hashlib
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
    check_choice,
    parse_device,
    parse_dtype,
    parse_size_pair,
    print_error,
    print_json,
    print_line,
    with_progress,
)
from twofold.cli.limits import MaxPixels
from twofold.cli.usage import refuse_unused

if TYPE_CHECKING:
    from torch import Tensor

    from twofold.generate.image_files import Request
    from twofold.generate.images import ImageGenerator


def generate(
    context: typer.Context,
    captions: Annotated[
        list[str], typer.Argument(metavar="CAPTION...", help="What to draw; one picture or more of each.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where pictures are written.")] = Path("images"),
    count: Annotated[int, typer.Option(min=1, max=10000, help="Pictures of each caption.")] = 1,
    image: Annotated[
        Path | None, typer.Option(metavar="IMAGE", help="Image to start from (img2img).")
    ] = None,
    strength: Annotated[
        float, typer.Option(help="How much of --image is drawn anew: near 0 little, 1 all.")
    ] = 0.6,
    size: Annotated[
        str,
        typer.Option(
            metavar="WxH", help="Width x height in pixels; with --image, its own up to the longer of the two."
        ),
    ] = "256x192",
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Denoising steps.")] = 40,
    sampler: Annotated[
        str, typer.Option(help="ddim, or dpmpp_2m, which needs a third of the steps.")
    ] = "ddim",
    guidance: Annotated[
        float, typer.Option(help="How strictly to follow the caption; 1 is not at all more.")
    ] = 3.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the first picture; the others count on.")] = 0,
    model: Annotated[str, typer.Option(metavar="M", help="'embedded', or a checkpoint folder.")] = "embedded",
    device: Annotated[str, typer.Option(help="cpu, cuda, mps, or auto.")] = "auto",
    dtype: Annotated[str, typer.Option(help="Of the weights: float32, bfloat16 or float16.")] = "float32",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Generate again what is there.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a picture on standard output.")
    ] = False,
    max_pixels: MaxPixels = "",
) -> int:
    """Generate images from captions, or from an image and captions.

    Writes SEED_CAPTION.png for each, with its settings inside (PNG text 'twofold'), a row in generated.jsonl, and
    sheet.png when there are several. An image depends on its caption, seed and settings only. What is there already
    with the same settings is kept; an image that fails is reported and the rest done.
    """
    if not 0 < strength <= 1:
        raise CommandError(f"--strength {strength:g} is not above 0 and at most 1")
    if image is None:
        refuse_unused(context, "without --image", "strength")
    check_choice("--sampler", sampler, ("ddim", "dpmpp_2m"))
    height, width = parse_size_pair(size)
    if max(height, width) > 2048:
        raise CommandError(f"--size {size} is larger than 2048 pixels; draw smaller")
    requests = _requests(captions, seed, count)
    start = None if image is None else _start(image, max(height, width))
    where, kind = parse_device(device), parse_dtype(dtype)
    synthesizer, digest = _open(model, where, kind, steps, guidance, sampler)
    pixels = [height, width] if start is None else list(start.shape[-2:])
    settings: dict[str, Any] = {"digest": digest, "sampler": sampler, "steps": steps, "guidance": guidance}
    settings |= {"dtype": kind, "pixels": pixels}
    if image is not None:
        settings |= {"strength": strength, "image_sha256": hashlib.sha256(image.read_bytes()).hexdigest()}
    from twofold.generate.image_files import ImageFileOptions, generate_files
    from twofold.predict.files import OutputError

    job = ImageFileOptions(
        synthesizer, requests, out, (height, width), settings, start, strength if image else 1.0, overwrite
    )
    counts: Counter[str] = Counter()
    paths: list[Path] = []
    try:
        for row in with_progress(generate_files(job), len(requests), "generate", as_json):
            counts[row["status"]] += 1
            if row["status"] != "failed":
                paths.append(out / row["path"])
            _report(row, out, as_json)
    except OutputError as error:
        raise CommandError(str(error), SOME_FAILED if error.started else NOTHING_STARTED) from error
    if len(requests) > 1 and paths:
        _write_sheet(out / "sheet.png", paths, {r.name: r.caption for r in requests})
    if not as_json:
        words = {"done": "generated", "kept": "kept", "failed": "failed"}
        print_line(", ".join(f"{counts[status]} {word}" for status, word in words.items() if counts[status]))
        if len(requests) > 1 and paths:
            print_line(f"all together: {out / 'sheet.png'}")
    return SOME_FAILED if counts["failed"] else OK


def _requests(captions: Sequence[str], seed: int, count: int) -> list[Request]:
    """One request an image; CommandError where two would have one file."""
    from twofold.generate.image_files import Request

    found = [
        Request(f"{seed + i:04d}_{_slug(text)}", text, seed + i) for text in captions for i in range(count)
    ]
    if len({request.name for request in found}) < len(found):
        raise CommandError("two captions would give files of one name; word one of them otherwise")
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


def _open(
    model: str, device: str, dtype: str, steps: int, guidance: float, sampler: Any
) -> tuple[ImageGenerator, str]:
    """The synthesizer, and the sha256 over the model's weights."""
    from twofold.environment import require_sound_torchvision

    require_sound_torchvision()
    from twofold.checkpoints import open_generator
    from twofold.generate.images import ImageGenerator

    opened = open_generator(model, device, dtype)
    return ImageGenerator(opened.backbone, steps, guidance, sampler), opened.digest


def _report(row: dict[str, Any], out: Path, as_json: bool) -> None:
    """One image's line: JSON for programs, words for people; a failure is on standard error in both."""
    if as_json:
        print_json(row)
    if row["status"] == "failed":
        print_error(row["error"])
    elif not as_json:
        print_line(f"{out / row['path']}{'  kept' if row['status'] == 'kept' else ''}")


def _write_sheet(path: Path, images: Sequence[Path], captions: dict[str, str]) -> None:
    from twofold.image import read_image, write_image
    from twofold.visualization import sheet

    titles = [captions[image.stem] for image in images]
    write_image(path, sheet([read_image(image) for image in images], min(4, len(images)), titles))
