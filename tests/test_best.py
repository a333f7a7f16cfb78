"""A run saves the weights of its best validation score, and stops early after `patience` worse ones."""

import pytest
import torch

import world
from twofold.backbones import new
from twofold.checkpoints import ModelSettings, open_model, save_model
from twofold.data import Folder
from twofold.evaluate import score
from twofold.train import (
    DataConfig,
    DenoiserConfig,
    EmaConfig,
    HeadConfig,
    LoopConfig,
    OptimizerConfig,
    Recipe,
    Source,
    ValidationConfig,
)
from twofold.train.best import BestWeights
from twofold.train.run import run_recipe, save_student
from twofold.train.state import Ema


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Normals of four balls by a tiny network with a light head, scored on the training data after every step."""
    root = tmp_path_factory.mktemp("best")
    save_model(new.tiny(), ModelSettings(name="tiny", size=32), root / "model", torch.float32)
    world.folder(root / "balls", 4, 32)
    return Recipe(
        name="best",
        model=DenoiserConfig(
            init_from=str(root / "model"),
            unet="frozen",
            text_encoder="frozen",
            head=HeadConfig(name="light"),
            latent_loss_weight=0.0,
            pixel_loss_weight=1.0,
        ),
        data=DataConfig(
            task_weights={"normals": 1.0}, size=(32, 32), sources=(Source(path=str(root / "balls")),)
        ),
        optimizer=OptimizerConfig(lr=0.02, warmup_steps=0),
        ema=EmaConfig(decay=0.0),
        loop=LoopConfig(steps=8, batch_size=4, save_every=3),
        validation=ValidationConfig(
            data=str(root / "balls"), every=1, num_samples=4, best_metric="normals/mean"
        ),
    )


def weights(folder):
    return open_model(str(folder)).heads["normals"].state_dict()


def scores(records):
    return [r["validation"]["normals/mean"] for r in records]


def diverging(recipe):
    """A run whose learning rate rises until it diverges."""
    return recipe.replace(optimizer={"lr": 1.5, "schedule": "linear", "warmup_steps": 8})


def test_the_checkpoint_has_the_weights_of_the_best_score(recipe, tmp_path):
    records = list(run_recipe(diverging(recipe), tmp_path / "run"))
    found = scores(records)
    assert [r["step"] for r in records] == list(range(9))
    best = found.index(min(found))
    assert 0 < best < 8, found  # otherwise the first or the last weights would pass as well
    assert records[-1]["best"] == {"step": best, "score": found[best]}
    model = open_model(str(tmp_path / "run" / "checkpoint"))
    again = score([model.predictor("normals")], list(Folder(recipe.validation.data)))["normals/mean"]
    # The checkpoint is in half precision.
    assert again == pytest.approx(found[best], abs=0.05)


def test_the_best_weights_are_the_ema_weights_that_were_scored(recipe, tmp_path):
    """Not the raw weights, which the module holds again when the file is written."""
    module = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(module.weight)
    ema = Ema(module, 0.9)
    torch.nn.init.ones_(module.weight)
    ema.update()
    average = ema.average["weight"].item()
    assert 0 < average < 1
    best = BestWeights(tmp_path / "best.pt", recipe)
    best.update(1, {"normals/mean": 3.0}, module, ema, write=True)
    assert (module.weight.item(), ema.average["weight"].item()) == (1.0, average)
    best.update(2, {"normals/mean": 3.0}, module, ema, write=True)
    again = BestWeights(tmp_path / "best.pt", recipe)
    assert (again.step, again.score) == (1, 3.0), "a tie is not better"
    assert again.restore(module) and module.weight.item() == average


def test_a_nan_score_is_never_the_best(recipe, tmp_path):
    best = BestWeights(tmp_path / "best.pt", recipe)
    module = torch.nn.Linear(1, 1)
    best.update(1, {"normals/mean": float("nan")}, module, Ema(module, 0.9), write=True)
    assert not best.restore(module)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_resumed_run_stops_early_at_the_same_step(recipe, tmp_path, stop):
    diverging_recipe = diverging(recipe).replace(validation={"patience": 2})
    whole = list(run_recipe(diverging_recipe, tmp_path / "whole"))
    best = whole[-1]["best"]["step"]
    assert whole[-1]["step"] == best + 2 < 8
    records = run_recipe(diverging_recipe, tmp_path / "parts")
    for _ in range(stop):
        next(records)
    records.close()
    rest = list(run_recipe(diverging_recipe, tmp_path / "parts"))
    assert rest[-1]["step"] == whole[-1]["step"] and rest[-1]["best"] == whole[-1]["best"]
    a, b = weights(tmp_path / "whole" / "checkpoint"), weights(tmp_path / "parts" / "checkpoint")
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_save_student_writes_the_last_weights(recipe, tmp_path):
    diverging_recipe = diverging(recipe).replace(validation={"patience": 2})
    records = list(run_recipe(diverging_recipe, tmp_path / "run"))
    save_student(diverging_recipe, tmp_path / "run", tmp_path / "last")
    model = open_model(str(tmp_path / "last"))
    again = score([model.predictor("normals")], list(Folder(recipe.validation.data)))["normals/mean"]
    assert again == pytest.approx(scores(records)[-1], abs=0.05)


def test_an_unknown_best_metric_is_refused(recipe, tmp_path):
    with pytest.raises(ValueError, match="its scores: normals/mean"):
        list(run_recipe(recipe.replace(validation={"best_metric": "normals/meen"}), tmp_path / "run"))
    with pytest.raises(ValueError, match="patience needs a score"):
        recipe.replace(validation={"best_metric": "", "patience": 3})
    with pytest.raises(ValueError, match=r"needs a task, validation\.data"):
        recipe.replace(validation={"data": None})


def test_a_second_command_in_the_same_run_folder_is_refused(recipe, tmp_path):
    pytest.importorskip("fcntl")
    records = run_recipe(recipe, tmp_path / "run")
    next(records)
    with pytest.raises(ValueError, match="another command trains in"):
        next(run_recipe(recipe, tmp_path / "run"))
    records.close()
    assert next(run_recipe(recipe, tmp_path / "run"))["step"] == 0
