"""The command `twofold create`, which generates labelled images from labelled images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from twofold.cli.command import OptionGroup
from twofold.cli.console import OK, SOME_FAILED, CommandError, counted, print_line, print_rows
from twofold.cli.generation import SampleCreationOptions, SyntheticLabelOptions, creation_settings
from twofold.cli.model import GeneratorOptions, RuntimeOptions
from twofold.cli.options import ShardText, choice, parse_shard
from twofold.cli.usage import refuse_unused
from twofold.io import first_line

if TYPE_CHECKING:
    from twofold.checkpoints import Model
    from twofold.data.folder import Folder
    from twofold.generate import SyntheticDataGenerator
    from twofold.generate.creation import CreationOptions
    from twofold.io import Shard


@dataclass(frozen=True)
class SourceOptions(OptionGroup):
    """Options that select source images."""

    title: ClassVar[str] = "Sources"
    count: Annotated[int, typer.Option(min=0, help="Use only this number of sources; 0 is all.")] = 0
    fraction: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Use only this fraction of the sources, instead of --count."),
    ] = 1.0
    select: Annotated[
        str,
        choice("--select", ("even", "random"), "Evenly spaced or random sources, as in a recipe's source."),
    ] = "even"
    select_seed: Annotated[int, typer.Option(min=0, help="Seed of a random selection.")] = 0


@dataclass(frozen=True)
class OutputOptions(OptionGroup):
    """Options of files written in addition to the data folder."""

    title: ClassVar[str] = "Output"
    sheet: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Also write a contact sheet of the first sources.")
    ] = None
    layout: Annotated[
        str,
        choice(
            "--layout",
            ("twofold", "official"),
            "'official' also writes nyu_nyu_T600/train/{img,norm,caption}, in 8 bits.",
        ),
    ] = ""


@dataclass(frozen=True)
class WorkOptions(OptionGroup):
    """Options of batching and sharding."""

    title: ClassVar[str] = "Work"
    batch: Annotated[
        int, typer.Option(min=0, help="Samples generated together; 0: 4 on a CPU, 8 on a GPU.")
    ] = 0
    shard: ShardText = "1/1"


def create(
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="A data folder, or a folder with img/ and norm/ or caption/."),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Data folder of the generated samples, new or incomplete.")
    ],
    sources: SourceOptions,
    sampling: SampleCreationOptions,
    labels: SyntheticLabelOptions,
    model: GeneratorOptions,
    runtime: RuntimeOptions,
    work: WorkOptions,
    output: OutputOptions,
    task: Annotated[
        str,
        typer.Option(
            metavar="TASKS", help="Labels, comma-separated; by default those that the sources have."
        ),
    ] = "",
    strength: Annotated[
        str,
        typer.Option(metavar="S[,S]", help="Fraction of the noise schedule added to a source, in (0, 1]."),
    ] = "0.6",
    scoring: Annotated[
        str, choice("--scoring", ("all", "cheap"), "Scores: all, or those without further forward passes.")
    ] = "all",
) -> int:
    """Create labelled images: each source image is partially noised and denoised, then labelled by the model.

    The row of each sample has its source, settings and scores. An interrupted command continues when it is run again;
    several processes may share the work with --shard.
    """
    strengths = _strengths(strength)
    settings = creation_settings(strengths[0], sampling, labels, scoring)
    if labels.captioner:
        refuse_unused("with --captioner", "template")
    if sources.select != "random":
        refuse_unused("without --select random", "select_seed")
    batch = work.batch or (8 if runtime.resolve().startswith("cuda") else 4)
    options = _creation_options(strengths, labels, sources, batch, parse_shard(work.shard))
    folder = _sources(data, out)
    generator = _generator(model.open(runtime), folder, task, settings, labels)
    counts = _create(generator, folder, out, options)
    statuses = {name: name for name in ("created", "kept", "rejected", "failed")}
    print_line(f"{counted(counts, statuses)}: {out}/ (metadata.jsonl lists them)")
    if counts["rejected"]:
        print_line(f"rejected samples, with reasons and settings: {out}/rejected.jsonl")
    if output.sheet is not None:
        _write_sheet(output.sheet, out, folder, generator)
    if output.layout == "official":
        _write_official(out, folder, generator, strengths)
    return SOME_FAILED if counts["failed"] else OK


def _creation_options(
    strengths: tuple[float, ...],
    labels: SyntheticLabelOptions,
    sources: SourceOptions,
    batch: int,
    shard: Shard,
) -> CreationOptions:
    from twofold.generate.creation import CreationOptions
    from twofold.generate.scores import ScoreThreshold

    select: Any = sources.select
    return CreationOptions(
        strengths,
        labels.per_image,
        tuple(ScoreThreshold.parse(text) for text in labels.filters or []),
        batch,
        shard,
        sources.count,
        sources.fraction,
        select,
        sources.select_seed,
    )


def _create(
    generator: SyntheticDataGenerator, folder: Folder, out: Path, options: CreationOptions
) -> Counter[str]:
    """Create the samples and return their number by status."""
    from twofold.generate.folder import create_samples

    total = len(options.strengths) * options.per_image * len(options.sources(len(folder)))
    events = create_samples(generator, folder, out, options)
    try:
        return print_rows(events, options.shard.size(total), "create", _describe)
    except RuntimeError as error:
        reason = first_line(error)
        raise CommandError(
            f"{reason}; existing samples are complete, try a smaller --batch or --size and run again",
            SOME_FAILED,
        ) from error


def _strengths(text: str) -> tuple[float, ...]:
    try:
        strengths = tuple(float(item) for item in text.split(","))
    except ValueError:
        strengths = ()
    if not strengths or not all(0 < s <= 1 for s in strengths):
        raise CommandError(
            f"--strength {text!r} is not one number above 0 and at most 1, or several joined by commas"
        )
    return strengths


def _sources(data: Path, out: Path) -> Folder:
    from twofold.compat.diff2in1_folders import index_official, is_official
    from twofold.data.folder import Folder

    if not data.is_dir():
        raise CommandError(f"{data} is not a folder; pass a data folder")
    if out.resolve() == data.resolve():
        raise CommandError(f"--out {out} is the folder of the sources; choose another")
    return index_official(data, out / ".sources") if is_official(data) else Folder(data)


def _generator(
    opened: Model, sources: Folder, task: str, settings: Any, labels: SyntheticLabelOptions
) -> SyntheticDataGenerator:
    from twofold.data.classes import class_names
    from twofold.generate import SyntheticDataGenerator
    from twofold.generate.labels import default_tasks

    names = [name.strip() for name in task.split(",") if name.strip()]
    if not names:
        tasks = {name: opened.predictor(name).task for name in opened.tasks}
        names = default_tasks(tasks, {target for row in sources.rows for target in row.get("targets") or {}})
    return SyntheticDataGenerator.from_model(
        opened, names, settings, labels.template, labels.captioner, class_names(sources.header)
    )


def _describe(event: dict[str, Any]) -> str:
    """The line of a sample; "" if it existed."""
    if event["status"] == "kept":
        return ""
    scores = event["row"]["provenance"]["generator"]["scores"]
    values = " ".join(f"{name} {value:.3g}" for name, value in scores.items())
    return f"{event['id']}  {event['status']}  {'; '.join(event.get('reasons', [])) or values}"


def _write_sheet(path: Path, out: Path, sources: Folder, generator: SyntheticDataGenerator) -> None:
    from twofold.data.folder import Folder
    from twofold.generate.preview import preview_image
    from twofold.visualization import write_sheet

    tasks = {name: p.task for name, p in generator.predictors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_sheet(path, preview_image(Folder(out), sources, tasks))
    print_line(f"contact sheet: {path}")


def _write_official(
    out: Path, sources: Folder, generator: SyntheticDataGenerator, strengths: tuple[float, ...]
) -> None:
    from twofold.compat.diff2in1_folders import export_official
    from twofold.data.folder import Folder

    labelled = any("normals" in (row.get("targets") or {}) for row in sources.rows)
    for strength in strengths:
        start = generator.with_strength(strength).plan.start
        path = export_official(Folder(out), out, start, real=sources if labelled else None)
        print_line(f"in the layout of the released code: {path}")
