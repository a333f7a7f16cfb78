"""Registers functions as commands. Groups of options are expanded to options, which ``--help`` lists by group."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import ContextVar
from copy import copy
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args, get_type_hints

import typer
from typer.core import TyperCommand

# The context of the running command, for checks of the options that the user passed.
CONTEXT: ContextVar[Any] = ContextVar("CONTEXT")


# Metavars of types, for options without one.
_METAVARS: dict[Any, str] = {
    int: "N",
    int | None: "N",
    float: "X",
    float | None: "X",
    str: "TEXT",
    Path: "PATH",
}


class OptionGroup:
    """Base of frozen dataclasses whose fields are options: ``name: Annotated[type, typer.Option(...)] = default``."""

    title: ClassVar[str] = ""


class GroupedCommand(TyperCommand):
    """A command whose ``--help`` has a section for its own options and one for each group."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections; the parser calls this."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                sections.setdefault(_section(parameter), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _section(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return "Arguments"
    if parameter.name == "help":
        return "General"
    return getattr(parameter, "rich_help_panel", None) or "Options"


def add_command(
    app: typer.Typer, function: Callable[..., int], name: str | None = None, *shared: type[OptionGroup]
) -> None:
    """Register ``function`` as a command of ``app``.

    Args:
        app: the program, or a group of its commands.
        function: a function that returns the exit code. A parameter annotated with an `OptionGroup` gets the values of
            its options.
        name: name of the command; by default that of the function.
        shared: groups whose options act by their callbacks and are not passed to the function.
    """
    app.command(name, cls=GroupedCommand)(flatten(function, *shared))


def flatten(function: Callable[..., int], *shared: type[OptionGroup]) -> Callable[..., int]:
    """Wrap ``function`` in a function with one parameter for each option of its groups, for typer."""
    hints = get_type_hints(function, include_extras=True)
    groups = {
        name: hint for name, hint in hints.items() if isinstance(hint, type) and issubclass(hint, OptionGroup)
    }
    ungrouped = [p for p in inspect.signature(function).parameters.values() if p.name not in groups]
    parameters = [inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
    parameters += [_parameter(p.name, hints[p.name], p.default) for p in ungrouped]
    for group in [*groups.values(), *shared]:
        parameters += _parameters(group)

    def call(context: typer.Context, **values: Any) -> int:
        CONTEXT.set(context)
        grouped = {n: g(**{f.name: values[f.name] for f in fields(g)}) for n, g in groups.items()}
        return function(**{p.name: values[p.name] for p in ungrouped}, **grouped)

    call.__name__ = getattr(function, "__name__", "")
    call.__doc__ = function.__doc__
    call.__signature__ = inspect.Signature(parameters)  # ty: ignore[unresolved-attribute]
    call.__annotations__ = {p.name: p.annotation for p in parameters}
    return call


def _parameters(group: type[OptionGroup]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        _parameter(field.name, hints[field.name], field.default, group.title)
        for field in fields(group)  # ty: ignore[invalid-argument-type]
    ]


def _parameter(name: str, hint: Any, default: Any, title: str = "") -> inspect.Parameter:
    """A parameter for typer; ``hint`` is ``Annotated[type, typer.Option(...)]``."""
    kind, option = get_args(hint)
    option = copy(option)
    option.rich_help_panel = title or None
    option.metavar = option.metavar or _METAVARS.get(kind)
    annotation = Annotated[kind, option]  # ty: ignore[invalid-type-form]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
