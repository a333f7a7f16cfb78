"""The commands `twofold data`, which convert, import, validate, preview and pack data folders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twofold.cli.caption import caption as caption_command
from twofold.cli.command import add_command
from twofold.cli.console import (
    OK,
    SOME_FAILED,
    CommandError,
    print_json,
    print_line,
    print_result,
    with_progress,
)
from twofold.cli.import_table import import_
from twofold.cli.options import GeneralOptions, ImageLimit
from twofold.cli.usage import refuse_unused

if TYPE_CHECKING:
    from twofold.data import Report
    from twofold.data.convert import Converter

data = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

Out = Annotated[Path, typer.Option(metavar="DIR", help="The data folder, new or incomplete.")]


@data.callback(invoke_without_command=True)
def _data(context: typer.Context) -> None:
    """Make data folders of public data sets or your own: list, convert, import, validate, pack."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def list_converters(
    name: Annotated[
        str, typer.Argument(help="Print all of this data set; by default, a line for each data set.")
    ] = "",
) -> int:
    """List the public data sets that can be converted: splits, targets, licence, and how to get them.

    This command downloads nothing: licences differ, and most have to be accepted in person.
    """
    from twofold.data.convert import CONVERTERS

    converters = [_converter(name)] if name else list(CONVERTERS.values())
    for converter in converters:
        print_json(_description(converter))
    if name:
        for key, value in _description(converters[0]).items():
            print_result(f"{key:8}  {', '.join(value) if isinstance(value, list) else value}")
    else:
        width = max(len(converter.name) for converter in converters)
        print_result(f"{'name':{width}}  {'targets':34}  licence")
        for converter in converters:
            print_result(f"{converter.name:{width}}  {', '.join(converter.targets):34}  {converter.licence}")
            print_result(f"{'':{width}}  get it: {converter.access}")
        print_result("")
        print_line("'twofold data list NAME' prints all of one data set: splits, access and notes.")
    return OK


def convert(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="One of 'twofold data list', or package.module:NAME."),
    ],
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Folder of its files, as downloaded.")],
    out: Out,
    split: Annotated[str, typer.Option(help="One of the splits in 'twofold data list NAME'.")],
    limit: Annotated[int, typer.Option(min=0, help="Only the first N samples; 0 for all.")] = 0,
) -> int:
    """Make a data folder of a downloaded public data set, whose files are neither moved nor changed.

    The folder has two small files: a manifest, and a header with the format of the files. New files are written only
    for data sets whose targets cannot be decoded in place (see 'twofold data list NAME').
    """
    from twofold.data import Folder
    from twofold.data.convert import convert as convert_tree

    converter = _with_progress(_converter(name), limit)
    folder = Folder(convert_tree(converter, source, split, out, limit))
    names = sorted({target for row in folder.rows for target in row.get("targets") or {}})
    print_json({"out": str(out), "name": name, "split": split, "samples": len(folder), "targets": names})
    print_line(f"{len(folder)} samples with {', '.join(names)}: {out}/ (now: twofold data validate {out})")
    return OK


def validate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A data folder, packed or not.")],
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="Also write a contact sheet of samples with their targets."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Number of samples on the sheet.")] = 8,
    limit: Annotated[int, typer.Option(min=0, help="Read only N samples, evenly spaced; 0 for all.")] = 0,
) -> int:
    """Read every file of a data folder, and report its problems and statistics.

    The exit code is 1 if there is a problem. Look at the contact sheet, which shows errors that statistics do not.
    """
    from twofold.data import validate as examine

    if sheet is None:
        refuse_unused("without --sheet", "count")
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise CommandError(f"--sheet {sheet} must end in .png")
    report = examine(folder, limit, lambda indices: with_progress(indices, len(indices), "validate"))
    problem = _shard_problem(folder)
    if problem:
        report = replace(report, problems=(problem, *report.problems))
    if sheet is not None and report.targets:
        _write_sheet(folder, sheet, count)
    written = str(sheet) if sheet and report.targets else None
    print_json({**asdict(report), "ok": report.ok, "sheet": written})
    _print(report)
    return OK if report.ok else SOME_FAILED


