"""Self-improving from end to end: create, train on both, repeat; killed at any moment, it ends with the same files."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import world
from twofold.backbones import new
from twofold.checkpoints import ModelSettings, open_model, save_model
from twofold.data import Folder
from twofold.generate import GenerationConfig
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
from twofold.train.improve import _round_recipe, gains, improve
from twofold.train.improvement import EMA_DECAY, EMA_UPDATE_EVERY, Improvement
from twofold.train.run import run_recipe


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A tiny model warmed up for two steps on four balls."""
    root = tmp_path_factory.mktemp("improve")
    save_model(new.tiny(), ModelSettings(name="tiny", size=32), root / "model", torch.float32)
    world.folder(root / "balls", 4, 32)
    recipe = Recipe(
        name="warm",
        model=DenoiserConfig(
            init_from=str(root / "model"),
            unet="frozen",
            text_encoder="frozen",
            head=HeadConfig(name="light"),
            latent_loss_weight=0.0,
            pixel_loss_weight=1.0,
        ),
        data=DataConfig(
            task_weights={"depth": 1.0, "normals": 1.0},
            size=(32, 32),
            sources=(Source(path=str(root / "balls")),),
        ),
        optimizer=OptimizerConfig(warmup_steps=0),
        ema=EmaConfig(decay=0.9),
        loop=LoopConfig(steps=2, batch_size=4, save_every=1),
        validation=ValidationConfig(every=0),
    )
    list(run_recipe(recipe, root / "warm"))
    return recipe.replace(
        name="better", model={"init_from": str(root / "warm" / "checkpoint")}, data={"label_limit": 3}
    )


def plan(warm, **changes):
    settings = GenerationConfig(strength=0.5, steps=2, guidance=1.0, scoring="cheap")
    return Improvement.of(warm, generation=settings, **{"rounds": 2, "per_image": 2, **changes})


def weights(folder):
    model = open_model(str(folder))
    return {f"{t}.{k}": v for t, h in model.heads.items() for k, v in h.state_dict().items()}


def test_all_created_folders_together_have_the_share_of_the_plan(warm, tmp_path):
    """Real sources have 1 and 2 of the examples; created ones half as many, split evenly over their two folders."""
    sources = [{"path": "a", "share": 1.0}, {"path": "b", "share": 2.0}]
    made = plan(warm.replace(data={"sources": sources, "label_limit": 0}), share=0.5)
    for number in (0, 1):
        (tmp_path / f"created-{number}").mkdir()
        (tmp_path / f"created-{number}" / "metadata.jsonl").write_text('{"id": "x"}\n')
    recipe = _round_recipe(made, "start", 1, tmp_path)
    assert [source.share for source in recipe.data.sources] == [1.0, 2.0, 0.75, 0.75]
    assert [source.labels for source in recipe.data.sources] == ["stored", "stored", made.labels, made.labels]
    assert recipe.model.init_from == "start"


def test_rounds_create_from_labelled_samples_and_train_on_both(warm, tmp_path):
    made = plan(warm)
    assert (made.recipe.ema.decay, made.recipe.ema.update_every) == (0.9, EMA_UPDATE_EVERY), (
        "what the recipe says is kept"
    )
    by_default = Improvement.of(warm.replace(ema={"decay": EmaConfig().decay}))
    assert (by_default.recipe.ema.decay, by_default.recipe.ema.update_every) == (EMA_DECAY, EMA_UPDATE_EVERY)
    events = list(improve(made, tmp_path / "run"))
    created = [e for e in events if e.get("status") == "created"]
    # Two of each of the three labelled samples, in both rounds; the fourth is not to be used.
    assert [e["round"] for e in created] == [1] * 6 + [2] * 6
    sources = {e["source"] for e in created}
    assert len(sources) == 3
    first, second = (Folder(tmp_path / "run" / f"round-{n}" / "created-0") for n in (1, 2))
    assert not torch.equal(first[0].image, second[0].image)
    assert all(world.origin_of(s).kind == "synthetic" and world.origin_of(s).parents for s in first)
    names = {e["round"] for e in events if "loss" in e}
    assert names == {1, 2}
    assert set(open_model(str(tmp_path / "run" / "checkpoint")).tasks) == {"depth", "normals"}


