"""The command `twofold evaluate`, which scores predictions by a published protocol."""

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
_MODEL_OPTIONS = (
    "model", "task", "size", "odd_sizes", "seed", "ensemble", "steps", "method", "base", "revision", "variant",
    "network", "device", "dtype",
)  # fmt: skip

# Options of stored predictions, which have no effect on a model.
_STORED_OPTIONS = ("scale", "frame", "stretch", "layout")


@dataclass(frozen=True)
class EvalOptions(OptionGroup):
    """Options of the data and the protocol."""

    title: ClassVar[str] = "Benchmark"
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Data folder with ground truth; 'twofold data convert' makes them."),
    ] = None
    benchmark: Annotated[
        str,
        typer.Option(metavar="NAME", help="Test set in --data, see --list; or package.module:NAME."),
    ] = ""
    protocol: Annotated[
        str,
        typer.Option(
            metavar="ID", help="Evaluation protocol; by default that of the benchmark or of the data."
        ),
    ] = ""
    count: Annotated[int, typer.Option(min=0, help="Only the first N images; 0 for all.")] = 0
    allow_synthetic: Annotated[
        bool, typer.Option("--allow-synthetic", help="Also score rendered and generated images.")
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
    """Options of stored predictions."""

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
            help="Resize maps of another aspect ratio to that of their image.",
        ),
    ] = False
    layout: Annotated[str, choice("--layout", ("diff2in1",), "Read the files of Diff-2-in-1's test.py.")] = ""


@dataclass(frozen=True)
class ReportOptions(OptionGroup):
    """Options of the report."""

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
    """Score a model, or stored predictions of any program, by a published protocol.

    Writes rows.jsonl (a row for each image), and report.json, report.md and report.html with the scores and published
    scores. An interrupted command continues when it is run again. Every missing or damaged prediction is reported.
    """
    if list_all:
        _list()
        return OK
    if options.data is None:
        raise CommandError(
            "pass --data DIR, and --benchmark NAME or --protocol ID; twofold evaluate --list lists them"
        )
    if stored.predictions is not None:
        refuse_unused("with --predictions, which need no model", *_MODEL_OPTIONS)
    else:
        refuse_unused("without --predictions", *_STORED_OPTIONS)
        check_model_options(model.model, model.network)
    from twofold.data.folder import Folder
    from twofold.evaluate import EvalRequest, evaluation_from_model, get_benchmark, select_task

    folder = Folder(options.data)
    benchmark = get_benchmark(options.benchmark) if options.benchmark else None
    protocols = _protocols(benchmark, options.protocol, folder.header)
    selected = options.count, parse_shard(options.shard), options.allow_synthetic, options.group
    request = EvalRequest(folder, protocols[0], output.out, benchmark, *selected)
    if stored.predictions is not None:
        return _run(*_evaluation_from_files(request, stored), output.images)
    longest, device = inference.longest_edge(), runtime.resolve()
    opened = open_from_options(model, checkpoint, device, runtime.dtype)
    name, protocol = select_task(opened, protocols, task)
    predictor = inference.apply(opened.predictor(name))
    if not predictor.is_stochastic:
        warn_unused("on a deterministic model", "seed")
    request = replace(request, protocol=protocol)
    job, metadata = evaluation_from_model(request, predictor, longest, seed, runtime.dtype, model.model)
    return _run(job, replace(metadata, device=device), output.images)


def _evaluation_from_files(request: EvalRequest, stored: StoredPredictions) -> tuple[Evaluation, RunMetadata]:
    from twofold.evaluate import evaluation_from_files
    from twofold.targets import target_spec

    target = target_spec(request.protocol.target)
    if stored.layout:
        refuse_unused(f"with --layout {stored.layout}, which implies them", "scale", "frame", "stretch")
    if target.is_points:
        refuse_unused("on keypoints, which are stored in one file", "stretch", "layout")
    if target.is_direction:
        refuse_unused("on normals, whose range follows from the file format", "scale")
    else:
        refuse_unused(f"on {request.protocol.target}: only vectors have a frame", "frame")
    assert stored.predictions is not None
    return evaluation_from_files(
        request, stored.predictions, stored.scale, stored.frame, stored.stretch, stored.layout
    )


def _protocols(benchmark: Benchmark | None, protocol: str, header: dict[str, Any]) -> list[EvalProtocol]:
    """The protocols to choose from: that of --protocol, else those of the benchmark, else that of the data's header."""
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
    """Run an evaluation, and print and write its report."""
    from twofold.evaluate import make_report, run
    from twofold.evaluate.markdown import plain_table
    from twofold.evaluate.tables import counts_text, group_table, own_table, published_tables

    metadata = replace(metadata, command=["twofold", *sys.argv[1:]])
    total = len(metadata.selected)
    existing = 0
    for row in with_progress(run(job, range(total)), job.shard.size(total), "evaluate"):
        existing += bool(row.get("kept"))
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
    kept = f" ({existing} kept)" if existing else ""
    print_line(f"{counts_text(report['counts'])}{kept}; see {paths['html']}")
    return SOME_FAILED if report["counts"]["failed"] else OK


def _list() -> None:
    from twofold.evaluate import BENCHMARKS, EVAL_PROTOCOLS

    print_result("benchmarks (--benchmark), their default protocol and their data")
    for item in BENCHMARKS.values():
        data = {"title": item.title, "count": item.count, "converter": item.converter, "split": item.split}
        print_json({"benchmark": item.id, **data, "protocols": [p.name for p in item.protocols]})
        text = f"{item.converter} {item.split}, {item.count} images"
        print_result(f"  {item.name:24} {item.protocols[0].name:22} {text:44} {item.title}")
    print_result("protocols (--protocol), which also score your own data")
    for protocol in EVAL_PROTOCOLS.values():
        print_json({"protocol": protocol.id, "title": protocol.title, "target": protocol.target})
        print_result(f"  {protocol.id:24} {protocol.target:10} {protocol.title}")
