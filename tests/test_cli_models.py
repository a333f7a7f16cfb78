"""The commands that list and convert models, and the upload to the hub."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from twofold.backbones import new
from twofold.backbones.stable_diffusion import StableDiffusion
from twofold.checkpoints import PUBLISHED, ModelSettings, TaskSettings, open_model, push_model, save_model
from twofold.cli.main import run
from twofold.image import write_image
from twofold.protocols import MultiStep


def test_models_lists_all_models_and_prints_the_details_of_one(capsys):
    assert run(["models"]) == 0
    output = capsys.readouterr().out
    assert all(key in output for key in ("embedded", *PUBLISHED))
    assert run(["models", "jingheya/lotus-normal-d-v1-1"]) == 0
    output = capsys.readouterr().out
    assert "arXiv 2409.18124" in output
    assert "timestep=999" in output
    assert "LUB" in output
    assert run(["models", "--json"]) == 0
    rows = [json.loads(x) for x in capsys.readouterr().out.splitlines()]
    assert [r["name"] for r in rows] == ["embedded", *PUBLISHED]
    assert run(["models", "marygold"]) == 2
    assert "'twofold models' lists them" in capsys.readouterr().err


@pytest.fixture
def random_model(tmp_path):
    """A saved model with random weights and multi-step protocols."""
    net = new.tiny()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        unet = type(net.unet).from_config({**dict(net.unet.config), "in_channels": 8})
    net = StableDiffusion(unet.eval(), net.vae, net.text_encoder, net.tokenizer, net.schedule.config)
    settings = ModelSettings(name="mine", size=48, tasks={
        "depth": TaskSettings(protocol=MultiStep(2, final="prev"), space="depth"),
        "again": TaskSettings(task="normals", protocol=MultiStep(2), space="normals", frame="LUB"),
    })  # fmt: skip
    save_model(net, settings, tmp_path / "mine", torch.float32)
    return tmp_path / "mine"


def test_a_converted_model_without_its_text_encoder_predicts_the_same(random_model, tmp_path, capsys):
    out = tmp_path / "bare"
    command = ["convert-checkpoint", str(random_model), str(out), "--dtype", "float32", "--drop-text"]
    assert run(command) == 0
    assert not (out / "text_encoder").exists()
    image = torch.rand(3, 40, 48, generator=torch.Generator().manual_seed(0))
    for task in ("depth", "again"):
        before, after = (open_model(str(f)).predictor(task)(image, seed=3) for f in (random_model, out))
        torch.testing.assert_close(after.map, before.map, rtol=0, atol=1e-6)
        assert after.space == before.space
    assert "twofold predict photo.jpg" in (out / "README.md").read_text()
    assert run(command) == 2
    assert "not overwritten" in capsys.readouterr().err


def test_predict_merges_ensembles_with_uncertainty(random_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_image(Path("a.png"), torch.rand(3, 40, 48, generator=torch.Generator().manual_seed(0)))
    command = ["predict", "a.png", "--model", str(random_model), "--task", "depth", "--ensemble", "3"]
    assert run([*command, "--steps", "1"]) == 0
    assert np.load("predictions/a_depth_uncertainty.npy").shape == (40, 48)
    row = json.loads(Path("predictions/predictions.jsonl").read_text())
    settings = row["tasks"]["depth"]["settings"]
    assert (settings["ensemble"], settings["protocol"]["steps"]) == (3, 1)
    assert run([*command, "--steps", "2"]) == 1  # results of other settings are not overwritten


def test_a_failed_upload_reports_the_reason(random_model, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no connection")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", refuse)
    with pytest.raises(ValueError, match=r"no connection.*hf auth login"):
        push_model(random_model, "me/mine")


def test_push_model_uploads_the_whole_folder(random_model, monkeypatch):
    sent = {}
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", lambda self, repo, exist_ok: None)
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", lambda self, **k: sent.update(k) or "address")
    assert push_model(random_model, "me/mine") == "address"
    assert sent["folder_path"] == random_model
    assert (random_model / "README.md").read_text().startswith("---\nlibrary_name: diffusers")