@pytest.mark.parametrize("event", ["status", "loss"], ids=["while images are created", "while it trains"])
def test_a_deleted_run_folder_ends_the_run(warm, tmp_path, event):
    records = improve(plan(warm, rounds=1), tmp_path / "run")
    while event not in next(records):
        pass
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(OSError, match="deleted or replaced"):
        list(records)
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_interrupted_anywhere_ends_in_the_same_files(warm, tmp_path):
    made = plan(warm, rounds=1)
    whole = list(improve(made, tmp_path / "whole"))
    for stop in (2, len(whole) - 1):  # in the middle of creating, and of training
        events = improve(made, tmp_path / "parts")
        for _ in range(min(stop, 3)):
            if next(events, None) is None:
                break
        events.close()
    list(improve(made, tmp_path / "parts"))
    a, b = (weights(tmp_path / n / "checkpoint") for n in ("whole", "parts"))
    assert all(torch.equal(a[k], b[k]) for k in a)
    one, other = (tmp_path / n / "round-1" / "created-0" for n in ("whole", "parts"))
    files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(other) for p in other.rglob("*") if p.is_file())
    assert all((one / f).read_bytes() == (other / f).read_bytes() for f in files)


def test_images_are_created_from_labelled_samples_only(warm, tmp_path):
    """Unlabelled images, a source without a share and one with pseudo-labels are not sources of creation."""
    world.folder(tmp_path / "more", 5, 32)
    rows = (tmp_path / "more" / "metadata.jsonl").read_text().splitlines(keepends=True)
    bare = [
        json.dumps({k: v for k, v in json.loads(row).items() if k != "targets"}) + "\n" for row in rows[:3]
    ]
    (tmp_path / "more" / "metadata.jsonl").write_text("".join(bare + rows[3:]))
    more, balls = Source(path=str(tmp_path / "more")), warm.data.sources[0]
    sources = (
        more,
        more.model_copy(update={"labels": "teacher"}),
        balls.model_copy(update={"share": 0.0}),
        balls,
    )
    recipe = warm.replace(data={"sources": [s.model_dump() for s in sources], "label_limit": 4})
    events = list(improve(plan(recipe, rounds=1, per_image=1, share=0.5), tmp_path / "run"))
    drawn = [e["source"] for e in events if e.get("status") == "created"]
    assert len(drawn) == 4 and len({str(d) for d in drawn[:2]}) == 2
    trained = Recipe.read(tmp_path / "run" / "round-1" / "training" / "recipe.json").data.sources[
        len(sources) :
    ]
    assert sum(s.share for s in trained) == pytest.approx(0.5 * sum(s.share for s in sources))


def test_what_cannot_improve_is_refused(warm):
    with pytest.raises(ValueError, match="not from 'new'"):
        Improvement.of(warm.replace(model={"init_from": "new"}))
    with pytest.raises(ValueError, match="averaged weights"):
        Improvement(recipe=warm.replace(ema={"decay": 0.0}))


def test_a_recipe_that_resets_heads_is_refused_before_it_wipes_the_warm_up(warm, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"resets heads.*would discard.*reset=\[\]"):
        Improvement.of(warm.replace(model={"reset": ["heads"]}))
    with pytest.raises(ValueError, match="would make that random"):
        sources = [{"path": "x", "labels": "teacher"}]
        warm.replace(model={"reset": ["heads"]}, data={"sources": sources})
    with pytest.raises(ValueError, match="no trained teacher"):
        Improvement.of(warm.replace(model={"reset": ["heads"]}), fresh_student=True)
    with pytest.raises(ValueError, match="this one resets none"):
        Improvement.of(warm, fresh_student=True, labels="stored")
    # With the option, a new student is trained on labels that the last round stored.
    made = plan(warm.replace(model={"reset": ["heads"]}), fresh_student=True, labels="stored", rounds=1)
    list(improve(made, tmp_path / "run"))
    fresh = Recipe.read(tmp_path / "run" / "round-1" / "training" / "recipe.json")
    assert fresh.reset == ("heads",)
    assert {s.labels for s in fresh.data.sources} == {"stored"}


