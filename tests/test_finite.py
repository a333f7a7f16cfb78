"""A network that returns NaN or infinity has no prediction, no score and no image, and its row has the reason."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import world
from twofold.backbones import new
from twofold.cli.main import run
from twofold.evaluate import score
from twofold.generate.images import ImageGenerator
from twofold.heads import Head, LatentHead
from twofold.predict.base import BasePredictor
from twofold.predict.config import OutputConfig
from twofold.predict.diffusion import DiffusionPredictor
from twofold.predict.finite import NonFiniteError, check_finite, clamp_finite, finite_per_image
from twofold.predict.module import ModulePredictor
from twofold.predict.prediction import Prediction
from twofold.protocols import MultiStep, OneStep
from twofold.tasks import TASKS

BAD = [math.nan, math.inf, -math.inf]
WEIGHTS = Path("unet/diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="module")
def net():
    return new.tiny()


class Constant(Head):
    """A head, or a network of one's own, that returns one value everywhere, or at one pixel of one image."""

    reads_features = False

    def __init__(self, value: float, channels: int = 3, everywhere: bool = True) -> None:
        super().__init__()
        self.value, self.channels, self.everywhere = value, channels, everywhere

    def forward(self, x0, features=None, backbone=None):
        scale = 1 if backbone is None else backbone.stride
        out = torch.zeros(len(x0), self.channels, x0.shape[2] * scale, x0.shape[3] * scale)
        if self.everywhere:
            out += self.value
        else:
            out[-1, 0, 1, 1] = self.value
        return out if backbone is not None else {"depth": out, "normals": out}


def image(seed: int = 0) -> torch.Tensor:
    return torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(seed))


def test_infinity_survives_a_clamp_as_nan():
    x = torch.tensor([0.5, 3.0, math.inf, -math.inf, math.nan])
    found = clamp_finite(x, -1, 1)
    assert found[:2].tolist() == [0.5, 1.0]
    assert found[2:].isnan().all()
    assert finite_per_image(torch.stack([x[:2], x[3:]], 0)[..., None]).tolist() == [True, False]
    with pytest.raises(NonFiniteError, match=r"the thing is NaN or infinite in 60.0 % .*float32"):
        check_finite(x, "the thing")


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize("task", TASKS)
def test_non_finite_outputs_raise_for_every_task(net, task, value, everywhere):
    head = Constant(value, 3 if TASKS[task].is_image else TASKS[task].out_channels, everywhere)
    predictor = DiffusionPredictor(net, TASKS[task], OneStep(), head)
    with pytest.raises(NonFiniteError, match=f"the network's {task} output is NaN or infinite in"):
        predictor(image())


@pytest.mark.parametrize("value", BAD)
def test_outputs_of_user_defined_networks_are_checked_before_decoding(value):
    for task in ("depth", "normals"):
        with pytest.raises(NonFiniteError, match=f"{task} output"):
            ModulePredictor(Constant(value), TASKS[task])(image())


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("stage", ["unet", "vae"])
def test_non_finite_weights_are_detected_with_every_head(stage, value):
    net = new.tiny()
    layer = net.unet.conv_out if stage == "unet" else net.vae.decoder.layers[-1]
    with torch.no_grad():
        layer.bias[0] = value
    for task, reading in (
        ("depth", OutputConfig(minmax_normalize=True)),
        ("depth", OutputConfig(clip="channels")),
        ("normals", OutputConfig()),
    ):
        with pytest.raises(NonFiniteError):
            DiffusionPredictor(net, TASKS[task], OneStep(), LatentHead(), reading)(image())
    with pytest.raises(NonFiniteError, match="the generated image of 'a red chair'"):
        ImageGenerator(net, steps=2)(["a red chair"], (32, 32))


