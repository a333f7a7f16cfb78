"""The command line: what it prints, to which stream, and with which exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from twofold.cli.main import run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save_image(path: str, mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.linear_gradient("L").resize(size).convert(mode).save(path)


def one_line(text: str) -> str:
    assert text.startswith("twofold: ")
    assert text.count("\n") == 1
    assert "Traceback" not in text
    return text


def test_predict_writes_the_documented_files(
    here: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_image("shots/a.png")
    save_image("shots/deep/b.jpg", "L", (31, 57))
    command = ["predict", "shots", "--model", str(tiny_model), "--out", "out", "--side-by-side"]
    assert run(command) == 0
    output = capsys.readouterr()
    assert "2 predicted" in output.out
    assert not output.err
    assert np.load("out/a_depth.npy").shape == (30, 40)
    normals = np.load("out/deep/b_normals.npy")
    assert normals.shape == (57, 31, 3)
    assert np.abs(np.linalg.norm(normals, axis=-1) - 1).max() < 1e-5
    assert Path("out/deep/b_side_by_side.png").is_file()
    assert run(command) == 0
    assert "2 kept" in capsys.readouterr().out


def test_json_output_is_one_object_per_image(
    here: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_image("a.png")
    Path("b.png").write_bytes(b"not an image")
    code = run(
        ["predict", "a.png", "b.png", "absent.png", "--task", "depth", "--json", "--model", str(tiny_model)]
    )
    assert code == 1
    output = capsys.readouterr()
    rows = {Path(row["input"]).stem: row for row in map(json.loads, output.out.splitlines())}
    assert {name: row["status"] for name, row in rows.items()} == {
        "a": "done",
        "b": "failed",
        "absent": "failed",
    }
    assert list(rows["a"]["tasks"]) == ["depth"]
    assert len(rows["a"]["tasks"]["depth"]["settings"]["digest"]) == 64
    assert [line.startswith("twofold: ") for line in output.err.splitlines()] == [True, True]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "CMYK", "1", "I;16"])
def test_images_of_every_mode_are_predicted(here: Path, tiny_model: Path, mode: str) -> None:
    path = f"a.{'tiff' if mode == 'CMYK' else 'png'}"
    if mode == "I;16":
        Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50).save(path)
    else:
        save_image(path, mode)
    assert run(["predict", path, "--model", str(tiny_model)]) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["predict"], 2, "INPUT"),
        (["paint"], 2, "paint"),
        (["predict", "a.png", "--size", "huge"], 2, "--size 'huge'"),
        (["predict", "a.png", "--size", "0"], 2, "--size '0'"),
        (["predict", "a.png", "--dtype", "int8"], 2, "choose float32, bfloat16 or float16"),
        (["predict", "a.png", "--model", "nowhere"], 2, "no model 'nowhere'"),
        (["predict", "a.png", "--model", "MODEL", "--task", "smell"], 2, "it has depth, normals"),
        (["predict", "a.png", "--model", "MODEL", "--device", "abacus"], 2, "abacus"),
        (["predict", "absent.png"], 1, "absent.png does not exist"),
        (
            ["predict", "a.png", "--model", "MODEL", "--out", "a.png"],
            2,
            "cannot create the folder a.png (File exists)",
        ),
        (["generate", "a chair", "--strength", "2"], 2, "--strength 2"),
        (["generate", "a chair", "--size", "12"], 2, "WIDTHxHEIGHT"),
        (["generate", "a chair", "--image", "absent.png"], 2, "absent.png does not exist"),
        (["train", "nothing"], 2, "no recipe 'nothing'"),
        (["render", "--count", "1", "--out", "x", "--size", "big"], 2, "WIDTHxHEIGHT"),
    ],
)
def test_a_usage_error_is_one_line_that_says_what_to_do(
    here: Path,
    tiny_model: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    expected: str,
) -> None:
    save_image("a.png")
    assert run([str(tiny_model) if a == "MODEL" else a for a in arguments]) == code
    assert expected in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("damage", ["no weights", "cut weights", "bad json", "no settings"])
def test_a_damaged_checkpoint_gives_a_one_line_error(
    here: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    save_image("a.png")
    shutil.copytree(tiny_model, "model")
    weights = Path("model/unet/diffusion_pytorch_model.safetensors")
    if damage == "no weights":
        weights.unlink()
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "bad json":
        Path("model/unet/config.json").write_text("{")
    else:
        Path("model/twofold.json").unlink()
    assert run(["predict", "a.png", "--model", "model"]) == 2
    assert "model" in one_line(capsys.readouterr().err)
    assert not Path("predictions").exists()


def test_generate_depends_on_the_seed_only(
    here: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["generate", "a red chair", "--steps", "2", "--size", "40x24", "--model", str(tiny_model)]
    assert run([*base, "--count", "2", "--out", "one"]) == 0
    assert run([*base, "--seed", "1", "--out", "two"]) == 0
    names = sorted(p.name for p in Path("one").iterdir())
    assert names == ["0000_a-red-chair.png", "0001_a-red-chair.png", "generated.jsonl", "sheet.png"]
    with Image.open("one/0001_a-red-chair.png") as a, Image.open("two/0001_a-red-chair.png") as b:
        assert a.size == (40, 24)
        assert np.array_equal(np.asarray(a), np.asarray(b))
        assert json.loads(a.text["twofold"])["caption"] == "a red chair"  # ty: ignore[missing-attribute]
    capsys.readouterr()
    assert run([*base, "--out", "one", "--guidance", "2"]) == 1
    error = one_line(capsys.readouterr().err)
    assert "0000_a-red-chair.png was generated with other settings (guidance); use --overwrite" in error
    save_image("start.png", size=(50, 30))
    assert run([*base, "--image", "start.png", "--out", "like"]) == 0
    with Image.open("like/0000_a-red-chair.png") as image:
        assert image.size == (40, 24)


def test_doctor_checks_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["doctor", "--json"])
    findings = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = {f["what"] for f in findings}
    assert {
        "python",
        "packages",
        "torch",
        "torchvision",
        "tracer",
        "model",
        "extra io",
        "extra render",
    } <= names
    assert code == (1 if any(f["state"] == "broken" for f in findings) else 0)
    assert {f["what"] for f in findings if f["state"] == "broken"} <= {"model"}


def test_doctor_and_load_report_an_incompatible_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    from twofold import environment
    from twofold.cli.doctor import examine

    fault = "torchvision 1 does not work with torch 2; run: pip uninstall torchvision"
    monkeypatch.setattr(environment, "torchvision_fault", lambda: fault)
    monkeypatch.setattr("twofold.cli.doctor._model", lambda: pytest.skip)
    assert any(f.what == "torchvision" and f.state == "broken" and f.detail == fault for f in examine())
    with pytest.raises(ImportError, match="pip uninstall torchvision"):
        environment.require_sound_torchvision()


def test_an_unexpected_error_is_one_line_without_traceback_option(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise TypeError("of two\nlines")

    monkeypatch.setattr("twofold.predict.inputs.find_inputs", fail)
    assert run(["predict", "a.png"]) == 1
    assert "TypeError: of two lines" in one_line(capsys.readouterr().err)
    assert run(["predict", "a.png", "--verbose"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_is_reported_with_its_exit_code(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("twofold.predict.inputs.find_inputs", stop)
    assert run(["predict", "a.png"]) == 130
    assert "interrupted" in one_line(capsys.readouterr().err)


RECIPE = """
from twofold.train import DataConfig, DenoiserConfig, LoopConfig, OptimizerConfig, Recipe, Source

