"""The effect of each setting of a recipe, and the message for an invalid one."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.utils.checkpoint

import world
from twofold.backbones import new
from twofold.backbones.stable_diffusion import StableDiffusion
from twofold.checkpoints import open_model, save_model
from twofold.cli.main import run as command
from twofold.compat.genpercept import gradient_vertical
from twofold.heads import LightHead
from twofold.tasks import depth
from twofold.train import (
    DataConfig,
    DenoiserConfig,
    HeadConfig,
    LoopConfig,
    OptimizerConfig,
    Recipe,
    Source,
    ValidationConfig,
    track,
)
from twofold.train.denoiser import DenoiserStage
from twofold.train.distributed import DistributedContext
from twofold.train.encoder import encode_target, resize_and_crop
from twofold.train.initial import open_initial_model
from twofold.train.loop import train
from twofold.train.online_dataset import MemorySample, cropped
from twofold.train.optimizer import learning_rate, make_optimizer, set_rate
from twofold.train.run import run_recipe
from twofold.train.sampler import generator
from twofold.train.stage import build_trainer
from twofold.train.trainable import add_lora, make_tasks

BOTH = {"data": {"task_weights": {"image": 1.0, "depth": 1.0}}}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return world.folder(tmp_path_factory.mktemp("knobs") / "balls", 3, 16)


@pytest.fixture
def recipe(data, tiny_model) -> Recipe:
    return Recipe(
        name="knobs",
        model=DenoiserConfig(
            init_from=str(tiny_model),
            head=HeadConfig(name="light"),
            pixel_loss_weight=1.0,
            text_encoder="frozen",
        ),
        data=DataConfig(sources=(Source(path=str(data)),), size=(16, 16), task_weights={"depth": 1.0}),
        optimizer=OptimizerConfig(lr=1e-3, warmup_steps=0),
        loop=LoopConfig(steps=1, batch_size=2),
        validation=ValidationConfig(every=0),
    )


def stage_of(recipe: Recipe, folder: Path) -> DenoiserStage:
    stage = build_trainer(new.tiny(), recipe, folder / "run", {}, DistributedContext("cpu"))
    assert isinstance(stage, DenoiserStage)
    return stage


def trained(recipe: Recipe, folder: Path) -> tuple[StableDiffusion, dict[str, Any], list[dict]]:
    """Network, heads and records after a run."""
    net, heads = new.tiny(), {}
    records = list(train(net, recipe, folder / "run", heads))
    return net, heads, records


def apart(a: torch.nn.Module, b: torch.nn.Module) -> float:
    """The largest difference of their parameters."""
    return max(
        float((p - q).detach().abs().max()) for p, q in zip(a.parameters(), b.parameters(), strict=True)
    )


def test_recomputed_activations_give_the_same_weights(recipe, tmp_path, monkeypatch):
    kept, _, _ = trained(recipe, tmp_path / "kept")
    arguments, checkpoint = [], torch.utils.checkpoint.checkpoint

    def counted(*args, **how):
        arguments.append(1)
        return checkpoint(*args, **how)

    monkeypatch.setattr(torch.utils.checkpoint, "checkpoint", counted)
    again, _, _ = trained(recipe.replace(model={"gradient_checkpointing": True}), tmp_path / "again")
    assert arguments
    assert apart(kept.unet, again.unet) < 1e-6
    assert apart(kept.unet, new.tiny().unet) > 1e-4


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_arithmetic_in_half_leaves_weights_whole(recipe, precision, tmp_path):
    """fp16 needs its loss scaled, by a scale that is part of the state."""
    sources = (Source(path=str(world.folder(tmp_path / "balls", 3, 64))),)
    plan = recipe.replace(data={"size": (64, 64), "sources": sources}, loop={"steps": 2})
    _, _, whole = trained(plan, tmp_path / "fp32")
    net, heads, half = trained(plan.replace(loop={"precision": precision}), tmp_path / precision)
    assert {p.dtype for p in [*net.parameters(), *heads["depth"].parameters()]} == {torch.float32}
    for a, b in zip(whole, half, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=0.03)
    assert [r["loss"] for r in half] != [r["loss"] for r in whole]
    state = torch.load(tmp_path / precision / "run" / "state.pt", weights_only=True)
    assert all(v.dtype == torch.float32 for v in state["weights"].values())
    assert bool(state["scaler"]) == (precision == "fp16")


def strided_gradient(size: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    """The weight gradient of a 3x3 convolution with stride 2 over a map of ``size``, after NaN filled freed memory."""
    generator_ = torch.Generator().manual_seed(0)
    conv = torch.nn.Conv2d(16, 16, 3, stride=2, padding=1)
    with torch.no_grad():
        conv.weight.copy_(torch.randn(conv.weight.shape, generator=generator_))
    maps = torch.randn(2, 16, *size, generator=generator_)
    freed = [
        torch.full((n,), float("nan")) for n in (64, 256, 1024, 2304, 4096, 9216, 65536) for _ in range(4)
    ]
    del freed
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        conv(maps).float().square().sum().backward()
    assert conv.weight.grad is not None
    return conv.weight.grad


@pytest.mark.parametrize("size", [(2, 2), (1, 2), (2, 3), (8, 8)])
def test_strided_gradients_in_bf16_are_right_over_maps_wider_than_one(size):
    """The assumption of `check_map_width`: only maps of width 1 are affected."""
    exact, half = (strided_gradient(size, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert torch.allclose(half, exact, atol=0.02 * float(exact.abs().max()))


def test_bf16_on_a_cpu_refuses_examples_that_are_too_narrow(recipe, tmp_path):
    """Three downsamplings of stride 2 after an autoencoder of stride 8: the last one reads one column below 40."""
    narrow = recipe.replace(data={"size": (64, 39)}, loop={"precision": "bf16"})
    with pytest.raises(ValueError, match=r"39 pixels.* size of at least 40 pixels"):
        stage_of(narrow, tmp_path / "narrow")
    by_source = (Source(path=recipe.data.sources[0].path, size=(16, 16)),)
    with pytest.raises(ValueError, match="16 pixels"):
        stage_of(
            recipe.replace(data={"size": (64, 64), "sources": by_source}, loop={"precision": "bf16"}),
            tmp_path / "source",
        )
    stage_of(narrow.replace(data={"size": (64, 40)}), tmp_path / "wide")
    stage_of(narrow.replace(loop={"precision": "fp16"}), tmp_path / "fp16")
    # Frozen convolutions have no gradient.
    stage_of(narrow.replace(model={"unet": "frozen", "latent_loss_weight": 0.0}), tmp_path / "frozen")
    stage_of(narrow.replace(model={"unet": "lora"}), tmp_path / "lora")


def rates(recipe: Recipe, *steps: int) -> list[float]:
    return [learning_rate(recipe, step) for step in steps]


def test_rates_of_genpercept_are_its_own(recipe):
    plan = recipe.replace(
        optimizer={
            "schedule": "exponential",
            "lr": 1.0,
            "warmup_steps": 100,
            "decay_steps": 25000,
            "final_lr_ratio": 0.01,
        },
        loop={"steps": 30000},
    )
    found = rates(plan, 0, 50, 100, 1000, 10000, 20000, 25000, 29999)
    assert found == pytest.approx([0, 0.5, 1, 0.84666, 0.16026, 0.02521, 0.01, 0.01], abs=5e-6)


def test_learning_rate_schedules_match_their_names(recipe):
    plan = recipe.replace(
        optimizer={"lr": 2.0, "warmup_steps": 4, "final_lr_ratio": 0.1}, loop={"steps": 104}
    )
    assert rates(plan.replace(optimizer={"schedule": "constant"}), 0, 3, 4, 50, 103) == pytest.approx(
        [0.5, 2, 2, 2, 2]
    )
    assert rates(plan.replace(optimizer={"schedule": "linear"}), 1, 4, 54) == pytest.approx([1.0, 2.0, 1.1])
    assert rates(plan.replace(optimizer={"schedule": "cosine"}), 4, 54) == pytest.approx([2.0, 1.1])
    assert rates(plan.replace(optimizer={"schedule": "poly"}), 4, 54) == pytest.approx(
        [2.0, 0.2 + 1.8 * 0.5**0.9]
    )
    for name in ("cosine", "linear", "exponential"):
        fallen = rates(plan.replace(optimizer={"schedule": name, "decay_steps": 50}), *range(4, 104))
        assert fallen == sorted(fallen, reverse=True)
        assert fallen[-1] == pytest.approx(0.2)


def test_heads_and_decoder_have_a_rate_of_their_own(recipe, tmp_path):
    """Adam's first step is of the size of the rate, in every number that has a gradient."""
    plan = recipe.replace(
        model={"head": {"lr": 1e-3}},
        optimizer={"lr": 1e-4, "max_grad_norm": 0, "weight_decay": 0},
        ema={"decay": 0},
    )
    net, heads, _ = trained(plan, tmp_path)
    fresh = stage_of(plan, tmp_path / "fresh")
    assert apart(net.unet, new.tiny().unet) == pytest.approx(1e-4, rel=0.02)
    assert apart(heads["depth"], fresh.heads["depth"]) == pytest.approx(1e-3, rel=0.02)
    optimizer = make_optimizer(plan, fresh.module)
    set_rate(optimizer, 0.5e-4)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.5e-4, 0.5e-3])