def test_features_are_checked_although_a_head_may_swallow_them(net):
    """-inf becomes 0 in a rectifier: the head's output is finite."""

    class Rectified(Head):
        reads_features = True

        def forward(self, x0, features, backbone):
            return torch.nn.functional.relu(features[-1][:, :1] * 0 - math.inf).expand(-1, 3, -1, -1)

    forward = net.forward
    predictor = DiffusionPredictor(net, TASKS["depth"], OneStep(), Rectified())
    broken = type(forward(torch.zeros(1, 4, 4, 4), torch.ones(1), net.embed([""])))

    def broken_forward(x, *args, **more):
        output = forward(x, *args, **more)
        return broken(output.prediction, tuple(torch.full_like(f, -math.inf) for f in output.features))

    net.forward = broken_forward
    try:
        with pytest.raises(NonFiniteError, match="depth output"):
            predictor(image())
    finally:
        net.forward = forward


def test_the_image_and_the_member_of_an_ensemble_are_named(net):
    predictor = DiffusionPredictor(net, TASKS["depth"], OneStep(), Constant(math.nan, everywhere=False))
    with pytest.raises(
        NonFiniteError, match=r"images 2 of 3 \(counted from 0\): the network's depth output"
    ) as caught:
        predictor([image(i) for i in range(3)])
    assert caught.value.positions == (2,)
    random = DiffusionPredictor(
        net, TASKS["depth"], OneStep(encode="sample"), Constant(math.nan, everywhere=False)
    )
    with pytest.raises(NonFiniteError, match="depth output of ensemble member 2"):
        random(image(), ensemble=3)
    walk = MultiStep(3, start="image", condition="replace")
    with pytest.raises(NonFiniteError):
        DiffusionPredictor(net, TASKS["depth"], walk, Constant(math.inf))(image())


def test_an_uncertainty_is_checked_like_the_map(net):
    class Unsure(Constant):
        has_uncertainty = True

        def forward_with_uncertainty(self, x0, features, backbone):
            out = self(x0, features, backbone)
            return out * 0 + 0.5, out[:, :1] * 0 + math.inf

    with pytest.raises(NonFiniteError, match="the uncertainty of the network's normals output"):
        DiffusionPredictor(net, TASKS["normals"], OneStep(), Unsure(0.0))(image())


def test_non_finite_predictions_have_no_score():
    class Broken(BasePredictor):
        def predict_raw(self, inputs, index, seeds):
            return inputs.select(index), None

        def postprocess(self, outputs, image, metadata, uncertainty=None):
            return Prediction(self.task, torch.full((3, *image.shape[1:]), math.inf), image)

    with pytest.raises(NonFiniteError, match="the normals prediction of 'ball-0'"):
        score([Broken(TASKS["normals"])], [world.sphere(0, 32)])


# ---- the commands


