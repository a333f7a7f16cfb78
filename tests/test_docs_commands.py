"""Every command in the documentation is one: its program, options and values exist."""

from __future__ import annotations

import argparse
import re
import runpy
import sys
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import typer

from doc_blocks import ROOT, Command, blocks, commands, mentioned_options, programs
from twofold.checkpoints import PUBLISHED
from twofold.cli.main import app
from twofold.data.convert import CONVERTERS
from twofold.evaluate import BENCHMARKS, EVAL_PROTOCOLS
from twofold.tasks import get_task
from twofold.train import Recipe
from twofold.train.override import field_paths

# Programs and options of other projects, which the documentation compares with or passes files to.
FOREIGN_PROGRAMS = {
    "training_1st_stage.py": "the release of Diff-2-in-1",
    "training_2nd_stage.py": "the release of Diff-2-in-1",
    "data_creation.py": "the release of Diff-2-in-1",
    "test.py": "the release of Diff-2-in-1",
    "evaluation.py": "the release of Diff-2-in-1",
}
# Pages that list the options of another project's program beside this project's.
FOREIGN_OPTIONS = {"docs/diff2in1.md": "the table of Diff-2-in-1's own options"}

# Placeholders for values of the reader.
PLACEHOLDERS = {"NAME", "DIR", "M", "N", "D", "T", "ID", "HUB_ID", "RECIPE"}

ROOT_COMMAND: Any = typer.main.get_command(app)
LANGUAGES = {"sh", "text", "python", "json"}


def find_command(words: Iterable[str]) -> tuple[str, Any, list[str]]:
    """The path and the command that the words name, and the arguments left."""
    path, command, rest = "twofold", ROOT_COMMAND, list(words)
    while rest and rest[0] in getattr(command, "commands", {}):
        path, command = f"{path} {rest[0]}", command.commands[rest.pop(0)]
    return path, command, rest


def options_of(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts if option.startswith("-")}


# ---- values


def among(choices: Iterable[str]) -> Callable[[str], bool]:
    known = set(choices)
    return lambda value: value in known


def is_task(value: str) -> bool:
    for name in value.split(","):
        get_task(name)
    return True


def is_model(value: str) -> bool:
    """A known name, a hub id or a path; a single lower-case word would be a published name."""
    return value in {"embedded", *PUBLISHED} or "/" in value or value in MADE_BY_A_PAGE


# Folders that an earlier command of the same page writes.
MADE_BY_A_PAGE = {"sd15", "warm", "sd15-bae"}

VALUES: dict[str, Callable[[str], bool]] = {
    "task": is_task,
    "model": is_model,
    "generator": is_model,
    "benchmark": among(BENCHMARKS),
    "protocol": among(EVAL_PROTOCOLS),
    "method": among(PUBLISHED),
    "frame": among(("RUB", "LUB", "RDB", "RDF")),
    "odd_sizes": among(("pad", "floor")),
    "dtype": among(("float32", "bfloat16", "float16")),
    "compat": among(("official",)),
    "label_mode": among(("reencode", "denoise")),
    "mask": among(("source", "all")),
    "scoring": among(("all", "cheap")),
    "label_source": among(("teacher", "stored")),
    "kind": among(("real", "rendered", "synthetic")),
    "device": lambda value: re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value) is not None,
}
BY_COMMAND: dict[tuple[str, str], Callable[[str], bool]] = {
    ("twofold generate", "sampler"): among(("ddim", "dpmpp_2m")),
    ("twofold create", "sampler"): among(("ddim", "dpmpp_2m", "euler", "lcm")),
    ("twofold improve", "sampler"): among(("ddim", "dpmpp_2m", "euler", "lcm")),
    ("twofold predict", "frame"): among(("RUB", "LUB", "RDF")),
    ("twofold create", "layout"): among(("official",)),
    ("twofold convert-checkpoint", "layout"): among(("twofold", "diff2in1")),
    ("twofold models", "name"): among(PUBLISHED),
    ("twofold data list", "name"): among(CONVERTERS),
    ("twofold data convert", "name"): among(CONVERTERS),
}


