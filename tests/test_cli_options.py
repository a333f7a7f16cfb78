"""Options of all commands: shared groups, help, output modes, completion, and no option without effect."""

from __future__ import annotations

import ast
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image

import world
from twofold.cli.console import output_mode
from twofold.cli.main import app, run

ROOT = Path(__file__).parents[1]
SOURCES = [p for folder in ("cli", "io", "image") for p in (ROOT / "src" / "twofold" / folder).glob("*.py")]
MOST = 12


def commands() -> Iterator[tuple[str, Any]]:
    pending = [("twofold", typer.main.get_command(app))]
    while pending:
        path, command = pending.pop()
        children = getattr(command, "commands", {})
        pending += [(f"{path} {name}", child) for name, child in children.items()]
        if not children:
            yield path, command


COMMANDS = dict(commands())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.linear_gradient("L").resize((40, 30)).save("a.png")
    return tmp_path


def test_all_commands_are_found() -> None:
    assert {"twofold predict", "twofold data pack", "twofold metrics fid"} <= COMMANDS.keys()


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_the_general_options(path: str) -> None:
    flags = {flag for parameter in COMMANDS[path].params for flag in parameter.opts}
    assert {"--json", "--quiet", "--verbose"} <= flags


@pytest.mark.parametrize("path", COMMANDS)
def test_a_command_has_at_most_a_dozen_own_options(path: str) -> None:
    own = [p.name for p in COMMANDS[path].params if p.opts[0].startswith("-") and not p.rich_help_panel]
    assert len(own) <= MOST, own


def test_options_with_the_same_name_have_the_same_help() -> None:
    """Shared options have one definition for all commands that take them."""
    for name in (
        "--json",
        "--quiet",
        "--verbose",
        "--max-pixels",
        "--device",
        "--dtype",
        "--method",
        "--base",
    ):
        helps = {p.help for c in COMMANDS.values() for p in c.params if name in p.opts}
        assert len(helps) == 1, name


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_functions_have_at_most_a_dozen_arguments(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            count = len(node.args.posonlyargs + node.args.args + node.args.kwonlyargs)
            assert count <= MOST, f"{node.name} has {count} arguments"


def test_help_lists_own_options_first_then_the_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", "--help"]) == 0
    text = capsys.readouterr().out
    titles = [line[:-1] for line in text.splitlines() if line.endswith(":") and line[0] != " "]
    groups = ["Model", "Inference", "Device and precision", "Output", "General"]
    assert titles == ["Arguments", "Options", *groups]
    general = text.partition("\nGeneral:")[2]
    assert all(flag in general for flag in ("--max-pixels", "--json", "--quiet", "--verbose", "--help"))


def test_quiet_prints_errors_only(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.png").write_bytes(b"no image")
    world.folder(here / "data", count=1, size=32)
    assert run(["data", "pack", "data", "packed", "--quiet"]) == 0
    output = capsys.readouterr()
    assert output.out == output.err == ""
    assert run(["predict", "absent.png", "-q"]) == 1
    output = capsys.readouterr()
    assert output.out == "" and "absent.png" in output.err
    assert not output_mode().quiet


def test_quiet_keeps_the_requested_output(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "list", "--quiet"]) == 0
    assert "licence" in capsys.readouterr().out


def test_quiet_drops_warnings(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn(*_: object) -> tuple[list[object], list[object]]:
        warnings.warn("ours", stacklevel=1)
        return [], []

    monkeypatch.setattr("twofold.predict.inputs.find_inputs", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run(["predict", "a.png"]) == 0
        assert capsys.readouterr().err == "twofold: warning: ours\n"
        assert run(["predict", "a.png", "--quiet"]) == 0
        assert capsys.readouterr().err == ""
    with pytest.warns(UserWarning, match="ours"):
        assert run(["predict", "a.png", "--verbose"]) == 0


def test_quiet_and_verbose_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "--quiet", "--verbose"]) == 2
    assert "exclude each other" in capsys.readouterr().err


def test_verbose_raises_log_levels_and_restores_them(monkeypatch: pytest.MonkeyPatch) -> None:
    levels: list[str | None] = []
    monkeypatch.delenv("DIFFUSERS_VERBOSITY", raising=False)
    monkeypatch.setattr(
        "twofold.cli.doctor.examine", lambda: levels.append(os.environ["DIFFUSERS_VERBOSITY"]) or ()
    )
    monkeypatch.setattr(logging, "basicConfig", lambda **settings: levels.append(str(settings["level"])))
    assert run(["doctor"]) == run(["doctor", "--verbose"]) == 0
    assert levels == ["error", str(logging.INFO), "info"]
    assert "DIFFUSERS_VERBOSITY" not in os.environ


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "quick", "--json", "--log-every", "5"], "--log-every has no effect with --json"),
        (["train", "quick", "--quiet", "--log-every", "5"], "--log-every has no effect with --quiet"),
        (["train", "codec", "--skip-bad"], "--skip-bad has no effect on the stage autoencoder"),
        (["improve", "quick", "--json", "--log-every", "5"], "--log-every has no effect with --json"),
        (["improve", "quick", "--captioner", "x", "--template", "y"], "--template has no effect with --captioner"),
        (["create", "data", "--out", "x", "--select-seed", "3"], "--select-seed has no effect without"),
        (["convert-checkpoint", "embedded", "x", "--completed-by", "y"], "--completed-by has no effect"),
        (["convert-checkpoint", "embedded", "x", "--lora-alpha", "4"], "--lora-alpha has no effect for the embedded"),
        (["convert-checkpoint", "embedded", "x", "--method", "dmp-depth"], "--method has no effect for the embedded"),
        (["convert-checkpoint", "m", "x", "--layout", "diff2in1", "--push", "a/b"], "--push has no effect"),
    ],
)  # fmt: skip
def test_an_option_without_effect_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    world.folder(here / "data", count=1, size=32)
    Path("recipes").mkdir()
    for name, model in (("quick", "DenoiserConfig"), ("codec", "AutoencoderConfig")):
        Path(f"recipes/{name}.py").write_text(
            f"from twofold.train import DataConfig, {model}, Recipe, Source\n"
            f"def {name}():\n"
            "    data = DataConfig(sources=(Source(path='data'),), task_weights={'depth': 1.0})\n"
            f"    return Recipe(name='{name}', model={model}(), data=data)\n"
        )
    assert run(arguments) == 2
    assert expected in capsys.readouterr().err
    assert not Path("x").exists() and not Path("runs").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: str) -> None:
    assert "twofold" in complete(_TWOFOLD_COMPLETE=f"source_{shell}")


@pytest.mark.parametrize(
    ("line", "expected"),
    [("predict --odd", {"--odd-sizes"}), ("predict --frame R", {"RUB", "RDF"}), ("data va", {"validate"})],
)
def test_commands_options_and_values_are_completed(line: str, expected: set[str]) -> None:
    words = f"twofold {line}"
    found = complete(
        _TWOFOLD_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(len(words.split()) - 1)
    )
    assert set(found.split()) == expected


def complete(**environment: str) -> str:
    program = "from twofold.cli.main import main; main([])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    return done.stdout
