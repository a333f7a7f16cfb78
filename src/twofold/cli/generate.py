"""`twofold generate`: captions, or a picture and captions, to new pictures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twofold.cli.console import OK, Stop, device_of, emit, line, one_of, size_pair, track

if TYPE_CHECKING:
    from torch import Tensor

    from twofold.checkpoints import Model


def generate(
    captions: Annotated[
        list[str], typer.Argument(metavar="CAPTION...", help="What to draw; one picture or more of each.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where pictures are written.")] = Path("pictures"),
    count: Annotated[int, typer.Option(min=1, max=10000, help="Pictures of each caption.")] = 1,
    like: Annotated[Path | None, typer.Option(metavar="PICTURE", help="A picture to start from.")] = None,
    strength: Annotated[
        float, typer.Option(help="How much of --like is drawn anew: near 0 little, 1 all.")
    ] = 0.6,
    size: Annotated[
        str,
        typer.Option(
            metavar="WxH", help="Width x height in pixels; with --like, its own up to the longer of the two."
        ),
    ] = "256x192",
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Denoising steps.")] = 40,
    sampler: Annotated[str, typer.Option(help="ddim, or dpm, which needs a third of the steps.")] = "ddim",
    guidance: Annotated[
        float, typer.Option(help="How strictly to follow the caption; 1 is not at all more.")
    ] = 3.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the first picture; the others count on.")] = 0,
    model: Annotated[str, typer.Option(metavar="M", help="'embedded', or a checkpoint folder.")] = "embedded",
    device: Annotated[str, typer.Option(help="cpu, cuda, mps, or auto.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Draw again what is there.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a picture on standard output.")
    ] = False,
) -> int:
    """Draw pictures from captions, or from a picture and captions.

    Writes SEED_CAPTION.png for each, with the settings inside it (PNG text 'twofold'), and sheet.png when
    there are several. A picture depends on its caption, seed and settings only.
    """
    if not 0 < strength <= 1:
        raise Stop(f"--strength {strength:g} is not above 0 and at most 1")
    one_of("--sampler", sampler, ("ddim", "dpm"))
    height, width = size_pair(size)
    if max(height, width) > 2048:
        raise Stop(f"--size {size} is larger than 2048 pixels; draw smaller")
    plan = [(caption, seed + i) for caption in captions for i in range(count)]
    paths = [out / f"{number:04d}_{_slug(caption)}.png" for caption, number in plan]
    taken = [p for p in paths if p.exists()]
    if taken and not overwrite:
        raise Stop(f"{taken[0]} exists; use --overwrite, another --seed, or another --out")
    if len(set(paths)) < len(paths):
        raise Stop("two captions would give files of one name; word one of them otherwise")
    start = None if like is None else _start(like, max(height, width))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Stop(f"{out} cannot be written ({error.strerror}); choose another --out") from error

    opened = _open(model, device)
    about: dict[str, Any] = {"model": model, "digest": opened.digest, "sampler": sampler}
    about |= {"steps": steps, "guidance": guidance}
    if like is not None:
        about |= {"like": like.as_posix(), "strength": strength}
    drawn = []
    records = _draw(opened, plan, (height, width), start, strength, steps, guidance, sampler)
    for path, (caption, number), picture in zip(
        paths, plan, track(records, len(plan), "draw", as_json), strict=True
    ):
        row = {"path": path.as_posix(), "caption": caption, "seed": number, **about}
        _write(path, picture, row)
        drawn.append(picture)
        if as_json:
            emit(row)
        else:
            line(str(path))
    if len(drawn) > 1:
        _write_sheet(out / "sheet.png", drawn, [caption for caption, _ in plan])
        if not as_json:
            line(f"all together: {out / 'sheet.png'}")
    return OK


def _slug(caption: str) -> str:
    """A caption as a part of a file name."""
    return "-".join(re.findall(r"[a-z0-9]+", caption.lower()))[:60].strip("-") or "empty"


def _start(like: Path, longest: int) -> Tensor:
    """The picture to start from, 1 3 h w in [0, 1], no larger than is drawn."""
    from twofold.image import longest_edge_size, read_image, resize

    picture = read_image(like)[None]
    h, w = picture.shape[-2:]
    return resize(picture, longest_edge_size(h, w, longest)).clamp(0, 1) if max(h, w) > longest else picture


def _open(model: str, device: str) -> Model:
    from twofold.environment import require_sound_torchvision

    require_sound_torchvision()
    from twofold.checkpoints import open_model

    return open_model(model, device_of(device))


def _draw(
    opened: Model,
    plan,
    size: tuple[int, int],
    start: Tensor | None,
    strength: float,
    steps: int,
    guidance: float,
    sampler: Any,
):
    """One picture 3 h w after the other; one at a time, so that memory does not grow with their number."""
    from twofold.synthesizer import Synthesizer

    synthesizer = Synthesizer(opened.backbone, steps, guidance, sampler)
    for caption, seed in plan:
        yield synthesizer([caption], size, start, strength if start is not None else 1.0, seed)[0]


def _write(path: Path, picture: Tensor, row: dict[str, Any]) -> None:
    """A PNG that says inside how it was made."""
    from PIL import Image, PngImagePlugin

    from twofold.image import atomic_write
    from twofold.io import to_json

    told = PngImagePlugin.PngInfo()
    told.add_itxt("twofold", to_json(row))
    levels = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    with atomic_write(path) as temporary:
        Image.fromarray(levels).save(temporary, format="PNG", pnginfo=told)


def _write_sheet(path: Path, pictures: list[Tensor], titles: list[str]) -> None:
    from twofold.image import write_image
    from twofold.show import sheet

    write_image(path, sheet(pictures, min(4, len(pictures)), titles))
