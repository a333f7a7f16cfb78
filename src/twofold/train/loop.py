"""The training loop: a generator of records. Killed at any moment, the same command ends in the same weights."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..backbones.stable_diffusion import StableDiffusion
from ..image import atomic_write, write_image
from .pixels import every
from .recipe import Recipe
from .state import Ema, load_state, save_state

Record = dict[str, Any]


class Stage(Protocol):
    """What the loop needs to know of what it trains."""

    module: nn.Module

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of step ``step`` and what to log of it; random only through the recipe's seed and ``step``."""
        ...

    def validate(self) -> dict[str, float]:
        """Scores on held-out data with the weights as they stand."""
        ...

    def preview(self) -> Tensor | None:
        """A picture ``3 h w`` of the same, for a person; None where there is nothing to see."""
        ...

    def finish(self) -> None:
        """Whatever is measured once, after the last step."""
        ...


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then a cosine from ``lr`` to ``final_lr * lr``; ``step`` counts from 0."""
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.lr * (
        recipe.final_lr + (1 - recipe.final_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    )


def make_stage(
    backbone: StableDiffusion, recipe: Recipe, run: Path, heads: Mapping[str, nn.Module] | None = None
) -> Stage:
    """The stage a recipe names; latents are kept beside the run's folder, so that its neighbours share them."""
    if recipe.stage == "autoencoder":
        from .autoencoder import AutoencoderStage

        return AutoencoderStage(backbone, recipe)
    from .denoiser import DenoiserStage

    return DenoiserStage(backbone, recipe, run.parent / "latents", heads)


def train(
    backbone: StableDiffusion, recipe: Recipe, run: Path, heads: dict[str, nn.Module] | None = None
) -> Generator[Record, None, None]:
    """Train ``backbone`` in place, yielding one record a step; resumes from ``run`` where a state is there.

    ``heads`` are those of the model it starts from, by task; those that were trained are put into it.

    When the generator is exhausted the backbone holds the averaged (EMA) weights.

    Raises:
        ValueError: ``run`` belongs to another recipe.
        FloatingPointError: the loss is not finite; the last saved state is kept.
    """
    stage = make_stage(backbone, recipe, run, heads)
    ema = Ema(stage.module, recipe.ema)
    parameters = [p for p in stage.module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, betas=(0.9, 0.99)
    )
    run.mkdir(parents=True, exist_ok=True)
    _claim(run, recipe)
    state = run / "state.pt"
    start = load_state(state, stage.module, ema, optimizer) if state.exists() else 0
    stage.module.train()
    for step in range(start, recipe.steps):
        began = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        loss, logs = stage.loss(step)
        if not bool(torch.isfinite(loss)):
            raise FloatingPointError(
                f"the loss of step {step} is {loss.item()}; {state} holds the last good state"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, recipe.clip)
        optimizer.step()
        ema.update()
        done = step + 1
        record: Record = {"step": done, "loss": loss.item(), "norm": norm.item(), **logs}
        if every(done, recipe.validate_every, recipe.steps):
            record["validation"] = validate(stage, ema, run / "pictures" / f"step-{done:06d}.png")
        if every(done, recipe.save_every, recipe.steps):
            save_state(state, done, stage.module, ema, optimizer)
        record["seconds"] = time.perf_counter() - began
        yield record
    ema.swap()
    stage.module.eval()
    stage.finish()
    if heads is not None:
        heads.update(getattr(stage, "heads", {}))


def validate(stage: Stage, ema: Ema, picture: Path) -> dict[str, float]:
    """Scores of the averaged weights, and a ``picture`` of what they answer."""
    ema.swap()
    stage.module.eval()
    scores = stage.validate()
    seen = stage.preview()
    stage.module.train()
    ema.swap()
    if seen is not None:
        picture.parent.mkdir(exist_ok=True)
        write_image(picture, seen)
    return scores


def _claim(run: Path, recipe: Recipe) -> None:
    """Write the recipe into its run folder, or check that it is the one already there."""
    path = run / "recipe.json"
    if path.exists():
        if Recipe.read(path) != recipe:
            raise ValueError(
                f"{run} holds another recipe (see {path}); choose another --out, or delete that folder"
            )
        return
    with atomic_write(path) as file:
        recipe.save(file)


def append_record(path: Path, record: Record) -> None:
    """Add one line to ``metrics.jsonl``."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
