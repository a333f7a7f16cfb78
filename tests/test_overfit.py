"""Every task overfits eight images through every kind of head, measured on the decoded maps against the labels.

A small network is trained for 25 to 700 steps. What is asserted is the task's own error (relative error of depth,
degrees, intersection over union, ...) of a `DiffusionPredictor` with the trained weights, not the loss: the target of
a loss goes through the same encoding as the prediction, so that it is small where that encoding is wrong. The error
has to be below half of that of the mean label, the best map that does not depend on the image.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import world
from twofold.backbones import new
from twofold.backbones.stable_diffusion import StableDiffusion
from twofold.checkpoints import open_model
from twofold.data.folder import Folder
from twofold.geometry import align_affine, unit
from twofold.heads import Head
from twofold.metrics import peaks
from twofold.predict.diffusion import DiffusionPredictor
from twofold.tasks import TASKS, Task
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
from twofold.train.loop import train
from twofold.train.trainable import make_heads, make_tasks

pytestmark = pytest.mark.timeout(900)  # half a minute of processor time, on a busy machine more

COUNT = 8
# Metres to the space of each task of distances, and back.
SPACES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "depth": (lambda d: d, lambda z: z),
    "disparity": (lambda d: 1 / d, lambda z: 1 / z),
    "sqrt_disparity": (lambda d: d.rsqrt(), lambda z: 1 / z.square()),
    "log_depth": (lambda d: d.log(), lambda z: z.exp()),
}
# Steps of those that run by default, on images of 32 pixels; the others take 200, keypoints more, on 64 or 128.
QUICK = {("depth", "latent"): 25, ("normals", "dpt"): 110, ("semantic_logits", "upernet"): 80}
CASES = [
    *((name, "latent") for name, task in TASKS.items() if task.is_image), *((name, "dpt") for name in TASKS),
    ("semantic_logits", "upernet"), ("keypoints", "keypoint"),
]  # fmt: skip


def error(task: Task, found: Tensor, label: Tensor) -> float:
    """Of a decoded map to its label, ``c h w`` each: 0 where it is right. Written apart from `twofold.metrics`.

    Depth: mean of |z - d| / d after least squares in the map's own space, infinite where the scale is not positive.
    Normals: mean degrees. Masks: 1 - IoU. Classes: share of wrong pixels. Joints: mean distance as a share of the
    edge. Images: mean absolute difference.
    """
    if task.name in SPACES:
        to, back = SPACES[task.name]
        scale, shift = align_affine(found, to(label), torch.ones_like(label, dtype=torch.bool))
        metres = back((scale * found + shift).clamp(min=1e-3))
        return float(((metres - label).abs() / label).mean()) if scale > 0 else float("inf")
    if task.target == "normals":
        return float(torch.rad2deg(torch.acos((found * label).sum(0).clamp(-1, 1))).mean())
    if task.target == "mask":
        a, b = found > 0.5, label > 0.5
        return 1 - float((a & b).sum() / (a | b).sum().clamp(min=1))
    if task.classes:
        return float((found != label).float().mean())
    if task.target == "keypoints":
        apart = (peaks(found) - peaks(label))[:, :2].norm(dim=-1)
        return float(apart.mean() / label.shape[-1])
    return float((found - label).abs().mean())


def mean_label(task: Task, labels: Tensor) -> Tensor:
    """The best map that does not depend on the image: of each pixel of ``n c h w`` the mean; of ids the mode."""
    if task.classes:
        return labels.mode(0).values
    mean = labels.mean(0)
    if task.name in SPACES:
        return SPACES[task.name][0](mean)
    return unit(mean) if task.target == "normals" else mean


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """By size: joints are too small for the heatmaps of small images."""
    root = tmp_path_factory.mktemp("rich")

    def made(size: int) -> Path:
        folder = root / str(size)
        return folder if folder.exists() else world.rich_folder(folder, COUNT, size)

    return made


@pytest.fixture(scope="module")
def codec() -> nn.Module:
    return open_model("embedded").backbone.vae


def recipe_of(task: str, head: str, folder: Path, size: int) -> Recipe:
    """With a latent head the decoder is trained too: the embedded one was not trained on such images."""
    latent, joints = head == "latent", task == "keypoints"
    steps = (700 if head == "dpt" else 320) if joints else QUICK.get((task, head), 200)
    rate = 3e-3 if joints else 5e-3 if head == "upernet" else 2e-3
    return Recipe(
        name="overfit",
        model=DenoiserConfig(
            head=HeadConfig(name=head, options={"width": 64} if head == "upernet" else {}),
            latent_loss_weight=float(latent),
            pixel_loss_weight=1.0,
            decoder="full" if latent else "frozen",
        ),
        data=DataConfig(
            sources=(Source(path=str(folder)),), task_weights={task: 1.0}, size=(size, size), hflip=False
        ),
        optimizer=OptimizerConfig(lr=rate, warmup_steps=5, weight_decay=0.0),
        ema=EmaConfig(decay=0.0),
        loop=LoopConfig(steps=steps, batch_size=COUNT, save_every=0),
        validation=ValidationConfig(every=0),
    )


def mean_error(net: StableDiffusion, heads: Mapping[str, Head], recipe: Recipe, folder: Folder) -> float:
    """Of the predictions of all images."""
    (name,) = recipe.tasks
    predictor = DiffusionPredictor(net.eval(), TASKS[name], recipe.denoiser.protocol, heads[name].eval())
    found = [error(TASKS[name], predictor(s.image).map, s.targets[TASKS[name].target]) for s in folder]
    return sum(found) / len(found)


def test_every_task_is_covered():
    assert {task for task, head in CASES if head == "dpt"} == set(TASKS)
    assert set(QUICK) <= set(CASES)


@pytest.mark.parametrize(
    ("task", "head"),
    [pytest.param(*c, marks=() if c in QUICK else pytest.mark.slow, id="-".join(c)) for c in CASES],
)
def test_eight_images_are_overfitted(task, head, data, codec, tmp_path):
    size = 128 if task == "keypoints" else 32 if (task, head) in QUICK else 64
    folder = Folder(data(size))
    labels = torch.stack([s.targets[TASKS[task].target] for s in folder])
    blind = mean_label(TASKS[task], labels)
    limit = sum(error(TASKS[task], blind, label) for label in labels) / COUNT / 2
    recipe, tiny = recipe_of(task, head, data(size), size), new.tiny()
    net = StableDiffusion(
        tiny.unet, copy.deepcopy(codec), tiny.text_encoder, tiny.tokenizer, new.MINIATURE_SCHEDULER
    )
    before = mean_error(net, make_heads(net, recipe, {}, make_tasks(recipe)), recipe, folder)
    heads: dict[str, Head] = {}
    for _ in train(net, recipe, tmp_path / "run", heads):
        pass
    after = mean_error(net, heads, recipe, folder)
    print(f"{task}, {head}: {before:.4f} to {after:.4f}, limit {limit:.4f}")
    assert after < limit < before
