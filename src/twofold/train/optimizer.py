"""What changes the weights, and how fast."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from .recipe import Recipe

ENCODER = "image_adapter.encoder."  # names of the image encoder's parameters begin with it


def learning_rate(recipe: Recipe, step: int) -> float:
    """The learning rate of step ``step``, counted from 0. All schedules warm up linearly for ``warmup`` steps.

    Then, over ``decay`` steps from the first one (0: all steps of the run), to ``final_lr * lr``:

    - ``cosine`` and ``linear``: along that curve; ``poly``: as the rest of the way to the power of 0.9 (DeepLab's, Chen
      et al. 2018, and of multi-task benchmarks);
    - ``exponential``: GenPercept's ``IterExponential``, whose very first step has a rate of 0;
    - ``constant``: not at all.
    """
    last = recipe.decay or recipe.steps
    if recipe.schedule == "exponential":
        if step < recipe.warmup:
            return recipe.lr * step / recipe.warmup
        done = (step - recipe.warmup) / max(1, last - recipe.warmup)
        return recipe.lr * recipe.final_lr ** min(1.0, done)
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    done = min(1.0, (step - recipe.warmup) / max(1, last - recipe.warmup))
    left = {
        "cosine": 0.5 * (1 + math.cos(math.pi * done)),
        "linear": 1 - done,
        "poly": (1 - done) ** 0.9,
        "constant": 1.0,
    }
    return recipe.lr * (recipe.final_lr + (1 - recipe.final_lr) * left[recipe.schedule])


def make_optimizer(recipe: Recipe, module: nn.Module) -> torch.optim.Optimizer:
    """Adam or AdamW over what learns of ``module``; heads and decoder, and the image encoder, in groups."""
    named = [(k, p) for k, p in module.named_parameters() if p.requires_grad]
    rates = {("heads.", "vae."): recipe.head_lr, (ENCODER,): recipe.encoder_lr}
    groups: list[dict[str, Any]] = [
        {
            "params": [p for k, p in named if rate and k.startswith(names)],
            "scale": rate / recipe.lr if recipe.lr else 0.0,
        }
        for names, rate in rates.items()
    ]
    chosen = {id(p) for group in groups for p in group["params"]}
    groups.insert(0, {"params": [p for _, p in named if id(p) not in chosen], "scale": 1.0})
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(
        [g for g in groups if g["params"]],
        lr=recipe.lr,
        betas=recipe.betas,
        eps=recipe.eps,
        weight_decay=recipe.weight_decay,
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set every group's learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def parameters(optimizer: torch.optim.Optimizer) -> Iterable[nn.Parameter]:
    """All that the optimizer changes."""
    return (p for group in optimizer.param_groups for p in group["params"])
