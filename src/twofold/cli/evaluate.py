"""`twofold evaluate`: scores by a published protocol, with a report."""

from __future__ import annotations

import sys
from dataclasses import replace
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
from twofold.cli.predict import (
    Method,
    NetworkCode,
    OddSizes,
    Source,
    _longest,
    check_source,
    open_source,
)
from twofold.cli.usage import refuse_unused, warn_unused

# Options of a model, which stored predictions have no use for.
_OF_MODEL = (
    "model", "task", "size", "odd_sizes", "seed", "ensemble", "steps", "method", "base", "network", "device", "dtype",
)  # fmt: skip

# Options of stored predictions.
_OF_FILES = ("scale", "frame", "stretch", "layout")

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twofold.evaluate import Benchmark, EvalProtocol, Evaluation, RunMetadata
    from twofold.predict.base import BasePredictor


def evaluate(
    context: typer.Context,
    benchmark: Annotated[
        str,
        typer.Option(metavar="NAME", help="Test set that --data holds, see --list; or package.module:NAME."),
    ] = "",
    protocol: Annotated[
        str, typer.Option(metavar="ID", help="How to score one's own data, or another way for a benchmark.")
    ] = "",
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Data folder with truth; 'twofold data convert' makes them."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="M", help="'embedded', a name of 'twofold models', a hub id, a folder or a file."
        ),
    ] = "embedded",
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Score these files, ID.npy or a predictions.jsonl, instead of a model."
        ),
    ] = None,
    task: Annotated[
        str, typer.Option(help="Of the model; by default the one that the protocol scores.")
    ] = "",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where rows and report are written.")] = Path(
        "evaluation"
    ),
    count: Annotated[int, typer.Option(min=0, help="The first so many pictures; 0 for all.")] = 0,
    size: Annotated[
        str,
        typer.Option(
            metavar="N", help="Longest edge the model works at, or 'native'; the protocol's by default."
        ),
    ] = "",
    seed: Annotated[
        int | None, typer.Option(help="Of whatever is random; the protocol's by default.")
    ] = None,
    ensemble: Annotated[int, typer.Option(min=1, max=100, help="Answers to draw and merge.")] = 1,
    steps: Annotated[int, typer.Option(min=0, help="Looks of a multi-step model; its own by default.")] = 0,
    odd_sizes: OddSizes = "pad",
    scale: Annotated[
        float | None,
        typer.Option(help="What stored predictions are multiplied by, such as 0.001 for millimetres."),
    ] = None,
    frame: Annotated[str, typer.Option(help="Of stored normals: RUB, LUB, RDB or RDF.")] = "RUB",
    stretch: Annotated[
        bool,
        typer.Option(
            "--stretch", help="Stored maps are of images squeezed to their shape; stretch them back."
        ),
    ] = False,
    layout: Annotated[
        str,
        typer.Option(help="Of stored predictions: 'diff2in1' for what Diff-2-in-1's test.py writes."),
    ] = "",
    shard: Annotated[
        str, typer.Option(metavar="K/N", help="This process's share; start N of them with one --out.")
    ] = "1/1",
    allow_synthetic: Annotated[
        bool, typer.Option("--allow-synthetic", help="Score rendered and generated pictures too.")
    ] = False,
    group: Annotated[
        str,
        typer.Option(metavar="KEY", help="Scores apart by an entry of the manifest's rows, such as scene."),
    ] = "",
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="Example images in report.html.")
    ] = True,
    method: Method = "",
    base: Annotated[str, typer.Option(metavar="DIR", help="Model that completes a checkpoint.")] = "",
    network: NetworkCode = "",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, or auto.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    as_json: Annotated[
        bool, typer.Option("--json", help="The report on standard output, and nothing else.")
    ] = False,
    list_all: Annotated[
        bool, typer.Option("--list", help="List benchmarks and protocols, and stop.")
    ] = False,
    max_pixels: MaxPixels = "",
) -> int:
    """Score a model, or any tool's predictions, by a published protocol.

    Writes rows.jsonl (a row a picture), report.json, report.md and report.html, in which the numbers stand beside the
    published ones. Run again after a kill, it continues. Every missing or broken prediction is reported.
    """
    if list_all:
        _list(as_json)
        return OK
    if data is None:
        raise CommandError(
            "say --data DIR, and --benchmark NAME or --protocol ID; twofold evaluate --list lists them"
        )
    check_choice("--frame", frame, ("RUB", "LUB", "RDB", "RDF"))
    if layout not in ("", "diff2in1"):
        raise CommandError(f"--layout {layout!r} is unknown; it is diff2in1, or leave it out")
    dtype = parse_dtype(dtype)
    check_choice("--odd-sizes", odd_sizes, ("pad", "floor"))
    if predictions is not None:
        refuse_unused(context, "with --predictions, which are there already", *_OF_MODEL)
    else:
        refuse_unused(context, "without --predictions, because they are of stored ones", *_OF_FILES)
        check_source(context, model, network)
    from twofold.data.folder import Folder
    from twofold.evaluate import EvalRequest, evaluation_from_files, evaluation_from_model, get_benchmark
    from twofold.targets import target_spec

    folder = Folder(data)
    known = get_benchmark(benchmark) if benchmark else None
    eval_protocols = _protocols(known, protocol, folder.header)
    request = EvalRequest(folder, eval_protocols[0], out, known, count, _shard(shard), allow_synthetic, group)
    if predictions is not None:
        if layout:
            refuse_unused(context, f"with --layout {layout}, which says it", "scale", "frame", "stretch")
        if target_spec(eval_protocols[0].target).is_points:
            refuse_unused(context, "on people, whose results are a file", "stretch", "layout")
        if target_spec(eval_protocols[0].target).is_direction:
            refuse_unused(context, "on normals, whose files have a range of their own", "scale")
        else:
            refuse_unused(context, f"on {eval_protocols[0].target}: only vectors have a frame", "frame")
        job, metadata = evaluation_from_files(request, predictions, scale, frame, stretch, layout)
    else:
        longest, where = _longest(size), parse_device(device)
        asked: dict[str, Any] = {"ensemble": ensemble, **({"steps": steps} if steps else {})}
        asked |= {"odd_sizes": odd_sizes} if odd_sizes != "pad" else {}
        predictor, eval_protocol = _predictor(
            Source(model, method, base, network=network), task, eval_protocols, where, dtype, **asked
        )
        if not predictor.is_stochastic:
            warn_unused(context, "on a deterministic model", "seed")
        request = replace(request, protocol=eval_protocol)
        job, metadata = evaluation_from_model(request, predictor, longest, seed, dtype, model)
        metadata = replace(metadata, device=where)
    return _run(job, replace(metadata, command=["twofold", *sys.argv[1:]]), images, as_json)