def test_decay_of_weights_is_the_optimizer_s(recipe, tmp_path):
    """AdamW takes it off the weights, Adam adds it to the gradient, where it is one gradient among others."""
    parameter = torch.nn.Parameter(torch.tensor([4.0]))
    module = torch.nn.ParameterDict({"unet": parameter})
    for name, expected in (("adamw", 4 - 0.1 - 0.1 * 0.5 * 4), ("adam", 4 - 0.1)):
        optimizer = make_optimizer(
            recipe.replace(optimizer={"name": name, "weight_decay": 0.5, "lr": 0.1}), module
        )
        parameter.data.fill_(4.0)
        parameter.grad = torch.tensor([1.0])
        optimizer.step()
        assert parameter.item() == pytest.approx(expected, rel=1e-5)
    (group,) = make_optimizer(
        recipe.replace(optimizer={"betas": (0.8, 0.95), "eps": 1e-5}), module
    ).param_groups
    assert (group["betas"], group["eps"]) == ((0.8, 0.95), 1e-5)


def test_a_decoder_is_reinitialized_with_the_option(recipe):
    kept, _, _ = open_initial_model(recipe)
    renewed, _, _ = open_initial_model(recipe.replace(model={"reset": ("decoder",)}))
    assert apart(kept.vae.encoder, renewed.vae.encoder) == 0
    assert apart(kept.vae.decoder, renewed.vae.decoder) > 0
    assert apart(kept.unet, renewed.unet) == 0


