"""The formulas of training by hand: averages, losses, accumulation, clipping, what is the best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import world
from twofold.backbones import new
from twofold.backbones.backbone import Output
from twofold.train import (
    DataConfig,
    DenoiserConfig,
    EmaConfig,
    LoopConfig,
    OptimizerConfig,
    Recipe,
    Source,
    ValidationConfig,
)
from twofold.train.autoencoder import whiteness
from twofold.train.best import BestWeights
from twofold.train.denoiser import DenoiserStage
from twofold.train.distributed import DistributedContext
from twofold.train.examples import Example
from twofold.train.loop import update, validate
from twofold.train.sampler import generator
from twofold.train.signals import DeferredSignals
from twofold.train.stage import build_trainer
from twofold.train.state import Ema, State
from twofold.train.step import Loss
from twofold.train.trainable import add_lora


def plan(path: Path | str = "data", **changes: Any) -> Recipe:
    made = Recipe(
        name="formulas",
        model=DenoiserConfig(),
        data=DataConfig(
            sources=(Source(path=str(path)),), size=(32, 32), task_weights={"depth": 1.0}, hflip=False
        ),
        optimizer=OptimizerConfig(warmup_steps=0, schedule="constant", lr=0.1),
        ema=EmaConfig(decay=0.0),
        loop=LoopConfig(steps=8, batch_size=2),
        validation=ValidationConfig(every=0),
    )
    return made.replace(**changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world.folder(tmp_path_factory.mktemp("formulas") / "balls", 2, 32)


# ---- averages and states


def numbers(module: nn.Module) -> list[float]:
    return [p.item() for p in module.parameters()]


def scalar(value: float = 0.0) -> nn.ParameterDict:
    return nn.ParameterDict({"x": nn.Parameter(torch.tensor(value))})


def test_the_average_after_its_ramp_by_hand():
    """Decays (1 + n) / (10 + n), n = 1, 2, ..., until that is above the decay of 0.25: 2/11, 3/12 and then 0.25."""
    module = scalar()
    ema = Ema(module, 0.25)
    expected = 0.0
    for n, value in enumerate((1.0, -2.0, 4.0, 8.0), 1):
        with torch.no_grad():
            module["x"].fill_(value)
        ema.update(5)
        decay = min(0.25, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
        assert float(ema.average["x"]) == pytest.approx(expected)
    ema.swap()
    assert numbers(module) == pytest.approx([expected])
    ema.swap()
    assert numbers(module) == [8.0]


def test_a_state_restores_all_that_the_next_step_depends_on(tmp_path):
    """Weights, their average and its count, Adam's moments, the step: the next updates are those of the saved run."""

    def fresh() -> tuple[nn.ParameterDict, State]:
        module = scalar()
        optimizer = torch.optim.Adam(module.parameters(), 0.1)
        return module, State(
            tmp_path / "state.pt", module, Ema(module, 0.999), optimizer, torch.amp.GradScaler(enabled=False)
        )

    def go_on(module: nn.ParameterDict, state: State, steps: range) -> None:
        for n in steps:
            state.optimizer.zero_grad()
            (module["x"] - n).square().backward()
            state.optimizer.step()
            state.ema.update(1)

    module, state = fresh()
    go_on(module, state, range(1, 4))
    state.save(3)
    go_on(module, state, range(4, 7))
    again, restored = fresh()
    assert restored.load() == 3
    go_on(again, restored, range(4, 7))
    assert numbers(again) == numbers(module)
    assert torch.equal(restored.ema.average["x"], state.ema.average["x"])
    assert restored.ema.count == state.ema.count == 6


class Counted:
    """A stage of one number, whose examples are numbers and whose loss is their product with it."""

    def __init__(self) -> None:
        self.module, self.teacher, self.seen = scalar(1.0), None, []

    def draw(self, step: int) -> list[float]:
        return [1.0, 2.0, 6.0]

    def loss(self, examples: list[float]) -> Loss:
        loss = Loss("cpu", 3)
        values = torch.tensor(examples) * self.module["x"]
        loss.add("a", [str(e) for e in examples], {"only": (2.0, values)})
        return loss

    def validate(self) -> dict[str, float]:
        self.seen.append(numbers(self.module)[0])
        return {"x": self.seen[-1]}

    def preview(self) -> None:
        return None


