"""Optimizer and learning rate schedule of a run."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from .model_config import DenoiserConfig
from .recipe import Recipe

# OneCycleLR's defaults in torch.
ONE_CYCLE_PEAK, ONE_CYCLE_DIV, ONE_CYCLE_MOMENTUM = 0.3, 25.0, (0.95, 0.85, 0.95)
ENCODER = "image_adapter.encoder."  # names of the image encoder's parameters begin with it


def learning_rate(recipe: Recipe, step: int) -> float:
    """The learning rate of step ``step``, counted from 0. All schedules warm up linearly for ``warmup_steps``.

    Then, over ``decay_steps`` from the first one (0: all steps of the run), to ``final_lr_ratio * lr``:

    - ``cosine`` and ``linear``: along that curve; ``poly``: with the remaining fraction to the power of 0.9 (DeepLab,
      Chen et al. 2018, and multi-task benchmarks);
    - ``exponential``: GenPercept's ``IterExponential``, whose first step has a rate of 0;
    - ``constant``: no decay;
    - ``onecycle``: Smith & Topin (2019) with the defaults of `torch.optim.lr_scheduler.OneCycleLR`, along half cosines:
      from 1 / 25 of ``lr`` up to ``lr`` at 30 % of the steps, then down to ``final_lr_ratio * lr`` at the last (torch's
      ``final_div_factor`` of 1e4 is a ``final_lr_ratio`` of 4e-6). `momentum` changes in the opposite direction.
    """
    config = recipe.optimizer
    last, warmup = config.decay_steps or recipe.loop.steps, config.warmup_steps
    if config.schedule == "onecycle":
        return config.lr * _one_cycle(step, last, 1 / ONE_CYCLE_DIV, 1.0, config.final_lr_ratio)
    if config.schedule == "exponential":
        if step < warmup:
            return config.lr * step / warmup
        done = (step - warmup) / max(1, last - warmup)
        return config.lr * config.final_lr_ratio ** min(1.0, done)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, last - warmup))
    left = {
        "cosine": 0.5 * (1 + math.cos(math.pi * done)),
        "linear": 1 - done,
        "poly": (1 - done) ** 0.9,
        "constant": 1.0,
    }
    return config.lr * (config.final_lr_ratio + (1 - config.final_lr_ratio) * left[config.schedule])


def momentum(recipe: Recipe, step: int) -> float | None:
    """The first beta of step ``step`` with ``onecycle``: from 0.95 to 0.85 and back; None for other schedules."""
    if recipe.optimizer.schedule != "onecycle":
        return None
    return _one_cycle(step, recipe.optimizer.decay_steps or recipe.loop.steps, *ONE_CYCLE_MOMENTUM)


def _one_cycle(step: int, steps: int, first: float, middle: float, last: float) -> float:
    """Along half cosines from ``first`` to ``middle`` at `ONE_CYCLE_PEAK` of the steps and to ``last`` at the end."""
    peak, end = ONE_CYCLE_PEAK * steps - 1, steps - 1
    if step <= peak:
        begin, goal, done = first, middle, step / peak
    else:
        begin, goal, done = middle, last, min(1.0, (step - peak) / max(1e-9, end - peak))
    return goal + (begin - goal) / 2 * (1 + math.cos(math.pi * done))


def make_optimizer(recipe: Recipe, module: nn.Module) -> torch.optim.Optimizer:
    """Adam or AdamW over the trainable parameters of ``module``, in groups by learning rate.

    Heads with decoder, and the image encoder, may have a learning rate of their own.
    """
    named = [(k, p) for k, p in module.named_parameters() if p.requires_grad]
    config, groups = recipe.optimizer, []
    for prefixes, rate in _rates_by_prefix(recipe).items():
        matching = [p for k, p in named if rate and k.startswith(prefixes)]
        groups.append({"params": matching, "scale": rate / config.lr if config.lr else 0.0})
    grouped = {id(p) for group in groups for p in group["params"]}
    groups.insert(0, {"params": [p for _, p in named if id(p) not in grouped], "scale": 1.0})
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(
        [g for g in groups if g["params"]],
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
    )


def _rates_by_prefix(recipe: Recipe) -> dict[tuple[str, ...], float]:
    """Learning rates of parts by prefixes of their parameters' names; 0 stands for ``optimizer.lr``."""
    if not isinstance(recipe.model, DenoiserConfig):
        return {}
    return {("heads.", "vae."): recipe.model.head.lr, (ENCODER,): recipe.model.image_encoder.lr}


def set_rate(optimizer: torch.optim.Optimizer, rate: float, beta: float | None = None) -> None:
    """Set every group's learning rate, and its first beta unless ``beta`` is None."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
        if beta is not None:
            group["betas"] = (beta, group["betas"][1])


def parameters(optimizer: torch.optim.Optimizer) -> Iterable[nn.Parameter]:
    """All parameters of the optimizer."""
    return (p for group in optimizer.param_groups for p in group["params"])
