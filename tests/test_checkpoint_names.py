"""Names in a checkpoint become file names: none may lead out of the folder that is read or written."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from twofold.backbones import new
from twofold.checkpoints import ModelError, ModelSettings, open_model, save_model
from twofold.checkpoints.components import LoadOptions
from twofold.checkpoints.heads import open_heads, save_heads
from twofold.cli.main import run
from twofold.heads import LatentHead, make_head, share_modules
from twofold.image import write_image
from twofold.io import UnsafeNameError
from twofold.protocols import OneStep
from twofold.tasks import depth
from twofold.train import AutoencoderConfig, DataConfig, DenoiserConfig, Recipe, Source
from twofold.train.trainable import make_tasks

BAD = (
    "../neighbour", "../../neighbour", "a/b", "/neighbour", "..", ".", "", "..\\neighbour", "C:neighbour", "nul",
    "a\x00b", "a\nb", "\ud800", "x" * 300, "a:b", "a.", "a ",
)  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``a/model`` with a head that has weights, and ``a/neighbour`` and ``neighbour``, which must not be touched."""
    tmp_path, net = tmp_path_factory.mktemp("names"), new.tiny()
    settings = ModelSettings(name="tiny", size=32).with_tasks(["depth"], OneStep(), "none", "light")
    heads = {"depth": make_head("light", net, 1)}
    save_model(net, settings, tmp_path / "a" / "model", torch.float32, heads)
    for place in (tmp_path / "neighbour", tmp_path / "a" / "neighbour"):
        shutil.copytree(tmp_path / "a" / "model" / "heads" / "depth", place)
    write_image(tmp_path / "photo.png", torch.rand(3, 32, 32))
    heads = {
        t: make_head("multitask", net, n, widths=[128, 16, 16, 16, 16])
        for t, n in (("depth", 1), ("mask", 3))
    }
    share_modules(heads, {}, [])
    save_heads(heads, tmp_path / "shared", torch.float32)
    return tmp_path


@pytest.fixture
def root(source: Path, tmp_path: Path) -> Path:
    """A copy of `source`, to be damaged."""
    return shutil.copytree(source, tmp_path / "root")


def contents(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*")
        if p.is_file()
    }


def edit(path: Path, change: Any) -> None:
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


@pytest.mark.parametrize("name", BAD)
def test_a_task_name_that_is_not_a_file_name_is_refused(root, name, monkeypatch, capsys):
    monkeypatch.chdir(root)

    def change(found: dict[str, Any]) -> None:
        found["tasks"] = {name: {**found["tasks"]["depth"], "task": "depth"}}

    edit(root / "a" / "model" / "twofold.json", change)
    before = contents(root)
    for command in (
        ["convert-checkpoint", "a/model", "a/out"],
        ["predict", "photo.png", "--model", "a/model"],
    ):
        assert run(command) == 2
        error = capsys.readouterr().err
        assert "a/model/twofold.json" in error
        assert error.count("\n") == 1
    with pytest.raises(ModelError, match="the task"):
        open_model("a/model")
    assert contents(root) == before


@pytest.mark.parametrize("name", [n for n in BAD if n != "\ud800"])
def test_heads_with_unsafe_names_are_neither_saved_nor_opened(root, name):
    """Called directly, without the earlier check of `twofold.json`."""
    before = contents(root)
    with pytest.raises(UnsafeNameError):
        save_heads({name: LatentHead()}, root / "a" / "new", torch.float32)
    with pytest.raises(ModelError, match="the task"):
        open_heads(root / "a" / "model" / "heads", {name: "light"}, LoadOptions())
    assert contents(root) == before


@pytest.mark.parametrize("name", [*BAD, 3, None, ["a"], {}])
def test_an_unsafe_name_of_a_shared_module_is_refused(root, name):
    kinds = {"depth": "multitask", "mask": "multitask"}
    edit(root / "shared" / "depth" / "shared.json", lambda found: found.update(fusion=name))
    with pytest.raises(ModelError, match=r"shared\.json.*the folder of fusion"):
        open_heads(root / "shared", kinds, LoadOptions())


@pytest.mark.parametrize("name", [*BAD, "../../neighbour/model.safetensors", 3, None, ["a"]])
def test_an_unsafe_shard_name_in_an_index_is_refused(root, name):
    unet = root / "a" / "model" / "unet"
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"conv_in.weight": name}})
    )
    with pytest.raises(ModelError, match=r"index\.json.*the shard"):
        open_model(str(root / "a" / "model"))


@pytest.mark.parametrize("name", BAD)
def test_a_recipe_name_that_is_no_folder_name_is_refused(name):
    """A run is written to ``runs/NAME``."""
    with pytest.raises(ValueError, match="the recipe's name"):
        Recipe(name=name, model=AutoencoderConfig(), data=DataConfig(sources=(Source(path="x"),)))


def test_names_of_user_defined_tasks_are_checked_before_training(monkeypatch):
    import twofold.train.trainable as trainable

    recipe = Recipe(
        name="r",
        model=DenoiserConfig(),
        data=DataConfig(sources=(Source(path="x"),), task_weights={"depth": 1.0}),
    )
    monkeypatch.setattr(trainable, "get_task", lambda name: replace(depth, name="../depth"))
    with pytest.raises(ValueError, match="the name of the task"):
        make_tasks(recipe)
