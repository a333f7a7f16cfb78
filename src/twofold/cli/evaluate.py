"""`twofold evaluate`: scores by a published protocol, with a report."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from twofold.cli.command import OptionGroup
from twofold.cli.console import (
    OK,
    SOME_FAILED,
    CommandError,
    print_error,
    print_json,
    print_line,
    print_result,
    with_progress,
)
from twofold.cli.model import (
    CheckpointOptions,
    InferenceOptions,
    ModelOptions,
    RuntimeOptions,
    check_model_options,
    open_from_options,
)
from twofold.cli.options import ShardText, choice, parse_shard
from twofold.cli.usage import refuse_unused, warn_unused

if TYPE_CHECKING:
    from twofold.evaluate import Benchmark, EvalProtocol, EvalRequest, Evaluation, RunMetadata

# Options of a model, which have no effect on stored predictions.
_OF_MODEL = (
    "model", "task", "size", "odd_sizes", "seed", "ensemble", "steps", "method", "base", "revision", "variant",
    "network", "device", "dtype",
)  # fmt: skip

# Options of stored predictions.
_OF_FILES = ("scale", "frame", "stretch", "layout")


@dataclass(frozen=True)
class EvalOptions(OptionGroup):
    """What is scored, and by which rules."""

    title: ClassVar[str] = "Benchmark"
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Data folder with ground truth; 'twofold data convert' makes them."),
    ] = None
    benchmark: Annotated[
        str,
        typer.Option(metavar="NAME", help="Test set that --data holds, see --list; or package.module:NAME."),
    ] = ""
    protocol: Annotated[
        str,
        typer.Option(metavar="ID", help="Evaluation protocol; by default the benchmark's, or the data's."),
    ] = ""
    count: Annotated[int, typer.Option(min=0, help="Only the first N images; 0 for all.")] = 0
    allow_synthetic: Annotated[
        bool, typer.Option("--allow-synthetic", help="Score rendered and generated images too.")
    ] = False
    group: Annotated[
        str,
        typer.Option(
            metavar="KEY", help="Also report scores by an entry of the manifest's rows, such as scene."
        ),
    ] = ""
    shard: ShardText = "1/1"


@dataclass(frozen=True)
class StoredPredictions(OptionGroup):
    """Predictions in files."""

    title: ClassVar[str] = "Stored predictions"
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Score these files, ID.npy or a predictions.jsonl, instead of a model."
        ),
    ] = None
    scale: Annotated[
        float | None,
        typer.Option(help="Factor that stored values are multiplied by, such as 0.001 for millimetres."),
    ] = None
    frame: Annotated[
        str,
        choice(
            "--frame",
            ("RUB", "LUB", "RDB", "RDF"),
            "Axes of stored normals: x right or left, y up or down, z back (to the camera) or front.",
        ),
    ] = "RUB"
    stretch: Annotated[
        bool,
        typer.Option(
            "--stretch",
            help="Stored maps are of images resized without their aspect ratio; resize them back.",
        ),
    ] = False
    layout: Annotated[str, choice("--layout", ("diff2in1",), "Stored as by Diff-2-in-1's test.py.")] = ""


@dataclass(frozen=True)
class ReportOptions(OptionGroup):
    """What is written."""

    title: ClassVar[str] = "Output"
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of rows and report.")] = Path("evaluation")
    images: Annotated[bool, typer.Option("--images/--no-images", help="Example images in report.html.")] = (
        True
    )


def evaluate(
    options: EvalOptions,
    stored: StoredPredictions,
    model: ModelOptions,
    checkpoint: CheckpointOptions,
    inference: InferenceOptions,
    runtime: RuntimeOptions,
    output: ReportOptions,
    task: Annotated[
        str, typer.Option(help="Task of the model; by default the one that the protocol scores.")
    ] = "",
    seed: Annotated[
        int | None, typer.Option(help="Seed of noise and ensembles; by default the protocol's.")
    ] = None,
    list_all: Annotated[
        bool, typer.Option("--list", help="List benchmarks and protocols, and exit.")
    ] = False,
) -> int:
    """Score a model, or any tool's predictions, by a published protocol.

    Writes rows.jsonl (a row an image), report.json, report.md and report.html, in which the scores stand beside the
    published ones. Run again after a kill, it continues. Every missing or broken prediction is reported.
    """
    if list_all:
        _list()
        return OK
    if options.data is None:
        raise CommandError(
            "pass --data DIR, and --benchmark NAME or --protocol ID; twofold evaluate --list lists them"
        )
    if stored.predictions is not None:
        refuse_unused("with --predictions, which are there already", *_OF_MODEL)
    else:
        refuse_unused("without --predictions, because they are of stored ones", *_OF_FILES)
        check_model_options(model.model, model.network)
    from twofold.data.folder import Folder
    from twofold.evaluate import EvalRequest, evaluation_from_model, get_benchmark, select_task

    folder = Folder(options.data)
    benchmark = get_benchmark(options.benchmark) if options.benchmark else None
    protocols = _protocols(benchmark, options.protocol, folder.header)
    selected = options.count, parse_shard(options.shard), options.allow_synthetic, options.group
    request = EvalRequest(folder, protocols[0], output.out, benchmark, *selected)
    if stored.predictions is not None:
        return _run(*_evaluation_of_files(request, stored), output.images)
    longest, device = inference.longest_edge(), runtime.resolve()
    opened = open_from_options(model, checkpoint, device, runtime.dtype)
    name, protocol = select_task(opened, protocols, task)
    predictor = inference.apply(opened.predictor(name))
    if not predictor.is_stochastic:
        warn_unused("on a deterministic model", "seed")
    request = replace(request, protocol=protocol)
    job, metadata = evaluation_from_model(request, predictor, longest, seed, runtime.dtype, model.model)
    return _run(job, replace(metadata, device=device), output.images)


def _evaluation_of_files(request: EvalRequest, stored: StoredPredictions) -> tuple[Evaluation, RunMetadata]:
    from twofold.evaluate import evaluation_from_files
    from twofold.targets import target_spec

    target = target_spec(request.protocol.target)
    if stored.layout:
        refuse_unused(f"with --layout {stored.layout}, which implies them", "scale", "frame", "stretch")
    if target.is_points:
        refuse_unused("on people, whose results are one file", "stretch", "layout")
    if target.is_direction:
        refuse_unused("on normals, whose files have a range of their own", "scale")
    else:
        refuse_unused(f"on {request.protocol.target}: only vectors have a frame", "frame")
    assert stored.predictions is not None
    return evaluation_from_files(
        request, stored.predictions, stored.scale, stored.frame, stored.stretch, stored.layout
    )


def _protocols(benchmark: Benchmark | None, protocol: str, header: dict[str, Any]) -> list[EvalProtocol]:
    """The protocols to choose from: that of --protocol, else the benchmark's in their order, else the data's own."""
    from twofold.evaluate import get_eval_protocol

    if benchmark is not None:
        names = [protocol] if protocol else [p.name for p in benchmark.protocols]
        return [benchmark.protocol(name) for name in names]
    if protocol:
        return [get_eval_protocol(protocol)]
    entry = header.get("eval")
    named = entry.get("protocol", "") if isinstance(entry, dict) else ""
    if not named:
        raise CommandError("pass --benchmark NAME or --protocol ID; twofold evaluate --list lists them")
    return [get_eval_protocol(str(named), trusted=False)]


def _run(job: Evaluation, metadata: RunMetadata, images: bool) -> int:
    """Runs the evaluation, and prints and writes its report."""
    from twofold.evaluate import make_report, run
    from twofold.evaluate.markdown import plain_table
    from twofold.evaluate.tables import counts_text, group_table, own_table, published_tables

    metadata = replace(metadata, command=["twofold", *sys.argv[1:]])
    total = len(metadata.selected)
    kept = 0
    for row in with_progress(run(job, range(total)), job.shard.size(total), "evaluate"):
        kept += bool(row.get("kept"))
        if row["status"] == "failed":
            print_error(f"{row['id']}: {row['error']}")
    report, paths = make_report(job, metadata, images)
    print_json(report)
    for title, table in [("", own_table(report)), ("", group_table(report)), *published_tables(report)[0]]:
        if title:
            print_result(title)
        for text in plain_table(table) if table.rows else ():
            print_result(text)
    for warning in report["warnings"]:
        print_result(f"warning: {warning}")
    there = f" ({kept} kept)" if kept else ""
    print_line(f"{counts_text(report['counts'])}{there}; see {paths['html']}")
    return SOME_FAILED if report["counts"]["failed"] else OK


def _list() -> None:
    from twofold.evaluate import BENCHMARKS, EVAL_PROTOCOLS

    print_result("benchmarks (--benchmark), their data, and the protocol they are scored by")
    for one in BENCHMARKS.values():
        facts = {"title": one.title, "count": one.count, "converter": one.converter, "split": one.split}
        print_json({"benchmark": one.id, **facts, "protocols": [p.name for p in one.protocols]})
        data = f"{one.converter} {one.split}, {one.count} images"
        print_result(f"  {one.name:24} {one.protocols[0].name:22} {data:44} {one.title}")
    print_result("protocols (--protocol), also for data of your own")
    for protocol in EVAL_PROTOCOLS.values():
        print_json({"protocol": protocol.id, "title": protocol.title, "target": protocol.target})
        print_result(f"  {protocol.id:24} {protocol.target:10} {protocol.title}")