def pack(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A data folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The packed folder, new or incomplete.")],
    shard_size: Annotated[
        int, typer.Option(min=1, metavar="MB", help="Maximal size of a tar file in MB.")
    ] = 512,
) -> int:
    """Pack a data folder into tar files, for clusters. The result is also a data folder, with random access.

    Files keep their bytes. An interrupted command continues when it is run again.
    """
    from twofold.data import Folder
    from twofold.data.pack import pack as pack_folder

    samples = size = shards = 0
    for shard in with_progress(pack_folder(Folder(folder), out, shard_size * 2**20), 0, "pack"):
        samples, size, shards = samples + shard.samples, size + shard.size, shards + 1
        record = {"samples": shard.samples, "bytes": shard.size, "kept": shard.kept}
        print_json({"shard": str(shard.path), **record})
    print_line(f"{samples} samples in {shards} shards, {size / 2**20:.1f} MB: {out}/")
    return OK


add_command(data, list_converters, "list", GeneralOptions)
add_command(data, convert, None, ImageLimit, GeneralOptions)
add_command(data, validate, None, ImageLimit, GeneralOptions)
add_command(data, pack, None, GeneralOptions)
add_command(data, import_, "import", ImageLimit, GeneralOptions)
add_command(data, caption_command, "caption", ImageLimit, GeneralOptions)


def _converter(name: str) -> Converter:
    from twofold.data.convert import get_converter

    try:
        return get_converter(name)
    except ValueError as error:
        raise CommandError(f"{error}; 'twofold data list' lists them") from None


def _description(converter: Converter) -> dict[str, Any]:
    return {
        "name": converter.name,
        "title": converter.title,
        "splits": list(converter.splits),
        "targets": list(converter.targets),
        "licence": converter.licence,
        "access": converter.access,
        "writes": "nothing but the manifest" if converter.samples is None else "new files",
        "notes": converter.notes,
    }


def _with_progress(converter: Converter, limit: int) -> Converter:
    """The converter with a progress bar."""

    def wrapped(make: Any) -> Any:
        def rows(root: Path, split: str) -> Iterator[Any]:
            return with_progress(make(root, split), limit, converter.name)

        return rows

    if converter.samples is not None:
        return replace(converter, samples=wrapped(converter.samples))
    return replace(converter, rows=wrapped(converter.rows))


def _shard_problem(folder: Path) -> str:
    """A problem of the shards of a packed folder that reading its samples does not find, or ""."""
    from twofold.data import FolderError
    from twofold.data.layout import read_header
    from twofold.data.pack import Shards

    try:
        if "packed" in read_header(folder):
            Shards(folder)
    except FolderError as error:
        return str(error)
    return ""


def _write_sheet(folder: Path, path: Path, count: int) -> None:
    from twofold.data import Folder
    from twofold.data.sheet import draw_sample_sheet
    from twofold.visualization import write_sheet

    path.parent.mkdir(parents=True, exist_ok=True)
    write_sheet(path, draw_sample_sheet(Folder(folder), count))


def _print(report: Report) -> None:
    """Print the table of targets, then the problems."""
    columns = {"least": "least", "2 %": "p2", "median": "median", "98 %": "p98", "most": "most"}
    print_result(f"{report.root}: {report.count} samples")
    if report.targets:
        print_result(
            f"  {'target':14}{'samples':>8}{'valid':>8}" + "".join(f"{name:>11}" for name in columns)
        )
    for name, statistics in sorted(report.targets.items()):
        numbers = "".join(f"{statistics[key]:11.4g}" for key in columns.values())
        print_result(f"  {name:14}{statistics['samples']:8.0f}{statistics['valid']:8.1%}{numbers}")
    for problem in report.problems:
        print_result(f"  ! {problem}")
    print_result(f"{len(report.problems) or 'no'} problem{'' if len(report.problems) == 1 else 's'}")
