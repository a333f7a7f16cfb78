"""The program `twofold`: registers the commands, runs one, and prints an error as one line."""

from __future__ import annotations

import io
import os
import sys
import traceback
from typing import Annotated

import typer

from twofold import __version__
from twofold.cli.command import OptionGroup, add_command
from twofold.cli.console import (
    INTERRUPTED,
    NOTHING_STARTED,
    SOME_FAILED,
    CommandError,
    own_output_mode,
    print_error,
    warnings_on_one_line,
)
from twofold.cli.create import create
from twofold.cli.data import data
from twofold.cli.doctor import doctor
from twofold.cli.evaluate import evaluate
from twofold.cli.generate import generate
from twofold.cli.improve import improve
from twofold.cli.interrupt import signals_as_interrupts
from twofold.cli.metrics import metrics
from twofold.cli.models import convert_checkpoint, models
from twofold.cli.options import GeneralOptions, ImageLimit, limits_restored
from twofold.cli.predict import predict
from twofold.cli.render import render
from twofold.cli.report import report
from twofold.cli.train import train
from twofold.cli.usage import usage_message
from twofold.io import as_disk_full

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 all done, 1 some of it failed, 2 nothing was started, 130 interrupted.",
)
_SHARED: tuple[type[OptionGroup], ...] = (ImageLimit, GeneralOptions)
add_command(app, predict, None, *_SHARED)
add_command(app, models, None, GeneralOptions)
add_command(app, render, None, GeneralOptions)
for command in (train, generate, create, improve, evaluate):
    add_command(app, command, None, *_SHARED)
add_command(app, report, None, GeneralOptions)
add_command(app, doctor, None, GeneralOptions)
add_command(app, convert_checkpoint, "convert-checkpoint", GeneralOptions)
app.add_typer(data, name="data")
app.add_typer(metrics, name="metrics")


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """One diffusion model that predicts dense labels of images and generates labelled images.

    Predict depth, surface normals and masks; fine-tune; evaluate by published protocols; generate training data.
    """
    if version:
        print(f"twofold {__version__}")
        raise typer.Exit()
    if context.invoked_subcommand is None:
        print(context.get_help())


_INTERRUPTED = "interrupted; written files are complete, run the command again to continue"


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its exit code. An error is one line on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for characters that the terminal cannot encode
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run a command and return its exit code."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # OpenMP threads that wait actively make a command up to twenty times slower if another program uses the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with own_output_mode() as mode:
        try:
            with warnings_on_one_line(), limits_restored(), signals_as_interrupts():
                code = app(args=arguments, prog_name="twofold", standalone_mode=False) or 0
            if code != INTERRUPTED:
                return code
            message = _INTERRUPTED
        except (KeyboardInterrupt, typer.Abort):  # older versions of typer do not catch it
            code, message = INTERRUPTED, _INTERRUPTED
        except BrokenPipeError:
            # The reader of the output has closed it. Without this, Python reports the error again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return SOME_FAILED
        except Exception as error:  # noqa: BLE001 - every error is printed as one line
            if mode.verbose:
                traceback.print_exc()
            code, message = _explain(error, arguments)
    print_error(message)
    return code


def _explain(error: Exception, arguments: list[str]) -> tuple[int, str]:
    """The exit code and the message of an error."""
    if isinstance(error, CommandError):
        return error.code, str(error)
    path = getattr(error, "filename", None)
    full = as_disk_full(error, path) if path else None
    if full is not None:
        return SOME_FAILED, str(full)
    if hasattr(error, "format_message"):  # typer's own errors; their class moved between versions
        return NOTHING_STARTED, usage_message(error, arguments, typer.main.get_command(app))
    if isinstance(error, ValueError | OSError | ImportError | ArithmeticError):
        # Messages of twofold are complete; others need the name of their class.
        complete = type(error).__module__.startswith("twofold") or type(error) in (ValueError, ImportError)
        # An ArithmeticError is raised during prediction, when a network returns NaN or infinity.
        early = complete and not isinstance(error, ArithmeticError) and not getattr(error, "started", False)
        code = NOTHING_STARTED if early else SOME_FAILED
        return code, str(error) if complete else f"{type(error).__name__}: {error}"
    hint = "this is a bug in twofold; --verbose shows where"
    return SOME_FAILED, f"{type(error).__name__}: {error} ({hint})"