def wrong_values(path: str, values: dict[str, Any]) -> list[str]:
    """What no command would take among parsed values; None and "" are defaults."""
    found = []
    for name, value in values.items():
        check = BY_COMMAND.get((path, name)) or VALUES.get(name)
        if check and isinstance(value, str) and value and value not in PLACEHOLDERS and not check(value):
            found.append(f"{name} {value!r}")
    if path == "twofold data convert" and values.get("split"):
        converter = CONVERTERS[values["name"]]
        if converter.splits and values["split"] not in converter.splits:
            found.append(f"split {values['split']!r} of {values['name']}")
    return found


def wrong_recipe(values: dict[str, Any], folder: Path) -> list[str]:
    """What is wrong with a recipe and its settings."""
    from twofold.cli.train import find_recipe

    name, settings = str(values["recipe"]), values.get("settings") or []
    if name in PLACEHOLDERS:
        known = set(field_paths(Recipe))
        unknown = [s for s in settings if ".".join(s.partition("=")[0].split(".")[:2]) not in known]
        return [f"--set {s}" for s in unknown]
    own = (folder / name.partition(":")[0]).is_file()
    find_recipe(str(folder / name) if own else name, settings, bool(values.get("smoke_test")))
    return []


def check_twofold(command: Command, folder: Path) -> None:
    path, found, rest = find_command(command.words[1:])
    known = {"--help", *options_of(found)}
    assert not getattr(found, "commands", {}) or set(rest) <= known, f"{command}: no such command"
    if getattr(found, "commands", {}):
        return
    if not command.whole:
        rest = ["1" if word == "N" else word for word in rest if word != "..."]
        unknown = {word for word in rest if word.startswith("-")} - known
        assert not unknown, f"{command}: no option {', '.join(unknown)}"
    try:
        context = found.make_context(path, rest)
    except Exception as error:  # of the parser, whose classes moved between versions
        # A sentence may name a command without what it needs; nothing else may be missing.
        if not command.whole and (
            type(error).__name__ == "MissingParameter" or "requires an argument" in str(error)
        ):
            return
        raise AssertionError(f"{command}: {error}") from error
    wrong = wrong_values(path, context.params)
    if "recipe" in context.params and "settings" in context.params:
        wrong += wrong_recipe(context.params, folder)
    assert not wrong, f"{command}: {wrong}"


# ---- other programs


class Parsed(Exception):
    """Raised in place of what a script does after it has read its arguments."""


