"""Errors in command lines name the command and suggest the nearest name; options without effect are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import world
from twofold.cli.main import run
from twofold.suggest import did_you_mean, nearest, unknown


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.linear_gradient("L").resize((40, 30)).save("a.png")
    Path("recipes").mkdir()
    Path("recipes/quick.py").write_text(
        "from twofold.train import DataConfig, DenoiserConfig, Recipe, Source\n"
        "def quick():\n"
        "    data = DataConfig(sources=(Source(path='data'),), task_weights={'depth': 1.0})\n"
        "    return Recipe(name='quick', model=DenoiserConfig(), data=data)\n"
    )
    return tmp_path


def test_the_nearest_name_is_found_in_any_case():
    known = ("depth", "disparity", "normals", "genpercept-normal")
    assert nearest("dept", known) == "depth"
    assert nearest("NORMALS", known) == "normals"
    assert nearest("genpercept", known) == "genpercept-normal"
    assert nearest("smell", known) == ""
    assert did_you_mean("smell", known) == ""
    assert unknown("task", "normal", known, most=2) == (
        "unknown task 'normal' (did you mean 'normals'?); known: depth, disparity, ..."
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["predcit", "a.png"], "'predict'"),
        (["data", "valdate", "x"], "data: no such command 'valdate'. Did you mean 'validate'"),
        (["predict", "a.png", "--sise", "64"], "predict: no option --sise (did you mean '--size'?); see 'twofold"),
        (["generate", "x", "--stength", "1"], "generate: no option --stength (did you mean '--strength'?)"),
        (["data", "validate", "x", "--shet", "y"], "data validate: no option --shet (did you mean '--sheet'?)"),
        (["predict"], "predict: missing argument 'INPUT...'; see 'twofold predict --help'"),
        (["predict", "a.png", "--size"], "predict: option '--size' requires an argument"),
        (["generate", "x", "--count", "many"], "generate: invalid value for '--count'"),
        (["predict", "a.png", "--model", "embeded"], "no model 'embeded' (did you mean 'embedded'?)"),
        (["predict", "a.png", "--model", "genpercept-norml"], "(did you mean 'genpercept-normal'?)"),
        (["predict", "a.png", "--model", "MODEL", "--task", "normal"], "'normal' (did you mean 'normals'?); it has"),
        (["predict", "a.png", "--model", "MODEL", "--method", "marigold"], "(did you mean 'marigold-"),
        (["predict", "a.png", "--dtype", "float46"], "(did you mean 'float16'?)"),
        (["evaluate", "--data", "data", "--benchmark", "nyu2-depth"], "(did you mean 'nyuv2-depth'?)"),
        (["evaluate", "--data", "data", "--protocol", "normal/dsin"], "(did you mean 'normal/dsine'?)"),
        (["models", "genpercpt-depth"], "(did you mean 'genpercept-depth'?)"),
        (["train", "quik"], "no recipe 'quik' (did you mean 'quick'?)"),
        (["train", "recipes/quick.py:quik"], "no function quik (did you mean 'quick'?)"),
        (["train", "quick", "--set", "stps=3"], "--set stps=3: a recipe has no 'stps' (did you mean 'loop.steps'?)"),
        (["train", "quick", "--set", "model.head.name=latnt"], "unknown head 'latnt' (did you mean 'latent'?)"),
        (["train", "quick", "--set", 'data.task_weights={"dept": 1}'], "unknown task 'dept' (did you mean 'depth'?)"),
        (["train", "quick", "--set", "loss.depth.sssi=1"], "no loss 'sssi' (did you mean 'ssi'?)"),
        (["train", "quick", "--set", "data.sources.0.shar=2"], "(did you mean 'share'?)"),
        (["create", "data", "--out", "x", "--sampler", "dpmpp_2n"], "(did you mean 'dpmpp_2m'?)"),
    ],
)  # fmt: skip
def test_an_unknown_name_is_reported_with_the_nearest_known_one(
    here, tiny_model, capsys, arguments, expected
):
    world.folder(here / "data", count=1, size=32)
    assert run([str(tiny_model) if a == "MODEL" else a for a in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("twofold: ") and error.count("\n") == 1
    assert expected in error


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["generate", "x", "--strength", "0.5"], "--strength has no effect without --image; leave it out"),
        (["generate", "x", "--strength", "0.6"], "--strength has no effect without --image"),
        (["predict", "a.png", "--merge", "median"], "--merge has no effect without --ensemble"),
        (["predict", "a.png", "--method", "dmp-depth", "--base", "x"], "--method, --base have no effect for the emb"),
        (["predict", "a.png", "--model", "MODEL", "--revision", "main"], "only repositories of the hub have revisions"),
        (["predict", "a.png", "--model", "MODEL", "--task", "depth", "--frame", "LUB"], "only vectors have a frame"),
        (["evaluate", "--data", "data", "--protocol", "normal/dsine", "--scale", "2"], "without --predictions"),
        (["evaluate", "--data", "data", "--protocol", "normal/dsine", "--predictions", "data", "--seed", "1", "--size",
          "64"], "--size, --seed have no effect with --predictions"),
        (["evaluate", "--data", "data", "--protocol", "normal/dsine", "--predictions", "data", "--scale", "2"],
         "--scale has no effect on normals"),
        (["evaluate", "--data", "data", "--protocol", "depth/marigold-ls", "--predictions", "data", "--frame", "LUB"],
         "--frame has no effect on depth"),
        (["create", "data", "--out", "x", "--captioner", "y", "--template", "z"], "--template has no effect"),
        (["data", "validate", "data", "--count", "3"], "--count has no effect without --sheet"),
        (["convert-checkpoint", "embedded", "x", "--layout", "diff2in1", "--drop-text"], "--drop-text has no effect"),
    ],
)  # fmt: skip
def test_an_option_without_effect_is_refused(here, tiny_model, capsys, arguments, expected):
    world.folder(here / "data", count=1, size=32)
    assert run([str(tiny_model) if a == "MODEL" else a for a in arguments]) == 2
    assert expected in capsys.readouterr().err
    assert not Path("predictions").exists() and not Path("evaluation").exists()


def test_a_seed_for_a_deterministic_model_gives_a_warning(here, tiny_model, capsys):
    assert run(["predict", "a.png", "--model", str(tiny_model), "--seed", "3"]) == 0
    assert capsys.readouterr().err == "twofold: warning: --seed has no effect on a deterministic model\n"


def test_warnings_of_installed_packages_are_dropped_and_own_ones_are_one_line(here, monkeypatch, capsys):
    import warnings

    def noisy(*_: object):
        warnings.warn_explicit("theirs", UserWarning, f"{sys.prefix}/lib/python3.11/site-packages/x.py", 1)
        warnings.warn("ours", stacklevel=1)
        return [], []

    monkeypatch.setattr("twofold.predict.inputs.find_inputs", noisy)
    monkeypatch.setattr("sysconfig.get_path", lambda name: f"{sys.prefix}/lib")
    assert run(["predict", "a.png"]) == 0
    assert capsys.readouterr().err == "twofold: warning: ours\n"


def test_libraries_print_nothing_in_a_fresh_process(here, tiny_model):
    """Run in a subprocess: progress bars and import warnings bypass capsys."""
    program = (
        "from twofold.cli.main import run\n"
        f"assert run(['convert-checkpoint', {str(tiny_model)!r}, 'converted']) == 0\n"
        "assert run(['predict', 'a.png', '--model', 'converted', '--json']) == 0\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert [line[0] for line in done.stdout.splitlines()] == ["c", "{"]
