"""Smoke test of a second stage: warm-up, generation and self-improving, in this order, on the embedded model.

A recipe with pseudo-labels of an EMA teacher (`Source.labels`) is the second stage of Diff-2-in-1 (Zheng et al. 2025).
Its teacher's heads must be trained already, so a warm-up trains them first and images are generated from the labelled
ones.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any, Literal

from ..generate import GenerationConfig
from .distributed import DistributedContext
from .improve import improve
from .improvement import Improvement
from .recipe import Recipe
from .run import run_recipe
from .smoke import smoke_config

# Number of labelled images, and denoising steps of a generated one: generation takes most of the time.
LABELLED = 120
SAMPLER: Literal["dpmpp_2m"] = "dpmpp_2m"
STEPS = 10


def second_stage_smoke_config(recipe: Recipe, **options: Any) -> Recipe:
    """The reduced version of a second stage, with the labelled sources only; `stages` adds the generated images.

    The teacher's decay gives its initial weights the same final influence as in ``recipe``: d' = d ** (n / n'), where
    n = ``steps * batch_size / update_every`` is the number of updates of the average.

    Args:
        recipe: with at least one source of ``labels="teacher"``.
        options: of `smoke_config`.

    Raises:
        ValueError: no source has ``labels="stored"``; or what `smoke_config` raises.
    """
    real = tuple(s for s in recipe.data.sources if s.labels == "stored")
    if not real:
        raise ValueError(f"{recipe.name} has no source with stored labels to generate images from")
    small = smoke_config(recipe.replace(data={"sources": real}), **options)
    period = recipe.ema.update_every
    loops = (recipe.loop, small.loop)
    updates = [max(1, x.steps * x.batch_size // (period or x.batch_size)) for x in loops]
    sources = [
        s if s.limit or s.fraction != 1 else s.model_copy(update={"limit": LABELLED})
        for s in small.data.sources
    ]
    return small.replace(
        model={"reset": [part for part in small.reset if part != "heads"]},
        data={"sources": sources},
        ema={"decay": min(0.9999, recipe.ema.decay ** (updates[0] / updates[1]))},
    )


def stages(recipe: Recipe, small: Recipe, run: Path) -> tuple[Recipe, Improvement]:
    """The two runs of a smoke test: the warm-up, and the plan that generates images and trains on both.

    Args:
        recipe: the full second stage, whose shares of labelled and generated images are used.
        small: the reduced version, from `second_stage_smoke_config`.
        run: folder of both; the warm-up is in ``warm-up``.
    """
    generated = sum(s.share for s in recipe.data.sources if s.labels == "teacher")
    labelled = sum(s.share for s in recipe.data.sources if s.labels == "stored")
    warm_up = small.replace(
        name=f"{small.name}-warm-up",
        model={"reset": (*small.reset, "heads")},
        ema={"decay": 0.0, "update_every": 0},
    )
    settings = GenerationConfig(strength=0.6, steps=STEPS, sampler=SAMPLER, guidance=1.0, scoring="cheap")
    plan = Improvement.of(
        small.replace(model={"init_from": str(run / "warm-up" / "checkpoint"), "reset": ()}),
        generation=settings,
        share=generated / labelled,
    )
    return warm_up, plan


def run_stages(
    recipe: Recipe, small: Recipe, run: Path, distributed: DistributedContext | None = None
) -> Generator[dict[str, Any]]:
    """Train the warm-up, generate, improve; yields the records with their ``stage``: ``warm-up`` or ``improve``.

    ``run/checkpoint`` is the last teacher. The same call resumes a killed run.
    """
    distributed = distributed or DistributedContext()
    warm_up, plan = stages(recipe, small, run)
    yield from ({"stage": "warm-up", **r} for r in run_recipe(warm_up, run / "warm-up", distributed))
    yield from ({"stage": "improve", **r} for r in improve(plan, run, distributed))
