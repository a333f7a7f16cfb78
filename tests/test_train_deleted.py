"""A run folder that is deleted during the run ends the run with an error, and is not created again."""

from __future__ import annotations

import errno
import shutil

import pytest
import torch

import twofold.train.run as running
import world
from twofold.backbones import new
from twofold.checkpoints import save_model
from twofold.checkpoints.settings import ModelSettings
from twofold.cli.main import run as command
from twofold.train import DataConfig, DenoiserConfig, LoopConfig, Recipe, Source, ValidationConfig
from twofold.train.run import run_recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Recipe:
    root = tmp_path_factory.mktemp("deleted")
    save_model(new.tiny(), ModelSettings(name="tiny", size=32), root / "model", torch.float32)
    world.folder(root / "balls", size=32)
    return Recipe(
        name="deleted",
        model=DenoiserConfig(init_from=str(root / "model")),
        data=DataConfig(
            sources=(Source(path=str(root / "balls")),), task_weights={"depth": 1.0}, size=(32, 32)
        ),
        loop=LoopConfig(steps=3, batch_size=2, save_every=0),
        validation=ValidationConfig(data=str(root / "balls"), every=1, num_samples=1),
    )


@pytest.mark.parametrize("replaced", [False, True], ids=["deleted", "replaced"])
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_deleted_run_folder_ends_the_run(recipe, tmp_path, after, replaced):
    run = tmp_path / "run"
    records = run_recipe(recipe, run)
    for _ in range(after):
        next(records)
    shutil.rmtree(run)
    if replaced:
        (tmp_path / "other").mkdir()  # takes an inode, so that the new folder has another
        run.mkdir()
    with pytest.raises(OSError, match="deleted") as caught:
        list(records)
    assert caught.value.errno == errno.ENOENT and caught.value.filename == str(run)
    assert [*run.iterdir()] == [] if replaced else not run.exists()


def test_the_command_ends_with_an_error(recipe, tmp_path, monkeypatch, capsys):
    recipe.save(tmp_path / "recipe.json")
    run, inner = tmp_path / "run", running.run_recipe

    def deleting(*args):
        for record in inner(*args):
            yield record
            shutil.rmtree(run)

    monkeypatch.setattr(running, "run_recipe", deleting)
    assert command(["train", str(tmp_path / "recipe.json"), "--out", str(run)]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("twofold: ") and str(run) in error and "deleted or replaced" in error
    assert not run.exists()
