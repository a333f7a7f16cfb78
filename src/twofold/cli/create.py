"""`twofold create`: labelled pictures to new labelled pictures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twofold.cli.console import (
    OK,
    SOME_FAILED,
    CommandError,
    check_choice,
    parse_device,
    parse_dtype,
    print_error,
    print_json,
    print_line,
    with_progress,
)
from twofold.cli.limits import MaxPixels
from twofold.cli.usage import refuse_unused

if TYPE_CHECKING:
    from twofold.checkpoints import Model
    from twofold.data.folder import Folder
    from twofold.generate import SyntheticDataGenerator


def create(
    context: typer.Context,
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="A data folder, or one with img/ and norm/ or caption/ inside."),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="The data folder of what is created, new or begun.")
    ],
    model: Annotated[
        str, typer.Option(metavar="M", help="'embedded', a folder, or another model that draws and predicts.")
    ] = "embedded",
    task: Annotated[
        str, typer.Option(metavar="TASKS", help="Labels, comma-separated; all the model knows by default.")
    ] = "",
    strength: Annotated[
        str, typer.Option(metavar="S[,S]", help="How far a source is noised: near 0 little, 1 wholly.")
    ] = "0.6",
    per_image: Annotated[int, typer.Option(min=1, help="Samples of each source at each strength.")] = 1,
    count: Annotated[int, typer.Option(min=0, help="Only so many of the sources; 0 is all.")] = 0,
    fraction: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Only this part of the sources, in place of --count.")
    ] = 1.0,
    select: Annotated[
        str,
        typer.Option(
            help="Which ones: even, over the folder; random, by --select-seed. As in a recipe's source."
        ),
    ] = "even",
    select_seed: Annotated[int, typer.Option(min=0, help="Of a random selection.")] = 0,
    steps: Annotated[int, typer.Option(min=0, help="Looks at each sample; 30, or 50 with --compat.")] = 0,
    sampler: Annotated[
        str, typer.Option(help="ddim; dpmpp_2m, which needs fewer steps; euler; or lcm.")
    ] = "ddim",
    guidance: Annotated[
        float,
        typer.Option(help="How strictly to follow the caption; 1 is not at all more. 3, or 1 with --compat."),
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    size: Annotated[int, typer.Option(min=0, help="Longest edge created at; 0 is the source's own.")] = 0,
    label_mode: Annotated[
        str, typer.Option(help="reencode: predicted from the new picture; denoise: read off its drawing.")
    ] = "",
    mask: Annotated[str, typer.Option(help="Where labels hold: where the source's own do, or all.")] = "",
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter", metavar="SCORE<N", help="Keep what meets it, such as 'drift<20'; may be repeated."
        ),
    ] = None,
    scoring: Annotated[
        str, typer.Option(help="all, or free: only scores that need no further look of the network.")
    ] = "all",
    captioner: Annotated[
        str, typer.Option(metavar="HUB_ID", help="An image-to-text model, for sources without a caption.")
    ] = "",
    template: Annotated[
        str, typer.Option(help="Caption of sources without one; {classes} names what is in them.")
    ] = "a photograph",
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Do the I-th of N parts, such as 1/4; the others elsewhere.")
    ] = "1/1",
    batch: Annotated[int, typer.Option(min=0, help="Samples drawn together; 0: 4 on a CPU, 8 on a GPU.")] = 0,
    sheet: Annotated[
        Path | None, typer.Option(metavar="PICTURE", help="Also write a contact sheet of the first sources.")
    ] = None,
    compat: Annotated[str, typer.Option(help="'official': the walk of Diff-2-in-1's released code.")] = "",
    layout: Annotated[
        str, typer.Option(help="'official' writes nyu_nyu_T600/train/{img,norm,caption} beside, in 8 bits.")
    ] = "",
    device: Annotated[str, typer.Option(help="cpu, cuda, mps, or auto.")] = "auto",
    dtype: Annotated[str, typer.Option(help="Of the weights: float32, bfloat16 or float16.")] = "float32",
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a sample on standard output.")
    ] = False,
    max_pixels: MaxPixels = "",
) -> int:
    """Create labelled images: each source image is partially noised and denoised, then labelled by the model.

    Every sample's row says what it was made of and how, and how good it seems. Run again after a kill, the command
    does what is left; several processes may share it by --shard.
    """
    settings = creation_settings(
        strength, steps, sampler, guidance, seed, size, label_mode, mask, scoring, compat
    )
    strengths, part = _strengths(strength), _shard(shard)
    if captioner:
        refuse_unused(context, "with --captioner", "template")
    if layout:
        check_choice("--layout", layout, ("twofold", "official"))
    if not data.is_dir():
        raise CommandError(f"{data} is no folder; give a data folder")
    if out.resolve() == data.resolve():
        raise CommandError(f"--out {out} is the folder of the sources; choose another")
    from twofold.generate.folder import CreationOptions, create_samples
    from twofold.generate.scores import ScoreThreshold

    thresholds = tuple(ScoreThreshold.parse(text) for text in filters or [])
    sources = _sources(data, out)
    opened = _open(model, device, parse_dtype(dtype))
    generator = _generator(opened, sources, task, settings, template, captioner)
    together = batch or (8 if next(opened.backbone.parameters()).device.type == "cuda" else 4)
    selection: Any = check_choice("--select", select, ("even", "random"))
    options = CreationOptions(
        strengths, per_image, thresholds, together, part, count, fraction, selection, select_seed
    )
    total = len(strengths) * per_image * len(options.sources(len(sources)))
    counts: Counter[str] = Counter()
    try:
        for event in with_progress(
            create_samples(generator, sources, out, options), -(-total // part[1]), "create", as_json
        ):
            counts[event["status"]] += 1
            _report(event, as_json)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise CommandError(
            f"{reason}; what was created is whole, try a smaller --batch or --size and run again", SOME_FAILED
        ) from error
    if not as_json:
        words = ("created", "kept", "rejected", "failed")
        print_line(
            ", ".join(f"{counts[w]} {w}" for w in words if counts[w])
            + f": {out}/ (metadata.jsonl lists them)"
        )
        if counts["rejected"]:
            print_line(f"why samples were rejected, and how to make them again: {out}/rejected.jsonl")
    if sheet is not None:
        _write_sheet(sheet, out, sources, generator, as_json)
    if layout == "official":
        _write_official(out, sources, generator, strengths, as_json)
    return SOME_FAILED if counts["failed"] else OK


def creation_settings(
    strength: str,
    steps: int,
    sampler: str,
    guidance: float,
    seed: int,
    size: int,
    label_mode: str,
    mask: str,
    scoring: str,
    compat: str,
) -> Any:
    """The `GenerationConfig` of a command's options; 0 and "" are the defaults, which depend on ``compat``.

    Raises:
        CommandError: an option does not fit.
    """
    from dataclasses import replace

    from pydantic import ValidationError

    from twofold.generate.config import OFFICIAL, GenerationConfig
    from twofold.protocols import reason

    check_choice("--compat", compat or "none", ("none", "official"))
    check_choice("--label-mode", label_mode or "reencode", ("reencode", "denoise"))
    check_choice("--sampler", sampler, ("ddim", "dpmpp_2m", "euler", "lcm"))
    check_choice("--mask", mask or "source", ("source", "all"))
    check_choice("--scoring", scoring, ("all", "cheap"))
    asked = {"steps": steps, "guidance": guidance, "size": size, "label_mode": label_mode, "mask": mask}
    said: dict[str, Any] = {k: v for k, v in asked.items() if v}
    base = OFFICIAL if compat == "official" else GenerationConfig()
    try:
        return replace(
            base, strength=_strengths(strength)[0], sampler=sampler, seed=seed, scoring=scoring, **said
        )
    except ValidationError as error:
        raise CommandError(reason(error)) from error


def _strengths(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0 < s <= 1 for s in found):
        raise CommandError(
            f"--strength {text!r} is not one number above 0 and at most 1, or several joined by commas"
        )
    return found


def _shard(text: str) -> tuple[int, int]:
    i, _, n = text.partition("/")
    if not (i.isdigit() and n.isdigit() and 1 <= int(i) <= int(n)):
        raise CommandError(f"--shard {text!r} is not a part such as 1/4")
    return int(i) - 1, int(n)


def _sources(data: Path, out: Path) -> Folder:
    from twofold.data.folder import Folder
    from twofold.generate.official import index_official, is_official

    return index_official(data, out / ".sources") if is_official(data) else Folder(data)


def _open(model: str, device: str, dtype: str) -> Model:
    from twofold.environment import require_sound_torchvision

    require_sound_torchvision()
    import torch

    from twofold.checkpoints import open_generator

    return open_generator(model, parse_device(device), getattr(torch, dtype))


def _generator(
    opened: Model, sources: Folder, task: str, settings: Any, template: str, captioner: str
) -> SyntheticDataGenerator:
    from twofold.data.classes import class_names
    from twofold.generate import SyntheticDataGenerator

    names = [name.strip() for name in task.split(",") if name.strip()]
    return SyntheticDataGenerator.from_model(
        opened, names, settings, template, captioner, class_names(sources.header)
    )


def _report(event: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(event)
    if event["status"] == "failed":
        print_error(event["error"])
    elif not as_json and event["status"] != "kept":
        scores = event["row"]["provenance"]["generator"]["scores"]
        told = " ".join(f"{name} {value:.3g}" for name, value in scores.items())
        print_line(f"{event['id']}  {event['status']}  {'; '.join(event.get('reasons', [])) or told}")


def _write_sheet(
    path: Path, out: Path, sources: Folder, generator: SyntheticDataGenerator, quiet: bool
) -> None:
    from twofold.data.folder import Folder
    from twofold.generate.preview import preview_image
    from twofold.image import write_image

    tasks = {name: p.task for name, p in generator.predictors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, preview_image(Folder(out), sources, tasks))
    if not quiet:
        print_line(f"all together: {path}")


def _write_official(
    out: Path, sources: Folder, generator: SyntheticDataGenerator, strengths: tuple[float, ...], quiet: bool
) -> None:
    from twofold.data.folder import Folder
    from twofold.generate.official import export_official

    labelled = any("normals" in (row.get("targets") or {}) for row in sources.rows)
    for strength in strengths:
        start = generator.with_strength(strength).plan.start
        where = export_official(Folder(out), out, start, real=sources if labelled else None)
        if not quiet:
            print_line(f"as the released code reads it: {where}")
