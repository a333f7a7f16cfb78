"""Learning rates over a run, against torch's own schedules."""

import runpy
from pathlib import Path

import pytest
import torch

import world
from twofold.backbones import new
from twofold.checkpoints import ModelSettings, save_model
from twofold.train import DataConfig, DenoiserConfig, OptimizerConfig, Recipe, Source
from twofold.train.optimizer import learning_rate, momentum, set_rate
from twofold.train.run import run_recipe

DIFF2IN1 = Path(__file__).parents[1] / "recipes" / "diff2in1.py"


def recipe(**changes) -> Recipe:
    made = Recipe(
        name="x",
        model=DenoiserConfig(),
        data=DataConfig(sources=(Source(path="x"),)),
        optimizer=OptimizerConfig(schedule="onecycle", warmup_steps=0),
    )
    return made.replace(**changes)


@pytest.mark.parametrize("steps", [10, 11, 97, 1000])
def test_onecycle_is_torch_s_step_by_step(steps):
    """Learning rate and first beta, of AdamW, with torch's own defaults."""
    plan = recipe(optimizer={"lr": 3.57e-4, "final_lr_ratio": 4e-6}, loop={"steps": steps})
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=3.57e-4, total_steps=steps, div_factor=25, final_div_factor=1e4
    )
    for step in range(steps):
        group = optimizer.param_groups[0]
        assert learning_rate(plan, step) == pytest.approx(group["lr"], rel=1e-9, abs=1e-15)
        assert momentum(plan, step) == pytest.approx(group["betas"][0], rel=1e-9)
        optimizer.step()
        schedule.step() if step + 1 < steps else None


def test_onecycle_starts_at_4_percent_peaks_at_30_and_ends_near_nothing():
    plan = runpy.run_path(str(DIFF2IN1))["warm_up_bae"]()
    rates = [learning_rate(plan, step) for step in range(plan.loop.steps)]
    assert rates[0] == pytest.approx(0.04 * 3.57e-4)
    assert max(rates) == pytest.approx(3.57e-4, rel=1e-5)
    assert rates.index(max(rates)) / plan.loop.steps == pytest.approx(0.3, abs=1e-3)
    assert rates[-1] == pytest.approx(4e-6 * 3.57e-4)
    optimizer = plan.optimizer
    assert (optimizer.name, optimizer.weight_decay, optimizer.max_grad_norm) == ("adamw", 0.01, 0.1)
    assert plan.loop.batch_size == 4
    second = runpy.run_path(str(DIFF2IN1))["second_stage_bae"]()
    assert second.model.init_from == f"runs/{plan.name}/checkpoint"
    assert second.optimizer == optimizer


def test_a_warm_up_beside_onecycle_s_own_is_refused():
    with pytest.raises(ValueError, match="set warmup_steps=0"):
        recipe(optimizer={"warmup_steps": 5})


def test_other_schedules_leave_the_betas_alone():
    assert momentum(recipe(optimizer={"schedule": "cosine"}), 3) is None
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], betas=(0.5, 0.6))
    optimizer.param_groups[0]["scale"] = 2.0
    set_rate(optimizer, 0.1)
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.6)
    set_rate(optimizer, 0.1, 0.7)
    assert (optimizer.param_groups[0]["betas"], optimizer.param_groups[0]["lr"]) == ((0.7, 0.6), 0.2)


def test_a_run_has_the_rate_and_the_beta_of_its_step(tmp_path):
    """Also after it was interrupted: the state has those of the last step, and the schedule the next."""
    save_model(new.tiny(), ModelSettings(name="tiny", size=32), tmp_path / "model", torch.float32)
    world.folder(tmp_path / "balls", 2, 32)
    plan = recipe(
        model={
            "init_from": str(tmp_path / "model"),
            "head": {"name": "light"},
            "latent_loss_weight": 0.0,
            "pixel_loss_weight": 1.0,
            "unet": "frozen",
            "text_encoder": "frozen",
        },
        data={
            "sources": [{"path": str(tmp_path / "balls")}],
            "task_weights": {"depth": 1.0},
            "size": (32, 32),
        },
        optimizer={"final_lr_ratio": 4e-6},
        ema={"decay": 0.0},
        loop={"steps": 5, "batch_size": 1, "save_every": 1},
        validation={"every": 0},
    )
    records = run_recipe(plan, tmp_path / "run")
    rates = [next(records)["lr"] for _ in range(2)]
    records.close()
    rates += [r["lr"] for r in run_recipe(plan, tmp_path / "run")][-3:]
    assert rates == pytest.approx([learning_rate(plan, step) for step in range(5)])
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert state["optimizer"]["param_groups"][0]["betas"][0] == pytest.approx(0.95)
