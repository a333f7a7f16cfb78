"""Messages about wrong command lines, and checks for options without effect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twofold.cli.command import CONTEXT
from twofold.cli.console import CommandError, print_warning
from twofold.suggest import did_you_mean


def usage_message(error: Any, arguments: Sequence[str], root: Any) -> str:
    """The message for an error of the command-line parser: the command, the error, and the nearest known option.

    Args:
        error: an error of typer. The module of its class differs between versions, its attributes do not.
        arguments: arguments of the program.
        root: the command of the whole program, for errors without a context.
    """
    context = getattr(error, "ctx", None)
    path, command = (context.command_path, context.command) if context else _command(arguments, root)
    option = str(getattr(error, "option_name", "") or "")
    known = [
        name for parameter in getattr(command, "params", ()) for name in parameter.opts if name[0] == "-"
    ]
    if type(error).__name__ == "NoSuchOption":
        message = f"no option {option}{did_you_mean(option, known)}"
    else:
        message = str(error.format_message()).rstrip(".")
        message = message[:1].lower() + message[1:]
    return f"{path.removeprefix('twofold ')}: {message}; see '{path} --help'"


def _command(arguments: Sequence[str], root: Any) -> tuple[str, Any]:
    """The path and the command that the first arguments name."""
    path, command = "twofold", root
    for argument in arguments:
        subcommand = getattr(command, "commands", {}).get(argument)
        if subcommand is None:
            break
        path, command = f"{path} {argument}", subcommand
    return path, command


def passed_options(*names: str) -> list[str]:
    """Those of the parameters ``names`` of the running command that the user passed, as options: ``["--strength"]``."""
    context = CONTEXT.get()
    found = []
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            parameter = next(p for p in context.command.params if p.name == name)
            found.append(max(parameter.opts, key=lambda option: len(option)))
    return found


def refuse_unused(reason: str, *names: str) -> None:
    """CommandError if the user passed one of the options ``names``, which have no effect for ``reason``.

    In every command an option that cannot change the result is an error, because a user who passes it expects another
    result. Only a seed without randomness is a warning (`warn_unused`), so that one command line can be used with
    several models.
    """
    unused = passed_options(*names)
    if unused:
        verb = "have" if len(unused) > 1 else "has"
        raise CommandError(
            f"{', '.join(unused)} {verb} no effect {reason}; leave {'them' if verb == 'have' else 'it'} out"
        )


def warn_unused(reason: str, name: str) -> None:
    """Warn if the user passed the option ``name``, which has no effect for ``reason``."""
    for option in passed_options(name):
        print_warning(f"{option} has no effect {reason}")