def state_of(stage: Counted, recipe: Recipe, folder: Path) -> State:
    optimizer = torch.optim.SGD(
        [{"params": list(stage.module.parameters()), "scale": 1.0}], recipe.optimizer.lr
    )
    ema = Ema(stage.module, recipe.ema.decay)
    return State(folder / "state.pt", stage.module, ema, optimizer, torch.amp.GradScaler(enabled=False))


@pytest.mark.parametrize("micro", [0, 1, 2])
def test_an_update_is_one_of_the_mean_over_the_batch_however_it_is_split(micro, tmp_path):
    """Twice: gradients of the first are not left to the second. Slope 2 * (1 + 2 + 6) / 3 = 6, rate 0.1."""
    stage, recipe = (
        Counted(),
        plan(optimizer={"max_grad_norm": 0}, loop={"micro_batch_size": micro, "batch_size": 3}),
    )
    state = state_of(stage, recipe, tmp_path)
    record = update(stage, recipe, 0, state, DistributedContext("cpu"))  # ty: ignore[invalid-argument-type]
    assert numbers(stage.module) == pytest.approx([1 - 0.6])
    assert (
        record["norm"] == pytest.approx(6)
        and record["loss"] == pytest.approx(6)
        and record["lr"] == pytest.approx(0.1)
    )
    update(stage, recipe, 1, state, DistributedContext("cpu"))  # ty: ignore[invalid-argument-type]
    assert numbers(stage.module) == pytest.approx([1 - 1.2])


def test_a_gradient_is_clipped_to_its_norm(tmp_path):
    stage, recipe = Counted(), plan(optimizer={"max_grad_norm": 1.5}, loop={"batch_size": 3})
    record = update(stage, recipe, 0, state_of(stage, recipe, tmp_path), DistributedContext("cpu"))  # ty: ignore[invalid-argument-type]
    assert record["norm"] == pytest.approx(6)
    assert numbers(stage.module) == pytest.approx([1 - 0.15])


def test_the_averaged_weights_are_what_is_validated(tmp_path):
    stage, recipe = Counted(), plan(ema={"decay": 0.5})
    state = state_of(stage, recipe, tmp_path)
    with torch.no_grad():
        stage.module["x"].fill_(9.0)
    image, context = tmp_path / "seen.png", DistributedContext("cpu")
    scores = validate(stage, state.ema, image, context, DeferredSignals())  # ty: ignore[invalid-argument-type]
    assert scores == {"x": 1.0}
    assert stage.seen == [1.0] and numbers(stage.module) == [9.0]


@pytest.mark.parametrize(
    ("score", "order"), [("depth/abs_rel", (0.5, 0.2, 0.3)), ("depth/delta1", (0.5, 0.8, 0.7))]
)
def test_the_best_score_is_kept_and_waiting_is_counted_from_it(score, order, tmp_path):
    recipe = plan(
        ema={"decay": 0.5},
        loop={"steps": 100},
        validation={"best_metric": score, "patience": 2, "every": 10, "data": "data"},
    )
    module = scalar()
    best, ema = BestWeights(tmp_path / "best.pt", recipe), Ema(module, 0.5)
    for step, value in zip((0, 10, 20), order, strict=True):
        ema.average["x"].fill_(float(step))
        best.update(step, {score: value}, module, ema, True)
    assert (best.step, best.score) == (10, order[1])
    assert [best.patience_exceeded(step) for step in (20, 29, 30)] == [False, False, True]
    assert best.restore(module) and numbers(module) == [10.0]


# ---- losses


def fixed(stage: DenoiserStage, monkeypatch: pytest.MonkeyPatch, output: float) -> list[torch.Tensor]:
    """A network that predicts one number everywhere; what it is shown is kept."""
    shown: list[torch.Tensor] = []

    def forward(x, t, text, *args, **how):
        shown.append(x)
        return Output(torch.full_like(x, output))

    monkeypatch.setattr(stage.backbone, "forward", forward)
    return shown


def stage_of(recipe: Recipe, folder: Path) -> DenoiserStage:
    stage = build_trainer(new.tiny(), recipe, folder / "run", {}, DistributedContext("cpu"))
    assert isinstance(stage, DenoiserStage)
    return stage


def example(kind: str, **parts: Any) -> Example:
    return Example("one", kind, "a ball", generator("one"), torch.zeros(4, 2, 2), **parts)


