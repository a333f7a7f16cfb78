"""The commands `twofold metrics`, which compute distances between sets of images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twofold.cli.command import add_command
from twofold.cli.console import (
    OK,
    SOME_FAILED,
    CommandError,
    print_error,
    print_json,
    print_result,
    with_progress,
)
from twofold.cli.model import DeviceOptions, GeneratorOptions
from twofold.cli.options import GeneralOptions, ImageLimit

if TYPE_CHECKING:
    from twofold.evaluate.image_sets import ImageSource
    from twofold.predict.inputs import Problem

metrics = typer.Typer(help="Distances between sets of images.", rich_markup_mode=None)

FOLDERS = "folder of images, a data folder, or the output of 'twofold generate'"


def fid_command(
    real: Annotated[str, typer.Argument(metavar="REAL", help=f"Real images: a {FOLDERS}.")],
    generated: Annotated[str, typer.Argument(metavar="GENERATED", help=f"Generated images: a {FOLDERS}.")],
    model: GeneratorOptions,
    device: DeviceOptions,
    pixels: Annotated[
        int, typer.Option(metavar="N", help="Edge of the squares that images are resized to.")
    ] = 256,
    count: Annotated[int, typer.Option(min=0, help="Only the first N images of each; 0 for all.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random subsets of KID.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Images computed together.")] = 8,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="New file to write the result to as well.")
    ] = None,
) -> int:
    """Compute FID and KID between real and generated images, in the features of a model.

    The features are those of the model's image encoder or U-Net, not of Inception: results are comparable only for the
    same network, size and real images, which are part of the result. Images that cannot be read are reported and
    skipped, and the exit code is 1.
    """
    if out is not None and out.exists():
        raise CommandError(f"{out} exists and is not overwritten; choose another --out")
    from twofold.checkpoints import open_model
    from twofold.environment import require_sound_torchvision
    from twofold.evaluate.feature_network import feature_network
    from twofold.evaluate.image_sets import ImageSet, distance_warnings, image_set_distances, write_distances

    require_sound_torchvision()
    both_sources = [_sources(path, out) for path in (real, generated)]
    network = feature_network(open_model(model.model, device.resolve()), pixels)
    sets = []
    for path, sources in zip((real, generated), both_sources, strict=True):
        total = min(count, len(sources)) if count else len(sources)
        sets.append(ImageSet(path, with_progress(islice(sources, total), total, Path(path).name)))
    result = image_set_distances(*sets, network, seed, batch)
    for images in sets:
        for _, error in images.failed:
            print_error(f"skipped: {error}")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_distances(out, result)
    print_json(result)
    _print(result)
    for warning in distance_warnings(result):
        print_result(f"warning: {warning}")
    return SOME_FAILED if any(images.failed for images in sets) else OK


def compare(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE.json...", help="Results of 'twofold metrics fid --out'.")
    ],
) -> int:
    """Compare FID and KID of several generated sets.

    Results of different feature networks, sizes or real images are an error.
    """
    from twofold.evaluate.image_sets import check_comparable, read_distances

    results = [read_distances(path) for path in files]
    warnings = check_comparable(results)
    print_json({"results": results, "warnings": warnings})
    print_result(f"{'FID':>10} {'KID':>10} {'images':>7}  generated")
    for result in results:
        generated = result["generated"]
        print_result(
            f"{result['fid']:10.4g} {result['kid']:10.4g} {generated['images']:7}  {generated['path']}"
        )
    for warning in warnings:
        print_result(f"warning: {warning}")
    return OK


add_command(metrics, fid_command, "fid", ImageLimit, GeneralOptions)
add_command(metrics, compare, None, GeneralOptions)


def _sources(text: str, out: Path | None) -> Sequence[ImageSource]:
    """The images of a data folder, of a folder of `twofold generate`, or of any other folder."""
    from twofold.data import Folder
    from twofold.evaluate.image_sets import ImageSource
    from twofold.generate.image_files import generated_images
    from twofold.image import read_image
    from twofold.predict.inputs import find_inputs

    path = Path(text)
    if (path / "metadata.jsonl").is_file():
        folder = Folder(path, targets=())
        return [ImageSource(name, lambda i=i: folder[i].image) for i, name in enumerate(folder.ids)]
    if (path / "generated.jsonl").is_file():
        paths = generated_images(path)
    else:
        skipped: list[Problem] = []
        inputs, problems = find_inputs([text], out or path / "metrics.json", skipped)
        if problems:
            raise CommandError(problems[0].error)
        for problem in skipped:
            print_error(f"skipped: {problem.error}")
        paths = [file.path for file in inputs]
    return [ImageSource(str(image), lambda image=image: read_image(image)) for image in paths]


def _print(result: dict[str, Any]) -> None:
    network, subsets = result["network"], result["kid_subsets"]
    spread = f"{subsets['mean']:.4g} ± {subsets['std']:.2g}"
    print_result(f"FID {result['fid']:.4g}")
    print_result(f"KID {result['kid']:.4g} ({spread} over {subsets['subsets']} subsets of {subsets['size']})")
    for kind in ("real", "generated"):
        failed = f", {result[kind]['failed']} skipped" if result[kind]["failed"] else ""
        print_result(f"{kind:10} {result[kind]['images']} images{failed}: {result[kind]['path']}")
    print_result(
        f"features   {network['dimensions']} of {network['name']} ({network['sha256'][:12]}): {network['layer']}"
    )
    print_result(f"           at {network['pixels']} x {network['pixels']} pixels, seed {result['seed']}")
