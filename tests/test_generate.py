"""`twofold generate`: only by models that can, and resumed like every other command."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from twofold.backbones import new
from twofold.backbones.stable_diffusion import StableDiffusion
from twofold.checkpoints import (
    ModelError,
    ModelSettings,
    check_generator,
    open_generator,
    open_model,
    save_model,
)
from twofold.cli.main import run
from twofold.generate import image_files
from twofold.protocols import MultiStep, OneStep


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(model: Path, *more: str) -> list[str]:
    return [
        "generate",
        "a red chair",
        "a lamp",
        "--steps",
        "2",
        "--size",
        "32x24",
        "--model",
        str(model),
        *more,
    ]


def rows(folder: str = "images") -> dict[str, dict]:
    return {r["name"]: r for r in map(json.loads, Path(folder, "generated.jsonl").read_text().splitlines())}


def test_existing_images_are_kept_and_missing_ones_generated(here, tiny_model, capsys):
    assert run(command(tiny_model, "--count", "2")) == 0
    found = rows()
    assert list(found) == ["0000_a-lamp", "0000_a-red-chair", "0001_a-lamp", "0001_a-red-chair"]
    row = found["0001_a-lamp"]
    assert (row["caption"], row["seed"], row["size"], row["status"]) == ("a lamp", 1, [24, 32], "done")
    assert len(row["settings"]["digest"]) == 64
    before = {p.name: p.read_bytes() for p in Path("images").iterdir()}
    Path("images/0001_a-lamp.png").unlink()
    capsys.readouterr()
    assert run(command(tiny_model, "--count", "2")) == 0
    assert "1 generated, 3 kept" in capsys.readouterr().out
    images = [n for n in before if n.endswith(".png")]
    for name in images:
        with (
            Image.open(Path("images", name)) as image,
            Image.open(__import__("io").BytesIO(before[name])) as old,
        ):
            assert np.array_equal(np.asarray(image), np.asarray(old))
    # Another count goes on; another setting is not taken for the same image.
    assert run(command(tiny_model, "--count", "3", "--json")) == 0
    assert [json.loads(x)["status"] for x in capsys.readouterr().out.splitlines()] == [
        "kept",
        "kept",
        "done",
    ] * 2
    assert run(command(tiny_model, "--guidance", "1", "--json")) == 1
    assert "generated with other settings (guidance); use --overwrite" in capsys.readouterr().err
    assert rows()["0000_a-lamp"]["settings"]["guidance"] == 3.0
    assert run(command(tiny_model, "--guidance", "1", "--overwrite")) == 0
    assert rows()["0000_a-lamp"]["settings"]["guidance"] == 1.0


def test_a_kill_between_a_file_and_its_row_is_repaired(here, tiny_model, capsys):
    assert run(command(tiny_model)) == 0
    log = Path("images/generated.jsonl")
    log.write_text(log.read_text().splitlines()[0] + "\n" + '{"schema": "twof')
    assert run(command(tiny_model)) == 0
    assert "1 generated, 1 kept" in capsys.readouterr().out
    assert len(rows()) == 2
    log.unlink()
    Path("images/0000_a-lamp.png").write_bytes(b"somebody's file")
    assert run(command(tiny_model)) == 1
    assert "0000_a-lamp.png exists and generated.jsonl does not list it" in capsys.readouterr().err
    assert Path("images/0000_a-lamp.png").read_bytes() == b"somebody's file"


def test_one_image_that_fails_is_one_failed_row(here, tiny_model, capsys, monkeypatch):
    real = StableDiffusion.decode
    calls = []

    def decode(self, latent):
        calls.append(1)
        return real(self, latent) * (math.nan if len(calls) == 1 else 1)

    monkeypatch.setattr(StableDiffusion, "decode", decode)
    assert run(command(tiny_model)) == 1
    record = capsys.readouterr()
    assert "the generated image of 'a red chair' is NaN or infinite" in record.err
    assert "1 generated, 1 failed" in record.out
    assert rows()["0000_a-red-chair"]["status"] == "failed"
    assert not Path("images/0000_a-red-chair.png").exists()
    assert run(command(tiny_model)) == 0
    assert rows()["0000_a-red-chair"]["status"] == "done"


@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_deleted_during_the_run_is_an_error(here, tiny_model, capsys, monkeypatch, replaced):
    """Libraries make missing folders: without a check the run would end with half of the images, and exit code 0."""
    generate = image_files._generate_file

    def deleted(options: Any, request: Any, log: Any) -> Any:
        row = generate(options, request, log)
        if request.name == "0000_a-red-chair":
            shutil.rmtree(options.out)
            if replaced:
                options.out.mkdir()
        return row

    with monkeypatch.context() as patch:
        patch.setattr(image_files, "_generate_file", deleted)
        assert run(command(tiny_model, "--count", "2")) == 1
    assert "images" in capsys.readouterr().err
    assert run(command(tiny_model, "--count", "2")) == 0
    assert len(rows()) == 4


def test_an_image_to_start_from_is_part_of_the_settings(here, tiny_model, capsys):
    for name, level in (("a.png", 50), ("b.png", 200)):
        Image.new("RGB", (40, 30), (level, 20, 90)).save(name)
    assert run(command(tiny_model, "--image", "a.png", "--strength", "0.5")) == 0
    assert run(command(tiny_model, "--image", "b.png", "--strength", "0.5")) == 1
    assert "(image_sha256)" in capsys.readouterr().err


# ---- models that cannot generate


def variant(tmp_path: Path, name: str) -> Path:
    net, settings = new.tiny(), ModelSettings(name=name, size=32).with_tasks(["depth"], OneStep(), "none")
    if name == "eight channels":
        unet = type(net.unet).from_config({**dict(net.unet.config), "in_channels": 8})
        net = StableDiffusion(
            unet.eval(), net.vae, net.text_encoder, net.tokenizer, net.schedule.config
        ).eval()
        settings = ModelSettings(name=name, size=32).with_tasks(["depth"], MultiStep(2, final="prev"), "none")
    elif name == "no text":
        net.cache_prompt_embeds(["", "depth map"])
    elif name == "headless":
        net.unet.conv_out = torch.nn.Identity()
    else:
        settings = settings.model_copy(update={"generates": False})
    save_model(net, settings, tmp_path / name, torch.float32)
    return tmp_path / name


REASONS = {
    "eight channels": r"takes 8 channels \(an image and the noise\), not 4",
    "no text": "has no text encoder",
    "headless": "has no output layer",
    "perception": "trained for perception only",
}


@pytest.mark.parametrize("name", REASONS)
def test_a_model_that_cannot_generate_is_refused_before_anything_is_written(here, tmp_path, capsys, name):
    import world

    folder = variant(tmp_path, name)
    with pytest.raises(ModelError, match=f"cannot generate images: .*{REASONS[name]}"):
        open_generator(folder)
    world.folder(here / "data", count=1, size=32)
    for arguments in (command(folder), ["create", "data", "--out", "created", "--model", str(folder)]):
        assert run(arguments) == 2
        assert "cannot generate images" in capsys.readouterr().err
    assert not Path("images").exists() and not Path("created").exists()


def test_a_published_perception_model_is_refused_before_it_is_fetched(here, capsys, monkeypatch):
    monkeypatch.setattr("twofold.checkpoints.opening.fetch", lambda *_, **__: pytest.fail("it was fetched"))
    assert run(["generate", "a chair", "--model", "marigold-depth-v1-1"]) == 2
    assert "marigold-depth-v1-1 cannot generate images" in capsys.readouterr().err


def test_a_run_records_whether_its_model_still_generates(here, tiny_model):
    import world
    from twofold.train import (
        DataConfig,
        DenoiserConfig,
        LoopConfig,
        OptimizerConfig,
        Recipe,
        Source,
        ValidationConfig,
    )
    from twofold.train.run import run_recipe

    world.folder(here / "data", count=2, size=32)
    base = Recipe(
        name="x",
        model=DenoiserConfig(init_from=str(tiny_model)),
        data=DataConfig(sources=(Source(path="data"),), task_weights={"depth": 1.0}, size=(32, 32)),
        optimizer=OptimizerConfig(warmup_steps=0),
        loop=LoopConfig(steps=1, batch_size=1),
        validation=ValidationConfig(every=0),
    )
    expected = {"full": False, "both": True, "frozen": None}
    changes = {
        "full": {},
        "both": {"data": {"task_weights": {"depth": 1.0, "image": 1.0}}},
        "frozen": {
            "model": {
                "unet": "frozen",
                "head": {"name": "light"},
                "latent_loss_weight": 0.0,
                "pixel_loss_weight": 1.0,
                "text_encoder": "frozen",
            }
        },
    }
    for name, change in changes.items():
        list(run_recipe(base.replace(name=name, **change), here / name))
        model = open_model(here / name / "checkpoint")
        assert model.settings.generates is expected[name]
        if name == "full":
            with pytest.raises(ModelError, match="perception only"):
                check_generator(model)
        else:
            check_generator(model)