def _protocols(benchmark: Benchmark | None, protocol: str, header: dict[str, Any]) -> list[EvalProtocol]:
    """What may be scored by: the one asked for, else the benchmark's in its order, else the data's own."""
    from twofold.evaluate import get_eval_protocol

    if benchmark is not None:
        names = [protocol] if protocol else [p.name for p in benchmark.protocols]
        return [benchmark.protocol(name) for name in names]
    if protocol:
        return [get_eval_protocol(protocol)]
    entry = header.get("eval")
    named = entry.get("protocol", "") if isinstance(entry, dict) else ""
    if not named:
        raise CommandError("say --benchmark NAME or --protocol ID; twofold evaluate --list lists them")
    return [get_eval_protocol(str(named), trusted=False)]


def _shard(text: str) -> tuple[int, int]:
    first, _, of = text.partition("/")
    if not (first.isdigit() and of.isdigit() and 1 <= int(first) <= int(of)):
        raise CommandError(f"--shard {text!r} is not K/N with K from 1 to N, for example 1/2")
    return int(first), int(of)


def _predictor(
    source: Source, task: str, eval_protocols: Sequence[EvalProtocol], device: str, dtype: str, **asked: Any
) -> tuple[BasePredictor, EvalProtocol]:
    """The model's predictor, and the first of the protocols that scores it."""
    from twofold.evaluate import select_task

    opened = open_source(source, device, dtype)
    name, eval_protocol = select_task(opened, eval_protocols, task)
    return opened.predictor(name).asked(**asked), eval_protocol


def _run(job: Evaluation, metadata: RunMetadata, images: bool, as_json: bool) -> int:
    from twofold.evaluate import finish, run
    from twofold.evaluate.markdown import plain_table
    from twofold.evaluate.tables import counts_text, group_table, own_table, published_tables

    total = len(metadata.selected)
    kept = 0
    for row in with_progress(run(job, range(total)), -(-total // job.shard[1]), "evaluate", quiet=as_json):
        kept += bool(row.get("kept"))
        if row["status"] == "failed":
            print_error(f"{row['id']}: {row['error']}")
    report, paths = finish(job, metadata, images)
    if as_json:
        print_json(report)
    else:
        published = [("", own_table(report)), ("", group_table(report)), *published_tables(report)[0]]
        for title, table in published:
            if title:
                print_line(title)
            for text in plain_table(table) if table.lines else ():
                print_line(text)
        for warning in report["warnings"]:
            print_line(f"warning: {warning}")
        print_line(
            f"{counts_text(report['counts'])}{f' ({kept} were there)' if kept else ''}; see {paths['html']}"
        )
    return SOME_FAILED if report["counts"]["failed"] else OK


def _list(as_json: bool) -> None:
    from twofold.evaluate import BENCHMARKS, EVAL_PROTOCOLS

    if as_json:
        for b in BENCHMARKS.values():
            said = {"title": b.title, "count": b.count, "converter": b.converter, "split": b.split}
            print_json({"benchmark": b.id, **said, "protocols": [p.name for p in b.protocols]})
        for eval_protocol in EVAL_PROTOCOLS.values():
            print_json(
                {"protocol": eval_protocol.id, "title": eval_protocol.title, "target": eval_protocol.target}
            )
        return
    print_line("benchmarks (--benchmark), their data, and the protocol they are scored by")
    for benchmark in BENCHMARKS.values():
        data = f"{benchmark.converter} {benchmark.split}, {benchmark.count} pictures"
        print_line(f"  {benchmark.name:24} {benchmark.protocols[0].name:22} {data:44} {benchmark.title}")
    print_line("protocols (--protocol), for one's own data too")
    for eval_protocol in EVAL_PROTOCOLS.values():
        print_line(f"  {eval_protocol.id:24} {eval_protocol.target:10} {eval_protocol.title}")
