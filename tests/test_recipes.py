"""Recipes of the field, held against the settings that their authors published."""

from pathlib import Path

import pytest
import torch

from twofold.protocols import MultiStep
from twofold.tasks import get_task
from twofold.train.optimizer import learning_rate
from twofold.train.recipe_loader import recipes

PEERS = recipes(Path(__file__).parents[1] / "recipes" / "peers.py")


@pytest.mark.parametrize("name", ["dmp_depth", "dmp_normals"])
def test_dmp_recipes_equal_its_readme(name):
    """Batch 8, 50,000 steps, 1e-4 along a cosine without warm-up, v-prediction, 512 pixels; only depth is mirrored."""
    recipe = PEERS[name]()
    model, optimizer, loop = recipe.denoiser, recipe.optimizer, recipe.loop
    assert (loop.batch_size, loop.steps, loop.seed, recipe.data.size) == (8, 50000, 42, (512, 512))
    assert (optimizer.name, optimizer.lr, optimizer.betas) == ("adamw", 1e-4, (0.9, 0.999))
    assert (optimizer.warmup_steps, optimizer.weight_decay, optimizer.max_grad_norm) == (0, 0.01, 1.0)
    assert (model.unet, model.lora.rank, model.lora.alpha) == ("lora", 4, 0)
    assert (model.init_from, model.pad_prompts) == ("CompVis/stable-diffusion-v1-4", True)
    assert (recipe.data.hflip, recipe.ema.decay) == (name == "dmp_depth", 0.0)
    rates = [learning_rate(recipe, step) for step in (0, 25000, 50000)]
    assert rates == pytest.approx([1e-4, 5e-5, 0], abs=1e-12)
    assert isinstance(model.protocol, MultiStep)
    assert model.protocol.noise is not None
    assert (model.protocol.noise.prediction_type, model.protocol.start, model.protocol.steps) == (
        "v",
        "image",
        5,
    )
    assert (model.latent_loss_weight, model.pixel_loss_weight) == (1.0, 0.0)


def test_dmp_depth_is_scaled_by_an_eighth():
    (name,) = PEERS["dmp_depth"]().tasks
    task = get_task(name, trusted=False)
    metres = torch.tensor([0.5, 4.0, 8.0, 12.0, torch.inf, 0.0]).reshape(1, 1, 1, 6)
    valid = torch.tensor([True, True, True, True, False, False]).reshape(1, 1, 1, 6)
    canvas, mask = task.encode(metres, valid)
    assert canvas[0, :, 0].tolist() == [pytest.approx([-0.875, 0, 1, 1, 1, 0])] * 3
    assert mask.flatten().tolist() == [True] * 5 + [False]
    decoded = task.decode(canvas[..., :3])
    assert (decoded * 8).flatten().tolist() == pytest.approx([0.5, 4, 8])
    assert (task.name, task.target) == ("depth", "depth")
    # The scale is the same for every image, unlike that of depth up to scale and shift.
    alone, _ = task.encode(metres[..., :1], valid[..., :1])
    assert alone[0, 0, 0, 0] == canvas[0, 0, 0, 0]