def test_lora_uses_the_recipe_s_modules_rank_and_alpha(recipe):
    net = new.tiny()
    net.requires_grad_(False)
    add_lora(
        net,
        recipe.replace(
            model={"unet": "lora", "lora": {"rank": 2, "alpha": 6, "target_modules": ("to_q", "ff.net.2")}}
        ),
    )
    learns = {k for k, p in net.unet.named_parameters() if p.requires_grad}
    assert learns
    assert all(re.search(r"(to_q|ff\.net\.2)\.lora_[AB]", k) for k in learns)
    found = [re.search(r"(to_q|ff\.net\.2)", k) for k in learns]
    assert {m[0] for m in found if m} == {"to_q", "ff.net.2"}
    scales = {m.scaling["default"] for m in net.unet.modules() if hasattr(m, "scaling")}
    assert scales == {3.0}
    with pytest.raises(ValueError, match="to_nothing"):
        add_lora(
            new.tiny(), recipe.replace(model={"unet": "lora", "lora": {"target_modules": ("to_nothing",)}})
        )


@pytest.mark.parametrize("change, learns", [
    ({"model": {"unet": "frozen"}}, r"heads\."), ({}, r"heads\.|unet\."),
    ({"model": {"text_encoder": "full"}}, r"heads\.|unet\.|text_encoder\."),
    ({"model": {"head": {"name": "latent"}, "decoder": "full"}}, r"vae\.(decoder|post_quant)|unet\."),
    ({"model": {"unet": "lora", "head": {"name": "latent"}}}, r"lora_"),
])  # fmt: skip
def test_frozen_parts_have_no_gradient_and_no_graph(recipe, change, learns, tmp_path, monkeypatch):
    seen, forward = [], LightHead.forward

    def looked(self, x0, features, backbone, *more):
        seen.append(any(f.requires_grad for f in features))
        return forward(self, x0, features, backbone, *more)

    monkeypatch.setattr(LightHead, "forward", looked)
    net = new.tiny()
    stages: list[DenoiserStage] = []
    made = DenoiserStage.__init__

    def kept(self, *args):
        made(self, *args)
        stages.append(self)

    monkeypatch.setattr(DenoiserStage, "__init__", kept)
    next(train(net, recipe.replace(**change), tmp_path / "run"))
    found = {k: p.grad is not None for k, p in stages[0].module.named_parameters()}
    assert {k for k, has in found.items() if has} <= {k for k in found if re.match(f".*({learns})", k)}
    assert sum(found.values()) > 3
    if recipe.replace(**change).denoiser.head.name == "light":
        assert seen == [change.get("model", {}).get("unet") != "frozen"], (
            "a frozen network leaves nothing to go back through"
        )