def quick():
    return Recipe(
        name="quick",
        model=DenoiserConfig(init_from={start!r}),
        data=DataConfig(sources=(Source(path={data!r}),), task_weights={{"depth": 1.0}}, size=(32, 32)),
        optimizer=OptimizerConfig(warmup_steps=1),
        loop=LoopConfig(steps=2, batch_size=2),
    )
"""


def test_train_writes_a_checkpoint_that_predicts(
    here: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from world import folder

    folder(here / "data", count=2, size=32)
    Path("recipes").mkdir()
    Path("recipes/quick.py").write_text(RECIPE.format(start=str(tiny_model), data=str(here / "data")))
    assert run(["train", "quick", "--set", "loop.batch_size=1", "--log-every", "1"]) == 0
    assert "step 2/2" in capsys.readouterr().out
    save_image("a.png")
    assert run(["predict", "a.png", "--task", "depth", "--model", "runs/quick/checkpoint"]) == 0
    capsys.readouterr()
    assert run(["train", "quick", "--set", "colour=red"]) == 2
    assert "colour" in one_line(capsys.readouterr().err)
    assert run(["train", "quick", "--set", "loop.steps=many"]) == 2
    assert "--set loop.steps" in one_line(capsys.readouterr().err)
    assert run(["train", "recipes/quick.py:slow"]) == 2
    assert "no function slow" in one_line(capsys.readouterr().err)


def test_render_writes_a_data_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mitsuba")
    from twofold.data.folder import Folder

    command = ["render", "--count", "1", "--out", "scenes", "--size", "48x32", "--spp", "1", "--workers", "1"]
    assert run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "0000-000000"
    (sample,) = list(Folder("scenes"))
    assert sample.image.shape == (3, 32, 48)
    assert run(command) == 0
    assert "0 scenes rendered, 1 existed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("device", "expected"),
    [("gpu", "choose auto, cpu, cuda"), ("cuda:x", "unknown"), ("cuda:1", "finds no cuda")],
)
def test_unknown_devices_are_reported_in_one_line(
    here: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    device: str,
    expected: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    save_image("a.png")
    assert run(["predict", "a.png", "--model", str(tiny_model), "--device", device]) == 2
    assert expected in one_line(capsys.readouterr().err)
