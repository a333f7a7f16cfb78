"""Smoke test of a perception recipe: a reduced run on the embedded model and rendered scenes, in minutes on a CPU.

The settings that define a recipe stay: protocol, head, losses, trained and reinitialized parts, prompts, shares and
fractions of the data, compat switches, the shape of the learning rate schedule. Model, data and number of steps are
reduced. Scores of smoke tests are comparable with each other, not with published numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from ..data.folder import Folder
from ..tasks import Task, get_task, matting, semantic_logits
from .config import IMAGE
from .recipe import Recipe
from .source import Source

SIZE, STEPS, BATCH = (144, 192), 300, 16
# The embedded network has a sixtieth of Stable Diffusion's weights and needs ten times its learning rate.
LR_FACTOR = 10.0
# Its widest matrices have 192 rows, Stable Diffusion's 1280; a LoRA rank is scaled accordingly.
WIDEST, WIDEST_OF_SD = 192, 1280
MIN_WARMUP_STEPS = 10  # of recipes with a warm-up

# Rendered scenes have masks instead of mattes.
matte: Task = replace(matting, target_key="mask")
# They have no people: the parts are the classes of the scene.
parts: Task = replace(semantic_logits, name="parsing_logits")
# Tasks in place of those whose targets rendered scenes do not have.
SUBSTITUTE_TASKS = {
    "matting": "twofold.train.smoke:matte",
    "twofold.data.labels:hypersim": "semantic",
    "twofold.data.labels:hypersim_logits": "semantic_logits",
    "twofold.data.labels:ade20k_logits": "semantic_logits",
    "twofold.data.labels:nyud_mt_logits": "semantic_logits",
    "twofold.data.labels:pascal_mt_logits": "semantic_logits",
    "parsing_logits": "twofold.train.smoke:parts",
}
# Data folders and the commands that render them.
RENDER_COMMANDS = {
    "rooms": "twofold render --count 1200 --seed 1 --spp 4 --out {}",
    "rooms-2": "twofold render --count 4000 --seed 2 --spp 4 --out {}",
    "rooms-val": "twofold render --count 300 --seed 9001 --out {}",
    "rooms-dev": "twofold render --count 64 --seed 9002 --out {}",
}
T = TypeVar("T")


def smoke_config(
    recipe: Recipe, data: str | Sequence[str] = "data/rooms", test: str = "data/rooms-dev", steps: int = STEPS
) -> Recipe:
    """The reduced version of ``recipe``. Reads and writes no files.

    Args:
        recipe: of kind ``denoiser``, with at least one perception task.
        data: folder of rendered scenes in place of the recipe's sources; several replace the sources in turn. Sources
            that become equal are merged and their shares added.
        test: folder that is scored at the end.
        steps: updates; warm-up and decay are scaled accordingly.

    Raises:
        ValueError: the recipe trains no perception task of a denoiser, or is a second stage, for which
            `smoke_stages.second_stage_smoke_config` is.
    """
    _check_suitable(recipe)
    model, optimizer, share = recipe.denoiser, recipe.optimizer, steps / recipe.loop.steps
    head = {k: v for k, v in model.head.options.items() if k not in ("width", "fine", "channels")}
    warmup = (
        min(steps, max(MIN_WARMUP_STEPS, round(optimizer.warmup_steps * share)))
        if optimizer.warmup_steps
        else 0
    )
    return recipe.replace(
        name=f"smoke-{recipe.name}",
        model={
            "init_from": "embedded",
            "reset": tuple(dict.fromkeys((*recipe.reset, "heads"))),
            "prompts": _substitute_tasks(model.prompts),
            "head": {"options": head, "lr": model.head.lr * LR_FACTOR},
            "lora": {
                "rank": _scale_rank(model.lora.rank),
                "alpha": _scale_rank(model.lora.alpha) if model.lora.alpha else 0,
            },
            "gradient_checkpointing": False,
        },
        data={
            "sources": _rendered(recipe.data.sources, [data] if isinstance(data, str) else data),
            "task_weights": _substitute_tasks(recipe.data.task_weights),
            "block_size": max(1, recipe.data.block_size * BATCH // recipe.loop.batch_size),
            "size": SIZE,
            "cache_latents": True,
        },
        loss=_substitute_tasks(recipe.loss),
        optimizer={
            "lr": optimizer.lr * LR_FACTOR,
            "warmup_steps": warmup,
            "decay_steps": round(optimizer.decay_steps * share),
        },
        loop={
            "steps": steps,
            "batch_size": BATCH,
            "micro_batch_size": 0,
            "precision": "fp32",
            "save_every": 100,
        },
        validation={"data": test, "every": 0, "num_samples": 64},
    )


def _check_suitable(recipe: Recipe) -> None:
    """ValueError for a recipe without a reduced version."""
    if recipe.data.has_teacher_labels:
        raise ValueError(
            f"{recipe.name} trains on an EMA teacher's pseudo-labels, and heads start from random weights here: the "
            "teacher would be random. Run its warm-up, generation and second stage with twofold train --smoke-test "
            "(twofold.train.smoke_stages)"
        )
    if recipe.model.kind != "denoiser" or not recipe.tasks:
        raise ValueError(
            f"{recipe.name} does not train a diffusion model on a perception task: there is no smoke test of it"
        )


def check_data(recipe: Recipe) -> None:
    """Check that the folders of a reduced recipe exist and have the targets of its tasks.

    Raises:
        ValueError: a folder is missing (the message has the command that renders it), or none has a task's target.
    """
    paths = [s.path for s in recipe.data.sources if s.share]
    paths += [recipe.validation.data] if recipe.validation.data else []
    for path in paths:
        if not Path(path).is_dir():
            default = "twofold render --count 300 --seed 1 --out {}"
            command = RENDER_COMMANDS.get(Path(path).name, default).format(path)
            raise ValueError(
                f"the smoke test needs rendered scenes in {path}, which does not exist; run: {command} (fewer scenes "
                "work too: a --count of 100 takes minutes; rendering needs pip install 'twofold[render]')"
            )
    existing: set[str] = set()
    for source in recipe.data.sources:
        if source.share:
            existing.update(name for row in Folder(source.path).rows for name in row.get("targets") or {})
    for name, frequency in recipe.data.task_weights.items():
        target = "" if name == IMAGE else get_task(name).target
        if frequency and target and target not in existing:
            raise ValueError(
                f"{recipe.name} needs the target {target}, and {', '.join(s.path for s in recipe.data.sources)} has "
                f"only {', '.join(sorted(existing)) or 'images'}; pass a folder that has it: "
                """--set 'data.sources=[{"path": "DIR"}]'"""
            )


def _rendered(sources: Sequence[Source], paths: Sequence[str]) -> tuple[Source, ...]:
    """Sources of the same shares, each from the next of ``paths`` in turn; equal ones become one."""
    shares: dict[Source, float] = {}
    for i, source in enumerate(s for s in sources if s.share):
        rendered = source.model_copy(
            update={
                "path": paths[i % len(paths)],
                "share": 1.0,
                "size": None,
                "crop": "",
                "depth_range": None,
            }
        )
        shares[rendered] = shares.get(rendered, 0.0) + source.share
    return tuple(s.model_copy(update={"share": round(share, 9)}) for s, share in shares.items())


def _substitute_tasks(by_task: Mapping[str, T]) -> dict[str, Any]:
    return {SUBSTITUTE_TASKS.get(name, name): value for name, value in by_task.items()}


def _scale_rank(rank: int) -> int:
    return max(1, round(rank * WIDEST / WIDEST_OF_SD))