def test_prompts_of_a_recipe_are_trained_saved_and_used(recipe, tmp_path, monkeypatch):
    output, embed = set(), StableDiffusion.embed

    def heard(self, prompts, *more, **how):
        output.update(prompts)
        return embed(self, prompts, *more, **how)

    monkeypatch.setattr(StableDiffusion, "embed", heard)
    list(run_recipe(recipe.replace(model={"prompts": {"depth": "how far"}}), tmp_path / "run"))
    assert output == {"how far"}
    output.clear()
    model = open_model(str(tmp_path / "run" / "checkpoint"))
    assert model.settings.tasks["depth"].prompt == "how far"
    model.predictor("depth")(world.sphere(3, 16).image)
    assert output == {"how far"}


@pytest.mark.parametrize("augment", [False, True])
def test_each_source_has_its_own_size(recipe, data, augment, tmp_path):
    """Examples of several sizes are one batch all the same."""
    other = world.folder(tmp_path / "others", 2, 16)
    sources = (Source(path=str(data)), Source(path=str(other), size=(16, 8)))
    plan = recipe.replace(
        data={"sources": sources, "augment": augment, "task_weights": {"depth": 1.0, "image": 1.0}},
        loop={"batch_size": 4},
    )
    stage = stage_of(plan, tmp_path)
    # A crop of an unlabelled image is square.
    expected = {("balls", "depth"): (4, 2, 2), ("others", "depth"): (4, 2, 1), ("balls", "image"): (4, 2, 2)}
    for example in (e for step in range(2) for image in stage.draw(step) for e in image.values()):
        source = example.name.split("/")[0]
        if (source, example.kind) in expected:
            assert example.image.shape == expected[source, example.kind]
    assert {e.name.split("/")[0] for image in stage.draw(0) for e in image.values()} == {"balls", "others"}
    assert torch.isfinite(stage.loss(stage.draw(0)).total)


def test_nearest_resizing_returns_pixels_of_the_image():
    ball = world.sphere(2, 40)
    there = set(ball.image.unique().tolist())
    assert set(resize_and_crop(ball, (24, 24), 8, "nearest").image.unique().tolist()) <= there
    assert not set(resize_and_crop(ball, (24, 24), 8).image.unique().tolist()) <= there
    held = MemorySample((ball.image * 255).round().byte(), ball.targets, ball.valid, "")
    levels = set((held.image.float() / 255).unique().tolist())
    for name, only in (("nearest", True), ("bilinear", False)):
        image, _ = cropped(held, {"depth": depth}, (24, 24), generator(1), name)
        assert (set(image.unique().tolist()) <= levels) == only


