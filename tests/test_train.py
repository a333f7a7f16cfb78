"""Training: what a run ends in depends on its recipe alone, not on how often it was interrupted."""

import json
import re
from pathlib import Path

import pytest
import torch

import world
from twofold.backbones import new
from twofold.checkpoints import ModelSettings, load, open_model, save_model
from twofold.image import read_image
from twofold.protocols import MultiStep, Noise, OneStep
from twofold.train import (
    DataConfig,
    DenoiserConfig,
    LoopConfig,
    OptimizerConfig,
    Recipe,
    Source,
    ValidationConfig,
)
from twofold.train.initial import open_initial_model
from twofold.train.loop import train
from twofold.train.optimizer import learning_rate
from twofold.train.run import run_recipe


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A tiny random model on disk, and a folder of balls to train it on."""
    root = tmp_path_factory.mktemp("start")
    save_model(new.tiny(), ModelSettings(name="tiny", size=64), root / "model", torch.float32)
    world.folder(root / "balls")
    return root


@pytest.fixture
def recipe(start):
    return Recipe(
        name="test",
        model=DenoiserConfig(init_from=str(start / "model")),
        data=DataConfig(
            sources=(Source(path=str(start / "balls")),),
            task_weights={"image": 1.0, "depth": 1.0, "normals": 1.0},
            size=(64, 64),
        ),
        optimizer=OptimizerConfig(lr=1e-3, warmup_steps=2),
        loop=LoopConfig(steps=6, batch_size=6, save_every=0),
        validation=ValidationConfig(data=str(start / "balls"), every=3, num_samples=2),
    )


def weights(folder: Path) -> dict:
    net = open_model(str(folder)).backbone
    return {
        f"{part}.{k}": v for part, module in net.components().items() for k, v in module.state_dict().items()
    }


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("stage", ["denoiser", "autoencoder"])
def test_an_interrupted_run_ends_in_the_same_weights(recipe, stage, tmp_path):
    recipe = recipe.replace(loop={"save_every": 2})
    if stage == "autoencoder":
        recipe = recipe.replace(model={"kind": "autoencoder"}, data={"size": (32, 32)})
    whole = list(run_recipe(recipe, tmp_path / "whole"))
    records = run_recipe(recipe, tmp_path / "parts")
    for _ in range(3):  # one step past the last save, so that the resumed run has to repeat it
        next(records)
    records.close()
    resumed = list(run_recipe(recipe, tmp_path / "parts"))
    assert [r["step"] for r in resumed] == [4, 5, 6]  # closing the run saves the step that was reached
    assert resumed[-1]["loss"] == whole[-1]["loss"]
    assert same(weights(tmp_path / "whole" / "checkpoint"), weights(tmp_path / "parts" / "checkpoint"))


def test_a_trained_checkpoint_predicts(recipe, tmp_path):
    records = list(run_recipe(recipe, tmp_path / "run"))
    assert {"depth/abs_rel", "depth/delta1", "normals/mean"} <= records[-1]["validation"].keys()
    predictor = load(str(tmp_path / "run" / "checkpoint"), "normals")
    assert predictor(world.sphere(9).image).map.shape == (3, 64, 64)
    seen = sorted(p.name for p in (tmp_path / "run" / "previews").iterdir())
    assert seen == ["step-000003.png", "step-000006.png"]
    # Four rows of two tasks each: image, target, prediction and error.
    assert read_image(tmp_path / "run" / "previews" / seen[0]).shape == (
        3,
        8 * (64 + 18 + 4) - 4,
        4 * (64 + 4) - 4,
    )
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 6
    assert Recipe.read(tmp_path / "run" / "recipe.json") == recipe
    assert list(run_recipe(recipe, tmp_path / "run")) == []  # finished is finished


def test_a_light_head_is_trained_saved_and_used(recipe, tmp_path):
    """Its weights travel with the checkpoint, and a second run goes on from them."""
    with pytest.raises(ValueError, match="pixel_loss_weight"):
        recipe.replace(model={"head": {"name": "light"}})
    plan = recipe.replace(
        model={"head": {"name": "light"}, "pixel_loss_weight": 1.0},
        data={"task_weights": {"image": 1.0, "normals": 2.0}},
    )
    list(run_recipe(plan, tmp_path / "first"))
    model = open_model(str(tmp_path / "first" / "checkpoint"))
    assert list(model.heads) == ["normals"]
    assert model.settings.tasks["normals"].head == "light"
    image = world.sphere(9).image
    before = model.predictor("normals")(image).map
    again = plan.replace(
        name="second",
        model={"init_from": str(tmp_path / "first" / "checkpoint")},
        optimizer={"lr": 0.0},
        loop={"steps": 1},
    )
    list(run_recipe(again, tmp_path / "second"))
    after = open_model(str(tmp_path / "second" / "checkpoint")).predictor("normals")(image).map
    # Half precision on disk is all that may differ: the second run moved nothing.
    torch.testing.assert_close(after, before, rtol=0, atol=2e-3)


def test_training_reduces_the_error(recipe, tmp_path):
    """A few dozen steps on six balls beat the start by far."""
    plan = recipe.replace(
        data={"task_weights": {"depth": 1.0}},
        optimizer={"lr": 3e-3},
        ema={"decay": 0.5},
        loop={"steps": 40},
        validation={"every": 0},
    )
    losses = [r["loss"] for r in train(new.tiny(), plan, tmp_path / "run")]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


def test_reset_parts_are_random_again_and_the_others_are_kept(recipe, start):
    kept, _, _ = open_initial_model(recipe)
    renewed, _, _ = open_initial_model(recipe.replace(model={"reset": ("text",)}))
    assert torch.equal(kept.unet.conv_in.weight, renewed.unet.conv_in.weight)
    words = renewed.tokenizer.convert_ids_to_tokens(renewed.tokenizer("a ball before a wall").input_ids)
    assert words[1:-1] == ["a</w>", "ball</w>", "before</w>", "a</w>", "wall</w>"]
    other, _, _ = open_initial_model(recipe.replace(model={"reset": ("unet",)}, loop={"seed": 3}))
    assert not torch.equal(kept.unet.conv_in.weight, other.unet.conv_in.weight)
    assert torch.equal(kept.embed(["depth map"]), other.embed(["depth map"]))


def test_a_run_folder_belongs_to_one_recipe(recipe, tmp_path):
    next(run_recipe(recipe, tmp_path / "run"))
    with pytest.raises(ValueError, match="another recipe"):
        next(run_recipe(recipe.replace(optimizer={"lr": 2e-3}), tmp_path / "run"))


def test_a_loss_that_is_not_finite_stops_the_run(recipe, tmp_path):
    net = new.tiny()
    with torch.no_grad():
        net.unet.conv_out.bias.fill_(float("nan"))
    with pytest.raises(
        FloatingPointError, match=r"step 1: the network.s \w+ output for balls/ball-\d.* is NaN"
    ):
        next(train(net, recipe, tmp_path / "run"))


def test_perception_leaves_the_frozen_autoencoder_without_gradients(recipe, tmp_path):
    net = new.tiny()
    next(train(net, recipe.replace(model={"pixel_loss_weight": 1.0}), tmp_path / "run"))
    assert all(p.grad is None for p in net.vae.parameters())
    assert any(p.grad is not None for p in net.unet.parameters())


def test_recipes_refuse_what_they_do_not_know(recipe):
    with pytest.raises(ValueError, match="lerning_rate"):
        recipe.override(["lerning_rate=3"])
    changed = recipe.override(["optimizer.lr=0.5", "name=other", "data.size=[32, 48]"])
    assert (changed.optimizer.lr, changed.name, changed.data.size) == (0.5, "other", (32, 48))


def test_the_learning_rate_warms_up_and_falls(recipe):
    plan = recipe.replace(
        optimizer={"warmup_steps": 10, "lr": 1.0, "final_lr_ratio": 0.1}, loop={"steps": 100}
    )
    rates = [learning_rate(plan, s) for s in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10] == max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1, abs=0.001)


def test_augmented_runs_depend_on_seed_and_step_alone(recipe, tmp_path):
    """Crops and colours differ between steps, and are the same for the same step."""
    plan = recipe.replace(model={"head": {"name": "light"}, "pixel_loss_weight": 1.0}, data={"augment": True})
    first = [r["loss"] for r in train(new.tiny(), plan, tmp_path / "first")]
    second = train(new.tiny(), plan, tmp_path / "second")
    next(second), next(second), next(second)
    second.close()
    rest = [r["loss"] for r in train(new.tiny(), plan, tmp_path / "second")]
    assert rest == first[3:]
    assert len(set(first)) == len(first)


def test_augmentation_keeps_geometry_true():
    """On an image whose colour is its own normal map, crop, zoom and mirror keep the two in step."""
    from twofold.tasks import normals as task
    from twofold.train.online_dataset import MemorySample, cropped
    from twofold.train.sampler import generator

    ball = world.sphere(3)
    normals, valid = ball.targets["normals"], ball.valid["normals"]
    colors = torch.where(valid, (normals + 1) / 2, 0.5)
    held = MemorySample((colors * 255).round().byte(), {"normals": normals}, {"normals": valid}, "")
    for step in range(8):
        image, targets = cropped(held, {"x": task}, (48, 64), generator(step))
        target, known = targets["x"]
        assert image.shape == target.shape == (3, 48, 64)
        inner = (-torch.nn.functional.max_pool2d(-known[None].float(), 5, 1, 2)[0] > 0.5)[0]
        seen = image * 2 - 1
        mirrored = seen * seen.new_tensor([-1.0, 1.0, 1.0]).reshape(3, 1, 1)
        errors = [(x - target).norm(dim=0)[inner].mean() for x in (seen, mirrored)]
        # Byte rounding, and edges where vectors of two surfaces are blended.
        assert min(errors) < 0.04
        assert max(errors) > 2 * min(errors)


PROTOCOLS = {
    "one step told random times": OneStep(train_timesteps="random"),
    "x0 at 999": OneStep(999, "x0"),
    "from noise": MultiStep(2, noise=Noise(zero_snr=True), noise_strategy="original"),
    "from zeros": MultiStep(1, start="zeros", noise=Noise()),
    "from the image": MultiStep(3, start="image", condition="replace", noise=Noise()),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_is_trained_saved_and_predicted_with_its_settings(recipe, name, tmp_path):
    """A network of fewer channels is widened; the checkpoint has the settings for prediction."""
    plan = recipe.replace(
        model={"protocol": PROTOCOLS[name]},
        data={"task_weights": {"depth": 1.0}},
        optimizer={"lr": 3e-3},
        ema={"decay": 0.5},
        loop={"steps": 30},
        validation={"every": 0},
    )
    losses = [r["loss"] for r in run_recipe(plan, tmp_path / "run")]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    model = open_model(str(tmp_path / "run" / "checkpoint"))
    assert model.settings.tasks["depth"].protocol == PROTOCOLS[name]
    assert model.backbone.input_channels == PROTOCOLS[name].channels(4)
    assert model.predictor("depth")(world.sphere(9).image).map.isfinite().all()


def test_expanded_conv_in_gives_copies_the_output_of_one():
    net = new.tiny()
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    text = net.embed([""])
    with torch.no_grad():
        before = net(x, torch.tensor([5]), text).prediction
        new.expand_conv_in(net, 12, outputs=2)
        after = net(torch.cat([x, x, x], 1), torch.tensor([5]), text).prediction
    torch.testing.assert_close(after, before.repeat(1, 2, 1, 1), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="cannot be expanded to 13"):
        new.expand_conv_in(net, 13)


@pytest.mark.parametrize("change, trainable", [
    ({"model": {"unet": "lora", "lora": {"rank": 2}, "text_encoder": "frozen"}}, "lora"),
    (
        {"model": {"unet": "frozen", "head": {"name": "dpt"}, "pixel_loss_weight": 1.0, "text_encoder": "frozen"}},
        "heads",
    ),
    ({"model": {"decoder": "full", "pixel_loss_weight": 1.0, "text_encoder": "frozen"}}, "unet|vae.decoder"),
    ({"model": {"text_encoder": "full"}}, "unet|text_encoder"),
])  # fmt: skip
def test_only_the_recipe_s_trainable_parts_change(recipe, start, change, trainable, tmp_path):
    """A state has trainable weights only: a LoRA run does not save the network it adapts."""
    plan = recipe.replace(
        data={"task_weights": {"depth": 1.0}},
        optimizer={"lr": 1e-2},
        ema={"decay": 0.5},
        loop={"steps": 4},
        validation={"every": 0},
    ).replace(**change)
    before = weights(start / "model")
    whole = list(run_recipe(plan, tmp_path / "whole"))
    state = torch.load(tmp_path / "whole" / "state.pt", weights_only=True)
    assert all(re.search(trainable, key) for key in state["ema"])
    after = weights(tmp_path / "whole" / "checkpoint")
    moved = {k for k, v in after.items() if not torch.equal(v, before[k].half().to(v))}
    if "lora" in trainable:
        assert moved
        assert all(re.search(r"attn\d\.to_(q|k|v|out)", k) for k in moved)
    elif trainable == "heads":
        assert not moved
        assert open_model(str(tmp_path / "whole" / "checkpoint")).settings.tasks["depth"].head == "dpt"
    else:
        assert all(re.search(trainable.replace("vae.", "vae."), k) for k in moved)
        assert {k.split(".")[0] for k in moved} == {x.split(".")[0] for x in trainable.split("|")}
    records = run_recipe(plan, tmp_path / "parts")
    for _ in range(3):
        next(records)
    records.close()
    assert list(run_recipe(plan, tmp_path / "parts"))[-1]["loss"] == whole[-1]["loss"]
    assert same(after, weights(tmp_path / "parts" / "checkpoint"))


def test_a_user_defined_task_is_trained(recipe, tmp_path, monkeypatch):
    """It is named by where it is; the checkpoint remembers that."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from dataclasses import replace\nfrom twofold.tasks import depth\n"
        "glass = replace(depth, name='glass', target_key='depth', prompt='glass')\n"
    )
    plan = recipe.replace(
        data={"task_weights": {"mine:glass": 1.0, "disparity": 1.0}},
        loop={"steps": 2},
        validation={"every": 2},
    )
    records = list(run_recipe(plan, tmp_path / "run"))
    assert {"glass/abs_rel", "disparity/abs_rel"} <= records[-1]["validation"].keys()
    model = open_model(str(tmp_path / "run" / "checkpoint"))
    assert set(model.tasks) == {"glass", "disparity"}
    assert model.predictor("glass")(world.sphere(9).image).task.prompt == "glass"


@pytest.mark.parametrize("wrong, message", [
    ({"model": {"head": {"name": "ghost"}}}, "unknown head 'ghost'"),
    ({"model": {"unet": "frozen"}}, "nothing would be trained"),
    ({"model": {"decoder": "full"}}, "of a latent head"),
    ({"model": {"protocol": MultiStep(), "pixel_loss_weight": 1.0}}, "one denoising step"),
])  # fmt: skip
def test_recipes_without_trainable_weights_are_refused(recipe, wrong, message):
    with pytest.raises(ValueError, match=message):
        recipe.replace(**wrong)


def test_class_colours_are_resized_by_nearest():
    """A mask stays 0 and 1, whatever size it is brought to; a depth is interpolated."""
    from dataclasses import replace

    from twofold.train.encoder import resize_and_crop

    ball = world.sphere(3)
    on = (ball.targets["depth"] < 1.9).float()
    both = replace(
        ball, targets={**ball.targets, "mask": on}, valid={**ball.valid, "mask": ball.valid["depth"]}
    )
    small = resize_and_crop(both, (40, 40), 8)
    assert set(small.targets["mask"].unique().tolist()) == {0.0, 1.0}
    assert len(small.targets["depth"].unique()) > 100