@pytest.fixture
def broken_model(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model, whose network returns infinity in one channel."""
    shutil.copytree(tiny_model, tmp_path / "broken")
    weights = load_file(tmp_path / "broken" / WEIGHTS)
    weights["conv_out.bias"][0] = math.inf
    save_file(weights, tmp_path / "broken" / WEIGHTS)
    return tmp_path / "broken"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_predict_fails_the_row_and_writes_no_map(here, broken_model, capsys):
    Image.linear_gradient("L").resize((40, 30)).save("a.png")
    assert run(["predict", "a.png", "--model", str(broken_model), "--out", "out"]) == 1
    reported = capsys.readouterr()
    assert "predicted" not in reported.out
    assert "a.png: the network's depth output is NaN or infinite in 100.0 % of its values" in reported.err
    (row,) = map(json.loads, Path("out/predictions.jsonl").read_text().splitlines())
    assert row["status"] == "failed" and "NaN or infinite" in row["error"]
    assert [p.name for p in Path("out").iterdir()] == ["predictions.jsonl"]


@pytest.mark.parametrize("target", ["depth", "normals"])
def test_evaluate_fails_the_row_and_reports_no_score(here, broken_model, capsys, target):
    from twofold.evaluate import EVAL_PROTOCOLS

    scored = [s for s in EVAL_PROTOCOLS.values() if s.target == target and target in s.spaces]
    able = [s.id for s in scored if target == "normals" or s.align != "none"]
    world.folder(here / "data", count=2, size=32)
    code = run(["evaluate", "--data", "data", "--protocol", able[0], "--model", str(broken_model), "--out", "report",
                "--allow-synthetic"])  # fmt: skip
    assert code == 1
    assert f"ball-0: the network's {target} output is NaN or infinite" in capsys.readouterr().err
    report = json.loads(Path("report/report.json").read_text())
    assert report["counts"]["failed"] == {"damaged prediction": 2}
    assert not any(v for v in report["scores"].values())


def test_create_fails_the_row_and_makes_the_others(here, tiny_model, broken_model, capsys, monkeypatch):
    world.folder(here / "data", count=3, size=32)
    base = ["create", "data", "--steps", "2", "--batch", "3", "--json"]
    assert run([*base, "--model", str(broken_model), "--out", "none"]) == 1
    events = list(map(json.loads, capsys.readouterr().out.splitlines()))
    assert [e["status"] for e in events] == ["failed"] * 3
    assert "the generated image of 'ball-0' is NaN or infinite" in events[0]["error"]
    assert not Path("none/image").exists()

    from twofold.generate import synthetic_data as creator

    generated = creator.SyntheticDataGenerator._generate_images

    def one_broken(self, images, captions, seeds, ids):
        bad = tuple(i for i, id in enumerate(ids) if id == "ball-1")
        if bad:
            raise NonFiniteError("the generated image of 'ball-1' is NaN or infinite", bad)
        return generated(self, images, captions, seeds, ids)

    monkeypatch.setattr(creator.SyntheticDataGenerator, "_generate_images", one_broken)
    code = run([*base, "--model", str(tiny_model), "--out", "some"])
    assert code == 1, capsys.readouterr().err
    events = {e["source"]: e for e in map(json.loads, capsys.readouterr().out.splitlines())}
    assert [events[f"ball-{i}"]["status"] for i in range(3)] == ["created", "failed", "created"]


def test_pseudo_labels_and_validation_stop_the_training(here, tiny_model, monkeypatch):
    from twofold.train import DataConfig, DenoiserConfig, LoopConfig, OptimizerConfig, ValidationConfig, loop
    from twofold.train.denoiser import DenoiserStage
    from twofold.train.recipe import Recipe, Source
    from twofold.train.run import run_recipe

    world.folder(here / "data", count=2, size=32)
    recipe = Recipe(
        name="x",
        model=DenoiserConfig(init_from=str(tiny_model)),
        data=DataConfig(sources=(Source(path="data"),), task_weights={"normals": 1.0}, size=(32, 32)),
        optimizer=OptimizerConfig(warmup_steps=0),
        loop=LoopConfig(steps=1, batch_size=1),
        validation=ValidationConfig(data="data", num_samples=1, every=1),
    )
    stage = DenoiserStage.__new__(DenoiserStage)
    stage.tasks = {"normals": TASKS["normals"]}
    from twofold.train.examples import Example

    fields: dict[str, Any] = dict.fromkeys(Example.__dataclass_fields__)
    fields |= {"name": "data/ball-0", "use_teacher_label": True}
    example = Example(**fields)
    for encoded, latents in (
        ([torch.full((3, 4, 4), math.inf)], ()),
        ((), [torch.full((4, 1, 1), math.nan)]),
    ):
        with pytest.raises(NonFiniteError, match=r"the EMA teacher's normals .* of data/ball-0"):
            stage._apply_pseudo_labels("normals", [example], encoded, latents)

    real = loop.update

    def spoil(stage, *args):
        record = real(stage, *args)
        with torch.no_grad():
            stage.module.unet.conv_out.bias.fill_(math.inf)
            args[2].ema.update(1000)
        return record

    monkeypatch.setattr(loop, "update", spoil)
    with pytest.raises(NonFiniteError, match=r"validation after step 1: .*normals output"):
        list(run_recipe(recipe, here / "run"))