@pytest.mark.parametrize(
    "changes", [{"model": {"head": {"name": "dpt"}}}, {"model": {"head": {"options": {"width": 32}}}}]
)
def test_another_head_than_was_warmed_up_is_refused(warm, tmp_path, changes):
    """It would begin from random weights, and the teacher with it."""
    with pytest.raises(ValueError, match=r"would start from a random head"):
        next(improve(plan(warm.replace(**changes)), tmp_path / "run"))
    assert not (tmp_path / "run" / "improvement.json").exists()


def test_a_recipe_without_an_average_improves_with_the_published_teacher(warm):
    assert Improvement.of(warm.replace(ema={"decay": 0.0})).recipe == warm.replace(
        ema={"decay": EMA_DECAY, "update_every": EMA_UPDATE_EVERY}
    )
    paced = Improvement.of(warm.replace(ema={"decay": 0.0, "update_every": 80})).recipe
    assert (paced.ema.decay, paced.ema.update_every) == (EMA_DECAY, 80)
    # Stored labels need no teacher: then no average stays no average.
    stored = Improvement.of(warm.replace(ema={"decay": 0.0}), labels="stored").recipe
    assert (stored.ema.decay, stored.ema.update_every) == (0.0, 0)


def test_a_folder_belongs_to_one_plan(warm, tmp_path):
    next(improve(plan(warm), tmp_path / "run"))
    with pytest.raises(ValueError, match="another plan"):
        next(improve(plan(warm, share=2.0), tmp_path / "run"))


def test_the_command_runs_a_recipe_file(warm, tmp_path, capsys):
    from twofold.cli.main import run

    file = tmp_path / "recipe.json"
    warm.save(file)
    arguments = [
        "improve",
        str(file),
        "--out",
        str(tmp_path / "run"),
        "--strength",
        "0.4",
        "--steps",
        "2",
        "--set",
        "data.label_limit=2",
    ]
    assert run([*arguments, "--guidance", "1", "--log-every", "1", "--device", "cpu"]) == 0
    output = capsys.readouterr().out
    assert "round 1/1  step 2/2" in output
    assert (tmp_path / "run" / "checkpoint" / "twofold.json").exists()
    assert run([*arguments, "--guidance", "2"]) == 2  # another plan
    assert "another plan" in capsys.readouterr().err


def test_relative_depth_trains_tasks_of_its_space_only_and_is_not_ground_truth(warm, tmp_path):
    from twofold.cli.main import run
    from twofold.tasks import get_task
    from twofold.train.examples import with_target

    list(improve(plan(warm, rounds=1), tmp_path / "run"))
    made = Folder(tmp_path / "run" / "round-1" / "created-0")
    indices = list(range(len(made)))
    assert with_target(made, get_task("depth"), indices) == indices
    assert with_target(made, get_task("disparity"), indices) == []
    arguments = ["evaluate", "--protocol", "depth/marigold-ls", "--data", str(made.root), "--allow-synthetic"]
    assert run([*arguments, "--out", str(tmp_path / "report")]) == 2


