"""The smoke test of a second stage: warm-up, creation and self-improving, each from the previous one's files."""

import json
import runpy
from pathlib import Path

import pytest
import torch

import world
from twofold.backbones import new
from twofold.checkpoints import ModelSettings, open_model, save_model
from twofold.cli.main import run
from twofold.data.folder import Folder
from twofold.train.recipe import Recipe
from twofold.train.smoke import smoke_config
from twofold.train.smoke_stages import run_stages, second_stage_smoke_config, stages

RECIPES = Path(__file__).parents[1] / "recipes"
SECOND = {
    "diff2in1": ("second_stage", "official_second_stage", "segmentation_second_stage"),
    "multitask": ("nyud_mt_improved", "pascal_context_improved"),
}


def recipe(file: str, name: str) -> Recipe:
    return runpy.run_path(str(RECIPES / f"{file}.py"))[name]()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny generator, and four images with every target of rendered scenes."""
    root = tmp_path_factory.mktemp("stages")
    save_model(new.tiny(), ModelSettings(name="tiny", size=32), root / "model", torch.float32)
    world.rich_folder(root / "balls", 4, 32)
    return root


def small(place: Path, whole: Recipe, **changes) -> Recipe:
    made = second_stage_smoke_config(whole, data=str(place / "balls"), test=str(place / "balls"))
    return made.replace(
        model={"init_from": str(place / "model")},
        data={"size": (32, 32)},
        loop={"steps": 2, "batch_size": 2, "save_every": 1},
        validation={"data": None},
    ).replace(**changes)


@pytest.mark.parametrize("file, name", [(f, n) for f, names in SECOND.items() for n in names])
def test_a_second_stage_is_a_warm_up_and_an_improvement_of_it(file, name):
    whole = recipe(file, name)
    assert whole.data.has_teacher_labels
    with pytest.raises(ValueError, match="the teacher would be random"):
        smoke_config(whole)
    made = second_stage_smoke_config(whole)
    warm, plan = stages(whole, made, Path("runs/x"))
    assert warm.denoiser.reset == ("heads",)
    assert warm.model.init_from == "embedded"
    assert (warm.ema.decay, warm.ema.update_every) == (0.0, 0)
    assert plan.recipe.model.init_from == "runs/x/warm-up/checkpoint"
    assert plan.recipe.denoiser.reset == ()
    assert plan.labels == "teacher"
    assert (plan.recipe.denoiser.head.name, plan.recipe.data.task_weights) == (
        warm.denoiser.head.name,
        warm.data.task_weights,
    )
    assert all(s.labels == "stored" and s.limit == 120 for s in plan.recipe.data.sources)
    real, created = whole.data.sources
    assert plan.share == pytest.approx(created.share / real.share)
    # The teacher forgets its start as far as in the whole recipe.
    moves = whole.loop.steps * whole.loop.batch_size / whole.ema.update_every
    ours = made.loop.steps * made.loop.batch_size / made.ema.update_every
    assert plan.recipe.ema.decay**ours == pytest.approx(whole.ema.decay**moves, rel=0.2)


@pytest.mark.parametrize(
    "file, name", [("diff2in1", "second_stage"), ("multitask", "pascal_context_improved")]
)
def test_each_stage_starts_from_what_the_one_before_left(place, tmp_path, file, name):
    """PASCAL's two class tasks are one in the smoke test, and are stored once."""
    whole = recipe(file, name)
    made = small(place, whole, model={"head": {"options": {}}})
    events = list(run_stages(whole, made, tmp_path / "run"))
    assert [e["stage"] for e in events].index("improve") == 2
    created = Folder(tmp_path / "run" / "round-1" / "created-0")
    assert len(created) == 4
    training = Recipe.read(tmp_path / "run" / "round-1" / "training" / "recipe.json", allow_code=True)
    assert training.model.init_from == str(tmp_path / "run" / "warm-up" / "checkpoint")
    assert training.data.sources[-1].labels == "teacher"
    warm, end = (open_model(str(tmp_path / "run" / n / "checkpoint")) for n in ("warm-up", "."))
    assert warm.tasks == end.tasks
    # The second stage went on from the warm-up: two updates are near it, a fresh head would be far.
    for task, head in end.heads.items():
        for key, value in head.state_dict().items():
            assert torch.allclose(value.float(), warm.heads[task].state_dict()[key].float(), atol=0.1), (
                task,
                key,
            )
    assert list(run_stages(whole, made, tmp_path / "run")) == []


def test_the_command_runs_both_stages(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = {
        "model.init_from": str(place / "model"),
        "data.sources": [{"path": str(place / "balls"), "limit": 2}],
        "data.size": [32, 32],
        "loop.steps": 2,
        "loop.batch_size": 2,
        "validation.data": None,
        "model.head.options": {},
        "loop.save_every": 1,
    }
    words = [x for k, v in settings.items() for x in ("--set", f"{k}={json.dumps(v)}")]
    command = [
        "train",
        f"{RECIPES / 'diff2in1.py'}:second_stage",
        "--smoke-test",
        "--device",
        "cpu",
        "--log-every",
        "1",
    ]
    assert run([*command, *words]) == 0
    output = capsys.readouterr().out
    assert (
        output.index("warm-up: labelled")
        < output.index("improve: generate")
        < output.index("done: runs/smoke-")
    )
    assert len(Folder(tmp_path / "runs/smoke-diff2in1-second-stage/round-1/created-0")) == 2