def check_script(script: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a script up to the end of its argument parser."""
    parse = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, *given: Any) -> None:
        raise Parsed(parse(self, *given))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    monkeypatch.syspath_prepend(str(script.parent))
    with pytest.raises(Parsed):
        runpy.run_path(str(script), run_name="__main__")


def check_python(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *rest = command.words[1:]
    if first in FOREIGN_PROGRAMS:
        assert not (ROOT / first).exists()
        return
    if first == "-m":
        assert rest[0] == "pytest", command
        return
    script = ROOT / first
    assert script.is_file(), f"{command}: no such file"
    if "argparse" not in script.read_text():
        assert not rest, command
        return
    # A sentence may leave out what is required.
    arguments = rest if command.whole or rest else ["--help"]
    if arguments == ["--help"]:
        return
    check_script(script, ["1" if word == "N" else word for word in arguments], monkeypatch)


def check_make(command: Command) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    goals = [word for word in command.words[1:] if "=" not in word]
    assert goals and set(goals) <= targets, command
    for word in command.words[1:]:
        name, _, value = word.partition("=")
        if name == "ARGS" and value.startswith("tests/"):
            assert (ROOT / value).is_file(), command


def check_pip(command: Command) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert command.words[1] == "install", command
    for word in command.words[2:]:
        name, _, extra = word.rstrip("]").partition("[")
        assert name in (project["name"], ".") and (not extra or extra in project["optional-dependencies"]), (
            command
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pages' mine.py is, the first of docs/training.md."""
    place = tmp_path_factory.mktemp("docs")
    (place / "mine.py").write_text(
        next(b.text for b in programs("docs/training.md") if "# mine.py" in b.text)
    )
    return place


@pytest.mark.parametrize("command", commands(), ids=str)
def test_a_documented_command_exists(command, folder, monkeypatch):
    words = list(command.words)
    monkeypatch.chdir(ROOT)
    if words[0] == "torchrun":
        assert words[words.index("-m") + 1] == "twofold", command
        words = words[words.index("-m") + 1 :]
    if words[0] == "twofold":
        check_twofold(Command(command.place, tuple(words), command.whole), folder)
    elif words[0] == "python":
        check_python(command, monkeypatch)
    elif words[0] == "make":
        check_make(command)
    elif words[0] == "pip":
        check_pip(command)
    elif words[0] == "bash":
        assert (ROOT / words[1]).is_file(), command
    else:
        pytest.fail(f"{command}: no check for {words[0]}; add one")


def test_every_code_block_has_a_language():
    assert len(blocks()) > 30
    for block in blocks():
        assert block.language in LANGUAGES, (
            f"{block}: {block.language or 'no language'}; use one of {LANGUAGES}"
        )
        first = block.text.split()[0]
        assert block.language != "text" or first not in ("python", "make", "pip"), f"{block}: use sh"


def synopses() -> list[tuple[str, str]]:
    """(place, one command with its options) of the ``text`` blocks that summarise commands."""
    found = []
    for block in blocks():
        if block.language == "text" and block.text.startswith("twofold "):
            found += [(str(block), part) for part in re.split(r"\n(?=twofold )", block.text)]
    return found


@pytest.mark.parametrize(("place", "text"), synopses(), ids=lambda value: value.split("\n")[0][:40])
def test_a_synopsis_has_all_options_of_its_command_and_no_other(place, text):
    path, command, _ = find_command(re.findall(r"[\w-]+", text)[1:])
    shown = set(re.findall(r"--[a-z][\w-]*", text))
    known = {max(p.opts, key=len) for p in command.params if p.opts[0].startswith("-")}
    flags = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
    assert shown <= flags, f"{place}: {path} has no {shown - flags}"
    if path == "twofold evaluate" and "--list" in shown and "--data" not in shown:
        return
    missing = {
        p for p in command.params if p.opts[0].startswith("-") and not shown & {*p.opts, *p.secondary_opts}
    }
    missing_names = {max(p.opts, key=len) for p in missing} - {"--help", "--list", "--quiet", "--verbose"}
    assert not missing_names, f"{place}: {path} also has {missing_names} of {known}"
    for parameter in command.params:
        for option in parameter.opts:
            if value := re.search(rf"{option} ([A-Za-z][\w-]*(?:\|[A-Za-z][\w-]*)+)", text):
                wrong = [v for v in value[1].split("|") if wrong_values(path, {parameter.name: v})]
                assert not wrong, f"{place}: {option} {wrong}"


def test_an_option_in_a_sentence_exists():
    known = {"--help", "--version"}
    pending = [ROOT_COMMAND]
    while pending:
        command = pending.pop()
        pending += list(getattr(command, "commands", {}).values())
        known |= options_of(command)
        known |= {option for parameter in command.params for option in parameter.secondary_opts}
    scripts = [*ROOT.glob("benchmarks/*.py"), *ROOT.glob("scripts/*.py")]
    known |= {
        option for s in scripts for option in re.findall(r'add_argument\(\s*"(--[\w-]+)"', s.read_text())
    }
    wrong = [
        f"{place}: {option}"
        for place, option in mentioned_options()
        if option not in known and place.partition(":")[0] not in FOREIGN_OPTIONS
    ]
    assert not wrong
