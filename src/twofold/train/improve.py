"""Self-improving: a model generates labelled samples from few real ones and is trained on both (Zheng et al. 2025).

In each round the current model generates samples; then a student is trained on real labels, and on pseudo-labels of the
generated images from the EMA teacher. The teacher of a round generates the samples of the next one.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..checkpoints import Model, Network, instantiate_network, open_model, open_network
from ..data.classes import class_names
from ..data.folder import Folder
from ..generate import (
    CreationOptions,
    ScoreThreshold,
    SyntheticDataGenerator,
    create_samples,
)
from ..io import OutputFolder, atomic_folder, atomic_write
from ..tasks import get_task
from .best import lower_is_better, read_best
from .distributed import DistributedContext
from .examples import pools
from .improvement import Improvement
from .model_config import NetworkConfig
from .recipe import Recipe, error_text
from .run import lock_run_dir, run_recipe, save_student
from .source import Source
from .track import read_records
from .trainable import check_heads, make_tasks

PLAN_FILE = "improvement.json"


def improve(
    plan: Improvement, run: Path, distributed: DistributedContext | None = None
) -> Generator[dict[str, Any]]:
    """Run all rounds; yields the rows of generated samples and the records of training, each with its ``round``.

    ``run/round-N`` has the samples and the training run of a round, ``run/checkpoint`` the last teacher and
    ``run/student`` its student. With a ``best_metric``, the first round that does not improve it is the last, and the
    teacher before it is saved. The same call resumes a killed run and ends with the same files.

    Raises:
        ValueError: ``run`` belongs to another plan; and what `create_samples` and `run_recipe` raise.
        OSError: ``run`` was deleted or replaced.
    """
    distributed = distributed or DistributedContext()
    with lock_run_dir(run, distributed):
        yield from _rounds(plan, run, distributed)


def _rounds(plan: Improvement, run: Path, distributed: DistributedContext) -> Generator[dict[str, Any]]:
    if distributed.first:
        if not (
            run / PLAN_FILE
        ).exists():  # before the plan is written, so that a refused plan leaves no folder
            _check(plan, run, str(distributed.device))
        _write_plan(run, plan)
    start, last = plan.recipe.model.init_from, plan.recipe
    for number in range(1, plan.rounds + 1):
        folder = run / f"round-{number}"
        training = folder / "training"
        if distributed.first:
            device = str(distributed.device)
            output = OutputFolder(run)
            for row in _generate(plan, start, number, folder, device):
                yield {"round": number, **row}
                output.check()  # before anything creates the folder again; training checks it itself
        distributed.barrier()
        recipe = _round_recipe(plan, start, number, folder)
        yield from ({"round": number, **record} for record in run_recipe(recipe, training, distributed))
        no_better = bool(recipe.validation.best_metric) and read_best(training / "best.pt")[0] == 0
        if number == 1 or not no_better:
            start, last = str(training / "checkpoint"), recipe
        if no_better:
            break
    save_student(last, Path(start).parent, run / "student", distributed)
    if distributed.first and not (run / "checkpoint").exists():
        with atomic_folder(run / "checkpoint") as partial:
            shutil.copytree(start, partial)
    distributed.barrier()


def _check(plan: Improvement, run: Path, device: str) -> None:
    """Check a plan before anything is written.

    Raises:
        ValueError: ``run`` holds another kind of run, the initial model was not trained for the tasks or has other
            heads than the recipe trains, or ``best_metric`` is not a score.
    """
    if (run / "recipe.json").exists() or (run / "checkpoint").exists():
        raise ValueError(f"{run} holds a training run; choose another --out")
    if plan.recipe.validation.best_metric:
        lower_is_better(plan.recipe)
    model = _open_labeller(plan.recipe.model.init_from, plan.recipe, device)
    if isinstance(model, Model) and not plan.fresh_student:
        check_heads(plan.recipe, model.backbone, model.heads)


def gains(run: Path, score: str) -> list[tuple[float, float, int]]:
    """By round of a finished run: its best metric ``score`` before training and at the best step, and that step."""
    rounds = []
    for folder in sorted(run.glob("round-*"), key=lambda p: int(p.name.removeprefix("round-"))):
        validated = [r for _, r in read_records(folder / "training" / "metrics.jsonl") if "best" in r]
        best = validated[-1]["best"]
        rounds.append((validated[0]["validation"][score], best["score"], best["step"]))
    return rounds


def _generate(
    plan: Improvement, start: str, number: int, folder: Path, device: str
) -> Iterator[dict[str, Any]]:
    """Generate the missing samples of a round from every labelled source; opens the model only if needed."""
    settings = replace(plan.generation, seed=plan.generation.seed + number - 1)
    for index, source in enumerate(_labelled_folders(plan.recipe)):
        out = folder / f"created-{index}"
        if (out / "done").exists():
            continue
        generator = SyntheticDataGenerator.from_model(
            _open_labeller(start, plan.recipe, device),
            [get_task(t).name for t in plan.recipe.tasks],
            settings,
            plan.template,
            plan.captioner,
            class_names(source.header),
            image_model=open_model(plan.image_model, device) if plan.image_model else None,
        )
        thresholds = tuple(ScoreThreshold.parse(text) for text in plan.filters)
        yield from create_samples(
            generator, source, out, CreationOptions((settings.strength,), plan.per_image, thresholds)
        )
        with atomic_write(out / "done") as file:
            file.write_text("")


def _open_labeller(start: str, recipe: Recipe, device: str) -> Model | Network:
    """The model that a round starts from, which labels the generated images.

    Raises:
        ValueError: it was not trained for the recipe's tasks.
    """
    if isinstance(recipe.model, NetworkConfig):
        model = open_network(start, instantiate_network(recipe.model.factory, recipe.model.options), device)
    else:
        model = open_model(start, device)
    missing = [t for t in recipe.tasks if get_task(t).name not in model.tasks]
    if missing:
        raise ValueError(
            f"{start} was not trained for {missing[0]} (its tasks: {', '.join(model.tasks) or 'none'}); train it "
            "first, and start from that: --set model.init_from=runs/NAME/checkpoint"
        )
    return model


def _labelled_folders(recipe: Recipe) -> Iterator[Folder]:
    """For each source with ``labels="stored"``, a folder of the samples that have a usable label of a task."""
    tasks = make_tasks(recipe)
    folders = [Folder(source.path, override=source.override) for source in recipe.data.sources]
    usable = [
        source.indices(len(folder)) if source.share and source.labels == "stored" else []
        for source, folder in zip(recipe.data.sources, folders, strict=True)
    ]
    by_task = pools(recipe, tasks, folders, usable)
    for number, folder in enumerate(folders):
        labelled = sorted({i for name in tasks for i in by_task[name][number]})
        if labelled:
            yield folder.select([folder.ids[i] for i in labelled])


def _round_recipe(plan: Improvement, start: str, number: int, folder: Path) -> Recipe:
    """The recipe of a round: the plan's, from the last round's checkpoint, with the generated samples as sources.

    Raises:
        ValueError: there are no generated samples.
    """
    real = plan.recipe.data.sources
    folders = sorted(folder.glob("created-*"), key=lambda p: int(p.name.removeprefix("created-")))
    generated = [
        f for f in folders if (f / "metadata.jsonl").exists() and (f / "metadata.jsonl").stat().st_size
    ]
    if not generated:
        raise ValueError(
            f"{folder} has no generated samples to train on: no source has labels, or none of the images meets "
            f"{', '.join(plan.filters) or 'the filters'} (created-*/rejected.jsonl has the scores)"
        )
    share = plan.share * sum(s.share for s in real) / len(generated)
    sources = [Source(path=str(f), share=share, labels=plan.labels) for f in generated]
    return plan.recipe.replace(
        name=f"{plan.recipe.name}-round-{number}",
        model={"init_from": start},
        data={"sources": (*real, *sources)},
    )


def _write_plan(run: Path, plan: Improvement) -> None:
    """Write the plan into its run folder, or check that it is the one already there.

    Raises:
        ValueError: the folder has another plan, or a damaged one.
    """
    run.mkdir(parents=True, exist_ok=True)
    path = run / PLAN_FILE
    if not path.exists():
        with atomic_write(path) as file:
            file.write_text(plan.model_dump_json(indent=2) + "\n")
        return
    try:
        found = Improvement.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(
            f"{path} is damaged ({error_text(error)}); choose another --out, or delete that folder"
        ) from None
    if not found.recipe.equals(plan.recipe) or found.model_copy(update={"recipe": plan.recipe}) != plan:
        raise ValueError(
            f"{run} holds another plan (see {path}); choose another --out, or delete that folder"
        )
