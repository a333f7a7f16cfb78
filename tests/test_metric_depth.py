"""Depth in metres: encoded, predicted, scored, stored and used in training without alignment to the target."""

import runpy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

import world
from twofold.data.folder import Folder
from twofold.evaluate.benchmarks import EVAL_PROTOCOLS
from twofold.evaluate.predictions import ModelPredictions, check_model
from twofold.evaluate.protocol import EvaluationError
from twofold.generate import CreationOptions, GenerationConfig, SyntheticDataGenerator, create_samples
from twofold.generate.relative import can_train_on
from twofold.predict.module import ModulePredictor
from twofold.predict.prediction import Prediction
from twofold.tasks import TASKS, get_task
from twofold.tasks.metric_depth import depth_8m, depth_10m

METRES = "twofold.tasks.metric_depth:depth_10m"
ROOT = Path(__file__).parents[1] / "recipes"


class Constant(torch.nn.Module):
    """A network that predicts one distance, as a canvas."""

    stride = 1

    def __init__(self, canvas: float) -> None:
        super().__init__()
        self.canvas = torch.nn.Parameter(torch.tensor(canvas))

    def forward(self, images):
        return {"depth": self.canvas.expand(len(images), 1, *images.shape[-2:])}


def predictor(canvas: float, task=depth_10m):
    return ModulePredictor(Constant(canvas).eval(), task, "depth", 32)


def protocol(name: str) -> Any:
    return EVAL_PROTOCOLS[name]


def test_metres_come_back_from_the_canvas():
    metres = torch.tensor([0.5, 2.0, 10.0]).reshape(1, 1, 1, 3)
    canvas, mask = depth_10m.encode(metres, metres > 0)
    assert canvas[0, 0, 0].tolist() == pytest.approx([-0.9, -0.6, 1.0])
    assert mask.all()
    torch.testing.assert_close(depth_10m.decode(canvas) * depth_10m.metres, metres)
    assert (depth_8m.metres, depth_10m.metres, TASKS["depth"].metres) == (8.0, 10.0, 0.0)
    assert get_task(METRES) is depth_10m


def test_the_benchmark_in_metres_scores_a_task_in_metres_and_no_other():
    """An encoded value of -0.5 is 2.5 m for any target."""
    ours = predictor(-0.5)
    check_model(ours, protocol("mtl/invpt-depth"))
    ball = world.sphere(0, 32)
    found = ModelPredictions(ours)(ball, {}).map
    torch.testing.assert_close(found, torch.full_like(found, 2.5))
    with pytest.raises(EvaluationError, match="scores metric depth"):
        check_model(predictor(-0.5, TASKS["depth"]), protocol("mtl/invpt-depth"))
    check_model(predictor(-0.5, TASKS["depth"]), protocol("depth/marigold-ls"))


def test_members_are_compared_as_they_are_and_scores_fit_nothing():
    members = torch.stack([torch.full((1, 2, 2), v) for v in (0.2, 0.3, 0.5)])
    torch.testing.assert_close(depth_10m.merge(members).map, torch.full((1, 2, 2), 0.3))
    truth = torch.linspace(1, 4, 4).reshape(1, 2, 2)
    torch.testing.assert_close(depth_10m.align(truth / 20, truth, truth > 0), truth / 2)


def test_a_metric_prediction_converts_to_metres_once():
    made = Prediction(depth_10m, torch.full((1, 2, 2), 0.25), torch.zeros(3, 2, 2), space="depth")
    metric = made.in_space("depth")
    assert metric.metric and metric.map.unique().tolist() == [2.5]
    assert made.in_space("disparity").map.unique().tolist() == pytest.approx([0.4])
    assert metric.in_space("depth").map.unique().tolist() == [2.5], "not multiplied twice"
    with pytest.raises(ValueError, match="up to scale and shift only"):
        replace(made, task=TASKS["depth"]).in_space("depth")


@pytest.mark.parametrize("task, relative", [(depth_10m, False), (TASKS["depth"], True)])
def test_created_labels_in_metres_are_metres(tmp_path, tiny_model, task, relative):
    """And relative ones are no lesson for a task in metres, to which they would be 1 to 2 m."""
    from twofold.checkpoints import open_model

    net = open_model(str(tiny_model)).backbone
    settings = GenerationConfig(steps=2, guidance=1.0, scoring="cheap")
    maker = SyntheticDataGenerator(net, {"depth": predictor(-0.5, task)}, settings, {"made": "here"})
    sources = Folder(world.folder(tmp_path / "balls", 1, 32))
    assert [
        e["status"] for e in create_samples(maker, sources, tmp_path / "out", CreationOptions((0.5,)))
    ] == ["created"]
    folder = Folder(tmp_path / "out")
    depth = folder[0].targets["depth"][folder[0].valid["depth"]]
    assert depth.unique().tolist() == pytest.approx([1.25 if relative else 2.5])
    assert can_train_on(depth_10m, folder, 0) is not relative
    assert can_train_on(TASKS["depth"], folder, 0)
    assert not relative or not can_train_on(TASKS["disparity"], folder, 0)


def test_nyud_mt_is_trained_on_depth_in_metres():
    plan = runpy.run_path(str(ROOT / "multitask.py"))["nyud_mt"]()
    task = get_task(METRES)
    weights = plan.loss[METRES]
    # A prediction that is 0.3 m off everywhere has a loss of 0.3, as InvPT's.
    truth = torch.full((1, 1, 4, 4), 3.0)
    canvas, mask = task.encode(truth, truth > 0)
    output, _ = task.encode(truth + 0.3, truth > 0)
    assert float(task.loss(output, canvas, mask, weights)) == pytest.approx(0.3, rel=1e-4)


def test_data_efficiency_recipes_use_a_random_fraction_and_its_created_images():
    from twofold.train.recipe_loader import recipes

    found = recipes(ROOT / "data_efficiency.py")
    assert set(found) == {f"{kind}_{p}" for kind in ("segmentation", "improved") for p in range(10, 100, 10)}
    parts = []
    for percent in range(10, 100, 10):
        plain, better = found[f"segmentation_{percent}"](), found[f"improved_{percent}"]()
        (source,) = plain.data.sources
        assert (source.fraction, source.selection) == (percent / 100, "random")
        assert better.data.sources[0] == source
        assert (better.data.sources[1].labels, better.data.sources[1].path) == (
            "teacher",
            f"data/ade20k-created-{percent}",
        )
        assert better.model.init_from == f"runs/{plain.name}/checkpoint"
        parts.append(set(source.indices(20210)))
        assert len(parts[-1]) == 2021 * percent // 10
    assert all(a < b for a, b in pairwise(parts))
    names = [f().name for f in found.values()]
    assert len({*names}) == len(names)
