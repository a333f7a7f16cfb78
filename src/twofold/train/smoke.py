"""Any perception recipe in miniature: the same idea on the embedded model and rendered scenes, in minutes on a CPU.

What a recipe is about is kept: protocol, head, losses, what learns, what is random again, words, shares and fractions
of the data, compat switches, the shape of the learning rate. What costs is made small. Numbers of such runs are
comparable with each other, and not with a paper's.
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
# The embedded network is a sixtieth of Stable Diffusion's and learns at ten times its rate.
RATE = 10.0
# Its widest matrices have 192 rows, Stable Diffusion's 1280: the rank is the same share of both.
WIDEST, WIDEST_OF_SD = 192, 1280
WARMUP = 10  # steps at least, where a recipe warms up at all

# Rendered scenes have masks and no mattes: here a matte is as hard as a mask.
matte: Task = replace(matting, target_key="mask")
# Nor people: here the parts are the classes of the scene once more.
parts: Task = replace(semantic_logits, name="parsing_logits")
# Rendered scenes have classes of their own.
STAND_INS = {
    "matting": "twofold.train.smoke:matte",
    "twofold.data.labels:hypersim": "semantic",
    "twofold.data.labels:hypersim_logits": "semantic_logits",
    "twofold.data.labels:ade20k_logits": "semantic_logits",
    "twofold.data.labels:nyud_mt_logits": "semantic_logits",
    "twofold.data.labels:pascal_mt_logits": "semantic_logits",
    "parsing_logits": "twofold.train.smoke:parts",
}
# The folders of the examples, and how they are made.
RENDERS = {
    "rooms": "twofold render --count 1200 --seed 1 --spp 4 --out {}",
    "rooms-2": "twofold render --count 4000 --seed 2 --spp 4 --out {}",
    "rooms-val": "twofold render --count 300 --seed 9001 --out {}",
    "rooms-dev": "twofold render --count 64 --seed 9002 --out {}",
}
T = TypeVar("T")


def smoke_config(
    recipe: Recipe, data: str | Sequence[str] = "data/rooms", test: str = "data/rooms-dev", steps: int = STEPS
) -> Recipe:
    """``recipe`` in miniature. Nothing is read or written.

    Args:
        recipe: for the denoiser, of at least one task.
        data: folder of rendered scenes in place of the recipe's sources; several replace them in turn. Sources that
            become the same one are one, with their shares added.
        test: folder that is scored at the end.
        steps: updates; warm-up and decay keep their share of them.

    Raises:
        ValueError: the recipe trains no perception, or is a second stage, which `lab_stages` runs.
    """
    _check_suitable(recipe)
    model, optimizer, share = recipe.denoiser, recipe.optimizer, steps / recipe.loop.steps
    head = {k: v for k, v in model.head.options.items() if k not in ("width", "fine", "channels")}
    warmup = min(steps, max(WARMUP, round(optimizer.warmup_steps * share))) if optimizer.warmup_steps else 0
    return recipe.replace(
        name=f"lab-{recipe.name}",
        model={
            "init_from": "embedded",
            "reset": tuple(dict.fromkeys((*recipe.reset, "heads"))),
            "prompts": _renamed(model.prompts),
            "head": {"options": head, "lr": model.head.lr * RATE},
            "lora": {
                "rank": _ranked(model.lora.rank),
                "alpha": _ranked(model.lora.alpha) if model.lora.alpha else 0,
            },
            "gradient_checkpointing": False,
        },
        data={
            "sources": _rendered(recipe.data.sources, [data] if isinstance(data, str) else data),
            "task_weights": _renamed(recipe.data.task_weights),
            "block_size": max(1, recipe.data.block_size * BATCH // recipe.loop.batch_size),
            "size": SIZE,
            "cache_latents": True,
        },
        loss=_renamed(recipe.loss),
        optimizer={
            "lr": optimizer.lr * RATE,
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
    """ValueError for a recipe of which there is no such miniature."""
    if taught_by_teacher(recipe):
        raise ValueError(
            f"{recipe.name} learns from images that its teacher labels, and the laboratory's heads are fresh: the "
            "teacher would be random. Run its warm-up, creation and second stage with twofold train --smoke-test "
            "(twofold.train.smoke_stages)"
        )
    if recipe.model.kind != "denoiser" or not recipe.tasks:
        raise ValueError(
            f"{recipe.name} teaches a diffusion model no perception task: there is nothing to try in the laboratory"
        )


def taught_by_teacher(recipe: Recipe) -> bool:
    """Whether a source of a recipe is labelled by its teacher: a second stage."""
    return recipe.data.has_teacher_labels


def require(recipe: Recipe) -> None:
    """Look whether the folders of a laboratory recipe are there and have what it teaches.

    Raises:
        ValueError: a folder is missing, or none has a task's target; the message says how it is made.
    """
    wanted = [s.path for s in recipe.data.sources if s.share]
    wanted += [recipe.validation.data] if recipe.validation.data else []
    for path in wanted:
        if not Path(path).is_dir():
            how = RENDERS.get(Path(path).name, "twofold render --count 300 --seed 1 --out {}").format(path)
            raise ValueError(
                f"the laboratory needs rendered scenes in {path}, which is not there; run: {how} (fewer scenes do "
                "as well: a --count of 100 takes minutes; rendering needs pip install 'twofold[render]')"
            )
    there: set[str] = set()
    for source in recipe.data.sources:
        if source.share:
            there.update(name for row in Folder(source.path).rows for name in row.get("targets") or {})
    for name, frequency in recipe.data.task_weights.items():
        target = "" if name == IMAGE else get_task(name).target
        if frequency and target and target not in there:
            raise ValueError(
                f"{recipe.name} teaches {target}, and {', '.join(s.path for s in recipe.data.sources)} has only "
                f"{', '.join(sorted(there)) or 'pictures'}; give a folder that has it: "
                """--set 'data.sources=[{"path": "DIR"}]'"""
            )


def _rendered(sources: Sequence[Source], paths: Sequence[str]) -> tuple[Source, ...]:
    """Sources of the same shares, each from the next of ``paths`` in turn; equal ones become one."""
    shares: dict[Source, float] = {}
    for i, source in enumerate(s for s in sources if s.share):
        kept = source.model_copy(
            update={
                "path": paths[i % len(paths)],
                "share": 1.0,
                "size": None,
                "crop": "",
                "depth_range": None,
            }
        )
        shares[kept] = shares.get(kept, 0.0) + source.share
    return tuple(s.model_copy(update={"share": round(share, 9)}) for s, share in shares.items())


def _renamed(by_task: Mapping[str, T]) -> dict[str, Any]:
    return {STAND_INS.get(name, name): value for name, value in by_task.items()}


def _ranked(rank: int) -> int:
    return max(1, round(rank * WIDEST / WIDEST_OF_SD))