def test_the_student_is_saved_beside_the_teacher(warm, tmp_path):
    made = plan(warm, rounds=1)
    list(improve(made, tmp_path / "run"))
    teacher, student, before = (
        weights(p)
        for p in (tmp_path / "run" / "checkpoint", tmp_path / "run" / "student", made.recipe.model.init_from)
    )
    state = torch.load(tmp_path / "run" / "round-1" / "training" / "state.pt", weights_only=True)
    moved = [k for k in student if not torch.equal(student[k], before[k])]
    assert moved
    for key in moved:
        task, _, name = key.partition(".")
        # Checkpoints hold half floats.
        assert torch.equal(
            student[key], state["weights"][f"heads.{task}.{name}"].half().to(student[key].dtype)
        )
    # Two updates of four examples are no forty: the teacher has not moved.
    assert all(torch.equal(teacher[k], before[k]) for k in teacher if "num_batches" not in k)


def test_rounds_end_with_the_first_that_is_no_better(warm, tmp_path):
    """A learning rate that ruins the model: what was there before is the best of the first round, and is kept."""
    recipe = warm.replace(
        optimizer={"lr": 1.0},
        ema={"decay": 0.5, "update_every": 1},
        validation={"best_metric": "depth/abs_rel", "data": warm.data.sources[0].path, "every": 1},
    )
    events = list(improve(plan(recipe, rounds=3), tmp_path / "run"))
    assert {e["round"] for e in events} == {1}
    records = [e for e in events if "validation" in e]
    assert [r["step"] for r in records] == [0, 1, 2] and records[-1]["best"]["step"] == 0
    first = records[0]["validation"]["depth/abs_rel"]
    assert gains(tmp_path / "run", recipe.validation.best_metric) == [(first, first, 0)]
    kept, before = weights(tmp_path / "run" / "checkpoint"), weights(recipe.model.init_from)
    assert all(torch.equal(kept[k], before[k]) for k in kept)


def test_thresholds_change_only_which_samples_are_kept(warm, tmp_path):
    """What meets a threshold is the same sample as without it; what does not is listed with its row."""
    events = {"all": list(improve(plan(warm, rounds=1), tmp_path / "all"))}
    rows = Folder(tmp_path / "all" / "round-1" / "created-0")
    drifts = sorted(world.origin_of(s).generator["scores"]["drift.normals"] for s in rows)
    keep = (f"drift.normals<{(drifts[2] + drifts[3]) / 2}",)
    events["some"] = list(improve(plan(warm, rounds=1, filters=keep), tmp_path / "some"))
    created = {n: {e["id"] for e in found if e.get("status") == "created"} for n, found in events.items()}
    rejected = {e["id"] for e in events["some"] if e.get("status") == "rejected"}
    assert created["some"] and rejected and created["all"] == created["some"] | rejected
    every, some = (Folder(tmp_path / n / "round-1" / "created-0") for n in ("all", "some"))
    for i, key in enumerate(some.ids):
        assert torch.equal(some[i].image, every[every.ids.index(key)].image)
    with pytest.raises(ValueError, match="not a threshold"):
        plan(warm, filters=("drift?",))


def test_what_is_wrong_is_known_before_the_folder_is_claimed(warm, tmp_path):
    for wrong, message in (
        (
            warm.replace(model={"init_from": "embedded"}, data={"task_weights": {"matting": 1.0}}),
            "not trained for matting",
        ),
        (
            warm.replace(
                validation={"best_metric": "normals/foo", "data": warm.data.sources[0].path, "every": 1}
            ),
            "not a score",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            list(improve(plan(wrong, rounds=1), tmp_path / "run"))
        assert not (tmp_path / "run" / "improvement.json").exists()
    with pytest.raises(ValueError, match=r"is about mask; this recipe trains depth, normals"):
        plan(warm, filters=("drift.mask<20",))
    with pytest.raises(ValueError, match="holds a training run"):
        list(improve(plan(warm, rounds=1), Path(warm.model.init_from).parent))


def test_a_round_without_kept_samples_is_reported(warm, tmp_path):
    with pytest.raises(ValueError, match="no generated samples to train on"):
        list(improve(plan(warm, rounds=1, filters=("drift.normals<0.001",)), tmp_path / "run"))
