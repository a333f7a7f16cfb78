"""A second stage in miniature: warm-up, creation and self-improving, one after the other on the embedded model.

A recipe with images that a teacher labels (`Source.labels`) is the second stage of Diff-2-in-1 (Zheng et al. 2025). By
itself, on fresh heads, its teacher would be random and so would be what is learned. Here the laboratory trains the
heads first, creates images from the labelled ones, and only then improves.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any, Literal

from ..generate import GenerationConfig
from .distributed import DistributedContext
from .improve import Improvement, improve
from .recipe import Recipe
from .run import run_recipe
from .smoke import smoke_config

# Labelled images of the miniature, and denoising steps of a created one: creation is what costs.
LABELLED = 120
SAMPLER: Literal["dpmpp_2m"] = "dpmpp_2m"
STEPS = 10


def second_stage_smoke_config(recipe: Recipe, **options: Any) -> Recipe:
    """The miniature of a second stage, whose sources are the labelled ones alone: `stages` adds what is created.

    The teacher's decay is such that its start is forgotten as far as in ``recipe``: d' = d ** (moves / moves'), with
    as many moves of the average as ``steps * batch / ema_every``.

    Args:
        recipe: with at least one source that a teacher labels.
        options: of `smoke_config`.

    Raises:
        ValueError: no source has labels of its own; or what `smoke_config` raises.
    """
    real = tuple(s for s in recipe.data.sources if s.labels == "stored")
    if not real:
        raise ValueError(f"{recipe.name} has no labelled source: there is nothing to create from")
    small = smoke_config(recipe.replace(data={"sources": real}), **options)
    period = recipe.ema.update_every
    loops = (recipe.loop, small.loop)
    moves = [max(1, x.steps * x.batch_size // (period or x.batch_size)) for x in loops]
    sources = [
        s if s.limit or s.fraction != 1 else s.model_copy(update={"limit": LABELLED})
        for s in small.data.sources
    ]
    return small.replace(
        model={"reset": [part for part in small.reset if part != "heads"]},
        data={"sources": sources},
        ema={"decay": min(0.9999, recipe.ema.decay ** (moves[0] / moves[1]))},
    )


def stages(recipe: Recipe, small: Recipe, run: Path) -> tuple[Recipe, Improvement]:
    """The two runs of a miniature: the warm-up, and the plan that creates images and improves on them.

    Args:
        recipe: the second stage in full, which says how many examples are of created images.
        small: what `second_stage_smoke_config` made of it.
        run: folder of both; the warm-up is in ``warm-up``.
    """
    created = sum(s.share for s in recipe.data.sources if s.labels == "teacher")
    labelled = sum(s.share for s in recipe.data.sources if s.labels == "stored")
    warm = small.replace(
        name=f"{small.name}-warm-up",
        model={"reset": (*small.reset, "heads")},
        ema={"decay": 0.0, "update_every": 0},
    )
    settings = GenerationConfig(strength=0.6, steps=STEPS, sampler=SAMPLER, guidance=1.0, scoring="cheap")
    plan = Improvement.of(
        small.replace(model={"init_from": str(run / "warm-up" / "checkpoint"), "reset": ()}),
        generation=settings,
        share=created / labelled,
    )
    return warm, plan


def run_stages(
    recipe: Recipe, small: Recipe, run: Path, distributed: DistributedContext | None = None
) -> Generator[dict[str, Any]]:
    """Train the warm-up, create, improve; yields the records of each, with its ``stage``: ``warm-up`` or ``improve``.

    ``run/checkpoint`` is the teacher at the end. Killed at any moment, the same call goes on.
    """
    distributed = distributed or DistributedContext()
    warm, plan = stages(recipe, small, run)
    yield from ({"stage": "warm-up", **r} for r in run_recipe(warm, run / "warm-up", distributed))
    yield from ({"stage": "improve", **r} for r in improve(plan, run, distributed))