def test_the_loss_on_latents_is_a_mean_over_known_cells(data, tmp_path, monkeypatch):
    """One step: v is minus x0. The valid cell's target is 3, the network predicts -1: (3 - 1)^2."""
    stage = stage_of(plan(data), tmp_path)
    fixed(stage, monkeypatch, -1.0)
    target = torch.full((4, 2, 2), 100.0)
    target[:, 0, 1] = 3.0
    mask = torch.zeros(1, 2, 2, dtype=torch.bool)
    mask[0, 0, 1] = True
    terms = stage.perception_terms([{"depth": example("depth", target=target, mask=mask)}])["depth"]
    assert set(terms) == {"latent"}
    assert terms["latent"][0] == 1 and terms["latent"][1].tolist() == pytest.approx([4.0])


def test_the_image_task_is_trained_on_the_schedule_s_prediction_type(data, tmp_path, monkeypatch):
    """Of a latent of zeros, v is alpha times the noise, and the network is shown sigma times it."""
    stage = stage_of(plan(data, data={"task_weights": {"image": 1.0}}), tmp_path)
    shown = fixed(stage, monkeypatch, 0.0)
    loss = stage.image_terms([example("image")])["noise"][1]
    rng = generator("one")
    t = torch.randint(1000, (1,), generator=rng)
    noise = torch.randn(4, 2, 2, generator=rng)
    alpha, sigma = (float(s) for s in stage.backbone.schedule.scales(t))
    torch.testing.assert_close(shown[0][0], sigma * noise)
    assert loss.tolist() == pytest.approx([float((alpha * noise).square().mean())])


def test_the_weight_of_losses_on_pixels_multiplies_those_of_the_task(data, tmp_path, monkeypatch):
    canvas, known = torch.zeros(3, 16, 16), torch.ones(1, 16, 16, dtype=torch.bool)
    for weight in (1.0, 2.5):
        recipe = plan(
            data,
            model={"head": {"name": "light"}, "pixel_loss_weight": weight, "latent_loss_weight": 0.0},
            loss={"depth": {"l1": 3.0}},
        )
        stage = stage_of(recipe, tmp_path / str(weight))
        encoded = torch.full((1, 3, 16, 16), 0.5)
        terms = stage._pixel_loss_terms("depth", encoded, [example("depth", canvas=canvas, known=known)])
        assert terms["l1"][0] == pytest.approx(3 * weight)
        assert terms["l1"][1].tolist() == pytest.approx([0.5])


@pytest.mark.parametrize(("rank", "alpha", "scale"), [(4, 0, 1.0), (4, 8, 2.0), (8, 4, 0.5)])
def test_low_rank_additions_are_scaled_by_alpha_over_rank(rank, alpha, scale):
    """Hu et al. 2022, sec. 4.1: W + alpha / rank * B A; an alpha of 0 means the rank."""
    net = new.tiny()
    net.requires_grad_(False)
    before = {k: v.clone() for k, v in net.unet.state_dict().items()}
    add_lora(
        net, plan(model={"unet": "lora", "lora": {"rank": rank, "alpha": alpha, "target_modules": ("to_q",)}})
    )
    added: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for name, layer in net.unet.named_modules():
            if hasattr(layer, "lora_B"):
                a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
                b.fill_(0.1)
                added[f"{name}.weight"] = scale * b @ a
    net.unet.fuse_lora()
    net.unet.unload_lora()
    after = net.unet.state_dict()
    assert added
    for name, addition in added.items():
        torch.testing.assert_close(after[name], before[name] + addition)


def test_whiteness_is_of_means_variances_and_correlations():
    """0 of white latents; a mean of m costs m^2, a variance of s costs (s - 1)^2 over the number of channels."""
    rng = torch.Generator().manual_seed(0)
    rows = torch.linalg.qr(torch.randn(400, 3, generator=rng).double() - 0.0)[0]
    rows = rows - rows.mean(0)
    rows = torch.linalg.qr(rows)[0] * 20  # no mean, no correlation, variance 1
    white = rows.T.reshape(3, 1, 20, 20).transpose(0, 1)
    assert float(whiteness(white)) == pytest.approx(0, abs=1e-9)
    assert float(whiteness(white + 2)) == pytest.approx(4)
    assert float(whiteness(white * 2)) == pytest.approx((4 - 1) ** 2 / 3)