def test_quirks_of_genpercept_are_trained_with_compat(recipe, tmp_path):
    """Holes are encoded too, its gradient is vertical, and it has only its own tasks."""
    plan = recipe.replace(data={"compat": "genpercept", "resample": "nearest"})
    task = make_tasks(plan)["depth"]
    assert task.losses["gradient"] is gradient_vertical
    ball = world.sphere(0, 16)
    known = ball.valid["depth"].clone()
    known[:, :4] = False
    holed = replace(
        ball, targets={"depth": torch.where(known, ball.targets["depth"], 0)}, valid={"depth": known}
    )
    assert encode_target(task, holed)[0][:, :4].unique().tolist() == [-1.0], "a hole of 0 m is near"
    assert encode_target(depth, holed)[0][:, :4].unique().tolist() == [0.0]
    _, _, records = trained(plan, tmp_path)
    assert records[0]["loss"] < 100
    with pytest.raises(ValueError, match="GenPercept has no task 'albedo'"):
        make_tasks(recipe.replace(data={"compat": "genpercept", "task_weights": {"albedo": 1.0}}))


def test_records_have_every_loss_term_and_their_sum(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(track, "LOG_EVERY", 1)
    losses = {"depth": {"l1": 2.0, "ssi": 0.5, "gradient": 0.0}}
    plan = recipe.replace(
        model={"latent_loss_weight": 3.0, "pixel_loss_weight": 0.25},
        data={"task_weights": {"depth": 1.0, "normals": 2.0, "image": 1.0}},
        loss=losses,
        loop={"batch_size": 8},
    )
    list(run_recipe(plan, tmp_path / "run"))
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    output = json.loads(line)
    assert output["depth"] == pytest.approx(
        3 * output["depth/latent"] + 0.25 * (2 * output["depth/l1"] + 0.5 * output["depth/ssi"]), rel=1e-5
    )
    angles = output["normals/angular"] + 0.5 * output["normals/mse"]
    assert output["normals"] == pytest.approx(3 * output["normals/latent"] + 0.25 * angles, rel=1e-5)
    assert output["loss"] == pytest.approx(
        (2 * output["depth"] + 4 * output["normals"] + 2 * output["image"]) / 8, rel=1e-5
    )
    assert "depth/gradient" not in output
    assert (output["step"], output["lr"]) == (1, 1e-3)


def test_tensorboard_gets_the_logged_values(recipe, tmp_path, capsys):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe.replace(loop={"steps": 10}).save(tmp_path / "recipe.json")
    out = tmp_path / "run"
    arguments = [
        "train",
        str(tmp_path / "recipe.json"),
        "--out",
        str(out),
        "--tracker",
        "tensorboard",
        "--device",
        "cpu",
    ]
    assert command(arguments) == 0, capsys.readouterr().err
    found = [EventAccumulator(str(path)).Reload() for path in out.rglob("events.out.tfevents*")]
    record = [
        scalar for events in found if "loss" in events.Tags()["scalars"] for scalar in events.Scalars("loss")
    ]
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert [(x.step, x.value) for x in record] == [(10, pytest.approx(last["loss"], rel=1e-6))]


def test_settings_are_changed_deep_inside(recipe):
    changed = recipe.override([
        "loss.depth.ssi=1", "model.protocol.timestep=500", "data.sources.0.share=2.5", "model.prompts.depth=how far",
        "data.task_weights.image=3", "model.text_encoder=full", "model.head.options.width=8",
        "optimizer.betas=[0.5, 0.6]", "data.size=24,32", "validation.data=null",
    ])  # fmt: skip
    assert changed.loss == {"depth": {"ssi": 1.0}}
    assert changed.denoiser.protocol.timestep == 500
    assert changed.data.sources[0].share == 2.5
    assert changed.denoiser.prompts == {"depth": "how far"}
    assert changed.data.task_weights == {"depth": 1.0, "image": 3.0}
    assert (changed.denoiser.head.options, changed.optimizer.betas) == ({"width": 8}, (0.5, 0.6))
    assert (changed.data.size, changed.validation.data) == ((24, 32), None)


@pytest.mark.parametrize("setting, message", [
    ("optimizer.lr=-1", "optimizer.lr: .* greater than or equal to 0, not -1"),
    ("optimizer.lr=nan", "optimizer.lr: .*finite"), ("optimizer.lr=fast", "optimizer.lr: .*'fast'"),
    ("loop.steps=0", "steps: .*not 0"), ("data.size=0,3", "data.size.0: "),
    ("model.head.name=ghost", "unknown head 'ghost'"), ("data.sources=[]", "a source with a share above 0"),
    ("data.task_weights={}", "one of them above 0"), ("data.task_weights.depth=-1", "0 or more"),
    ("data.task_weights.depth=Infinity", "data.task_weights.depth: .*finite"),
    ("model.protocol.kind=walk", "model.protocol: .*'walk'"),
    ("model.protocol.timestp=3", r"model.protocol has no 'timestp' \(did you mean 'timestep'\?\)"),
    ("optimizer.betas=[0.9, 1]", "optimizer.betas.1"), ("lerning=3", "a recipe has no 'lerning'; it has name, model"),
    ("lr=3", r"a recipe has no 'lr' \(did you mean 'optimizer.lr'\?\)"),
    ("optimizr.lr=3", r"a recipe has no 'optimizr' \(did you mean 'optimizer'\?\)"),
    ("optimizer.lrr=3", r"optimizer has no 'lrr' \(did you mean 'lr'\?\)"),
    ("data.sources.0.shar=3", r"data.sources.0 has no 'shar' \(did you mean 'share'\?\)"),
    ("model.factory=x:y", "model has no 'factory'; it has kind, init_from"),
    ("optimizer.lr", "expected KEY=VALUE"), ("loss.normals.l1=1", "'normals', which is not in task_weights"),
    ("data.sources.0.limit=-1", "data.sources.0.limit"), ("data.sources.1.limit=1", "no '1' inside"),
    ("optimizer.lr.x=1", "no 'x' inside"), ("optimizer.name=sgd", "optimizer.name: .*'sgd'"),
    ("model.caption_dropout=2", "model.caption_dropout"), ("optimizer.max_grad_norm=-1", "max_grad_norm"),
    ('model.protocol={"kind": "multi_step"}', "one denoising step"),
    ("model.pixel_loss_weight=0", "trained by the pixel loss only"), ("validation.num_samples=0", "num_samples"),
])  # fmt: skip
def test_an_invalid_setting_is_reported_in_one_line(recipe, setting, message):
    with pytest.raises(ValueError, match=message) as caught:
        recipe.override([setting])
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize("change, message", [
    (
        {"model": {"unet": "frozen"}, "data": {"task_weights": {"image": 1.0}}},
        "trains nothing where unet and text_encoder are frozen",
    ),
    (
        {
            **BOTH,
            "model": {"protocol": {"kind": "multi_step"}, "pixel_loss_weight": 0.0, "head": {"name": "latent"}},
        },
        "one latent as input",
    ),
    ({"model": {"head": {"lr": 1e-3}}, "optimizer": {"lr": 0.0}}, "head.lr is above 0 and optimizer.lr is 0"),
    ({"data": {"sources": [{"path": "a", "limit": 3, "fraction": 0.5}]}}, "a limit or a fraction"),
    ({"data": {"task_weights": {"depht": 1.0}}}, "unknown task 'depht'"),
])  # fmt: skip
def test_settings_that_do_not_go_together_are_one_line(recipe, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        recipe.replace(**change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change, output", [
    (
        {"model": {"head": {"name": "latent"}}, "data": {"task_weights": {"semantic_logits": 1.0}}},
        "not an image that the autoencoder can decode",
    ),
    ({"data": {"task_weights": {"albedo": 1.0}}}, "no source with a share above 0 has a target of albedo"),
    ({"loss": {"depth": {"angular": 1.0}}}, "depth has no loss 'angular'"),
    ({"model": {"head": {"options": {"widht": 3}}}}, "no option 'widht'"),
    ({"data": {"sources": [{"path": "/nowhere/at/all"}]}}, "/nowhere/at/all is not a folder"),
    ({"validation": {"data": "/nowhere/at/all"}}, "/nowhere/at/all is not a folder"),
    ({"model": {"init_from": "/nowhere/at/all"}}, "/nowhere/at/all"),
    ({"data": {"augment": True, "size": (20, 16)}}, "multiples of 8"),
    ({"model": {"unet": "lora", "lora": {"target_modules": ("to_nothing",)}}}, "to_nothing"),
    ({"model": {"kind": "autoencoder"}, "loop": {"micro_batch_size": 2}}, "one process, without micro-batches"),
])  # fmt: skip
def test_a_recipe_that_cannot_run_is_one_line_at_the_start(recipe, change, output, tmp_path, capsys):
    recipe.replace(**change).save(tmp_path / "recipe.json")
    out = str(tmp_path / "run")
    assert (
        command(
            ["train", str(tmp_path / "recipe.json"), "--out", out, "--tracker", "none", "--device", "cpu"]
        )
        == 2
    )
    found = [x for x in capsys.readouterr().err.replace("\r", "\n").splitlines() if x.startswith("twofold: ")]
    assert len(found) == 1
    assert re.search(output, found[0])
    assert len(found[0]) < 500
    assert not (tmp_path / "run" / "state.pt").exists()


def test_a_recipe_in_python_that_cannot_be_is_one_line(tmp_path, capsys):
    (tmp_path / "wrong.py").write_text(
        "from twofold.train import DataConfig, DenoiserConfig, OptimizerConfig, Recipe, Source\n"
        "def wrong():\n    data = DataConfig(sources=(Source(path='a'),))\n"
        "    return Recipe(name='x', model=DenoiserConfig(), data=data, optimizer=OptimizerConfig(lr=-1))\n"
    )
    (tmp_path / "wrong.json").write_text(
        '{"name": "x", "model": {"kind": "denoiser"}, "data": {"sources": [{"path": "a"}]}, "loop": {"steps": 0}}'
    )
    (tmp_path / "torn.json").write_text('{"name": "x"')
    for name, output in (
        ("wrong.py", "lr: "),
        ("wrong.json", "loop.steps: "),
        ("torn.json", "Invalid JSON"),
    ):
        assert command(["train", str(tmp_path / name)]) == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith(f"twofold: {tmp_path / name}: {output}")
        assert "pydantic" not in error
        assert "\n" not in error


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_weights_change(recipe, tmp_path, monkeypatch):
    """The loss may be a number and its slope none. The message names step and samples."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "steep.py").write_text(
        "from dataclasses import replace\nfrom twofold.tasks import depth\n"
        "edge = lambda said, wanted, mask: (said - said.detach()).abs().sum().sqrt()\n"
        "steep = replace(depth, name='steep', target_key='depth', losses={'edge': edge}, weights={'edge': 1.0})\n"
    )
    net, start = new.tiny(), new.tiny()
    with pytest.raises(
        FloatingPointError, match=r"step 1: the gradient of balls/ball-\d.* is not finite; nothing was"
    ):
        next(train(net, recipe.replace(data={"task_weights": {"steep:steep": 1.0}}), tmp_path / "run"))
    assert apart(net.unet, start.unet) == 0


def test_a_loss_that_is_not_finite_stops_the_run_before_the_weights_change(recipe, tmp_path):
    """At its second step, after a state that is kept and named."""
    plan = recipe.replace(loop={"steps": 3, "save_every": 1})
    net = new.tiny()
    records = train(net, plan, tmp_path / "run")
    next(records)
    before = [p.detach().clone() for p in net.unet.parameters()]
    with torch.no_grad():
        net.unet.conv_in.bias.fill_(float("nan"))
    with pytest.raises(
        FloatingPointError,
        match=r"step 2: the network.s depth output for balls/ball-\d is NaN.*state\.pt holds",
    ):
        next(records)
    after = [p for k, p in net.unet.named_parameters()]
    assert sum(not torch.equal(p, q) for p, q in zip(after, before, strict=True)) == 1


@pytest.mark.parametrize("augment", [False, True])
def test_mirroring_can_be_left_out_and_changes_nothing_else(recipe, tmp_path, augment):
    drawn: dict[bool, list[Any]] = {}
    for mirror in (True, False):
        stage = stage_of(
            recipe.replace(
                data={"size": (32, 32), "hflip": mirror, "augment": augment}, loop={"batch_size": 4}
            ),
            tmp_path / str(mirror),
        )
        drawn[mirror] = [e for step in range(6) for image in stage.draw(step) for e in image.values()]
    same = [torch.equal(a.canvas, b.canvas) for a, b in zip(drawn[True], drawn[False], strict=True)]
    assert 4 < sum(same) < 20, "half of them are as they were"
    for a, b in zip(drawn[True], drawn[False], strict=True):
        assert a.name == b.name and (
            torch.equal(a.canvas, b.canvas) or torch.equal(a.canvas.flip(-1), b.canvas)
        )


def test_padded_prompts_are_trained_and_used_padded(recipe, tmp_path):
    arguments = {pad: recipe.replace(name=f"pad-{pad}", model={"pad_prompts": pad}) for pad in (True, False)}
    records = {pad: list(run_recipe(arguments[pad], tmp_path / str(pad))) for pad in arguments}
    assert records[True][0]["loss"] != records[False][0]["loss"]
    for pad in arguments:
        predictor = open_model(str(tmp_path / str(pad) / "checkpoint")).predictor("depth")
        assert predictor.config.pad == pad
        stage = stage_of(arguments[pad], tmp_path / f"again-{pad}")
        assert (
            stage._prompt_embeds("depth").shape[1]
            == predictor.backbone.embed([predictor.prompt], pad).shape[1]
        )


def test_an_initial_model_with_another_frame_is_reported(recipe, tmp_path):
    """Lotus and E2E-FT output x to the left; their weights are not converted."""
    model = open_model(recipe.model.init_from)
    how = model.settings.tasks["normals"].model_copy(update={"frame": "LUB"})
    settings = model.settings.model_copy(update={"tasks": {**model.settings.tasks, "normals": how}})
    save_model(model.backbone, settings, tmp_path / "left")
    arguments = recipe.replace(
        model={"init_from": str(tmp_path / "left")}, data={"task_weights": {"normals": 1.0}}, loss={}
    )
    with pytest.warns(UserWarning, match="predicts normals in the frame LUB and is trained in RUB"):
        open_initial_model(arguments)


def test_two_tasks_of_one_name_are_refused(recipe):
    both = {"semantic_logits[4]": 1.0, "semantic_logits[5]": 1.0}
    with pytest.raises(ValueError, match="both called semantic_logits"):
        make_tasks(recipe.replace(model={"latent_loss_weight": 0.0}, data={"task_weights": both}))


def test_options_are_as_they_are_read_again(recipe, tmp_path):
    arguments = recipe.replace(model={"head": {"options": {"width": 8, "several": (1, 2)}}})
    arguments.save(tmp_path / "recipe.json")
    assert Recipe.read(tmp_path / "recipe.json") == arguments


def test_a_checkpoint_imports_nothing_by_itself(recipe, tmp_path, monkeypatch):
    """A user-defined task is named as package.module:object, or by code that has imported it."""
    (tmp_path / "sneaky.py").write_text("from twofold.tasks import depth as blue\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    model = open_model(recipe.model.init_from)
    how = model.settings.tasks["depth"].model_copy(update={"task": "sneaky:blue"})
    save_model(model.backbone, model.settings.model_copy(update={"tasks": {"depth": how}}), tmp_path / "told")
    opened = open_model(str(tmp_path / "told"))
    with pytest.raises(ValueError, match="a checkpoint runs no code"):
        opened.predictor("depth")
    assert "sneaky" not in sys.modules
    assert opened.predictor("sneaky:blue").task is depth
    assert opened.predictor("depth").task is depth
    del sys.modules["sneaky"]
