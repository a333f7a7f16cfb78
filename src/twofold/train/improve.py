"""Self-improving: a model makes labelled samples from the few it has, and learns from both (Zheng et al. 2025).

In each round the model as it is creates samples; then its student learns from real labels, and from what the teacher,
an average of students, says of created pictures at that moment. The teacher of one round creates for the next.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..checkpoints import Model, Network, instantiate_network, open_model, open_network
from ..data.classes import class_names
from ..data.folder import Folder
from ..generate import (
    CreationOptions,
    GenerationConfig,
    ScoreThreshold,
    SyntheticDataGenerator,
    create_samples,
)
from ..generate.captions import TEMPLATE
from ..io import atomic_folder, atomic_write
from ..tasks import get_task
from .best import lower_is_better, read_best
from .config import EmaConfig
from .distributed import DistributedContext
from .examples import pools
from .model_config import NetworkConfig
from .recipe import Recipe, wrong
from .run import lock_run_dir, run_recipe, save_student
from .source import Source
from .track import read_records
from .trainable import check_heads, make_tasks

# Of Diff-2-in-1's teacher: for one task; 0.999 for PASCAL-Context's several.
DECAY, EVERY = 0.998, 40
PLAN = "improvement.json"


class Improvement(BaseModel):
    """Everything self-improving depends on.

    Attributes:
        recipe: of the training of a round: it starts from the warmed-up model, its sources have real labels, and its
            averaged weights are the teacher.
        generation: how samples are generated; each round has another seed.
        per_image: created samples of each real one.
        share: examples from created samples, relative to all the real ones.
        labels: who labels created pictures in training: the ``teacher`` as it is at that step, or what was ``stored``
            when they were created.
        filters: thresholds on the scores of created samples, such as ``drift.normals<20`` (`generate.ScoreThreshold`).
        rounds: how often the pictures are made anew.
        fresh_student: whether the recipe's ``reset`` is meant: each round trains a new student on labels that the last
            one stored. Otherwise a recipe with ``reset`` is refused, which would throw the warm-up away.
        captioner, template: captions of sources without one, see `generate.get_caption`.
        image_model: the model that generates images, as `open_model` knows it; the recipe's own when empty, which a
            network of one's own cannot be.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    recipe: Recipe
    generation: GenerationConfig = GenerationConfig()
    per_image: int = Field(1, ge=1)
    share: float = Field(1.0, ge=0)
    labels: Literal["teacher", "stored"] = "teacher"
    filters: tuple[str, ...] = ()
    rounds: int = Field(1, ge=1)
    fresh_student: bool = False
    captioner: str = ""
    template: str = TEMPLATE
    image_model: str = ""

    @model_validator(mode="after")
    def _possible(self) -> Improvement:
        for threshold in self.filters:
            ScoreThreshold.parse(threshold)
        if not self.recipe.tasks or self.recipe.model.init_from == "new":
            raise ValueError(
                "self-improving starts from a model that knows the recipe's tasks, not from 'new'"
            )
        if self.recipe.model.kind == "network" and not self.image_model:
            raise ValueError(
                "a network of one's own draws no pictures; say which model does, such as image_model='embedded' "
                "(--generator embedded)"
            )
        if self.image_model and self.generation.label_mode == "denoise":
            raise ValueError(
                "label_mode 'denoise' reads the features of what draws, and here another network labels; use 'reencode'"
            )
        if self.labels == "teacher" and not self.recipe.ema.decay:
            raise ValueError("the teacher is the average of students: ema.decay must be above 0")
        self._check_reset()
        return self

    def _check_reset(self) -> None:
        reset = ", ".join(self.recipe.reset)
        if reset and not self.fresh_student:
            raise ValueError(
                f"the recipe resets {reset}, so training would discard the weights of {self.recipe.model.init_from}; "
                "leave that out (--set 'model.reset=[]'), or train a new student on stored labels "
                "(fresh_student=True; --fresh-student --labels stored)"
            )
        if self.fresh_student and not reset:
            raise ValueError(
                "fresh_student is about a recipe that resets parts, and this one resets none; leave it out, or say "
                "which parts begin anew (--set 'model.reset=[\"heads\"]')"
            )
        if self.fresh_student and self.labels == "teacher":
            raise ValueError(
                "a fresh student has no trained teacher: its labels have to be stored (--labels stored)"
            )

    @classmethod
    def of(cls, recipe: Recipe, **settings: Any) -> Improvement:
        """A recipe's improvement, with the published EMA teacher where the recipe configures none.

        A warm-up has no teacher, so its recipe may keep no average at all (``ema=0``, as Diff-2-in-1's does). Labels
        of a teacher need one: then an ``ema`` of 0, or the default one without ``ema_every``, becomes the published
        decay and period.

        Raises:
            ValueError: it cannot improve; one line.
        """
        teacher = settings.get("labels", cls.model_fields["labels"].default) == "teacher"
        if teacher and not recipe.ema.decay:
            recipe = recipe.replace(ema={"decay": DECAY})
        if not recipe.ema.update_every and recipe.ema.decay:
            default = recipe.ema.decay == EmaConfig().decay
            decay = DECAY if default else recipe.ema.decay
            recipe = recipe.replace(ema={"decay": decay, "update_every": EVERY})
        try:
            plan = cls(recipe=recipe, **settings)
        except ValidationError as error:
            raise ValueError(wrong(error)) from None
        # Not in the validation, which also reads a plan that is there: a task of one's own is code.
        tasks = [get_task(t).name for t in recipe.tasks]
        for threshold in plan.filters:
            named = ScoreThreshold.parse(threshold).task
            if named and named not in tasks:
                raise ValueError(f"{threshold!r} is about {named}; this recipe teaches {', '.join(tasks)}")
        return plan


def improve(
    plan: Improvement, run: Path, distributed: DistributedContext | None = None
) -> Generator[dict[str, Any]]:
    """Go through the rounds, and yield what happens: rows of creation and records of training, each with its round.

    ``run/round-N`` holds what a round created and trained, ``run/checkpoint`` the last teacher and ``run/student`` its
    student. Where the recipe says which score is ``best``, the first round that does not better it is the last, and the
    teacher before it is kept. Killed at any moment, the same call goes on and ends in the same files.

    Raises:
        ValueError: ``run`` belongs to another plan; what `create` and `run_recipe` raise.
    """
    distributed = distributed or DistributedContext()
    with lock_run_dir(run, distributed):
        yield from _rounds(plan, run, distributed)


def _rounds(plan: Improvement, run: Path, distributed: DistributedContext) -> Generator[dict[str, Any]]:
    if distributed.first:
        if not (run / PLAN).exists():  # or a mistake would claim the folder
            _check(plan, run, str(distributed.device))
        _claim(run, plan)
    start, last = plan.recipe.model.init_from, plan.recipe
    for number in range(1, plan.rounds + 1):
        place = run / f"round-{number}"
        if distributed.first:
            device = str(distributed.device)
            yield from ({"round": number, **row} for row in _created(plan, start, number, place, device))
        distributed.barrier()
        recipe = _training(plan, start, number, place)
        yield from (
            {"round": number, **record} for record in run_recipe(recipe, place / "training", distributed)
        )
        none_better = (
            bool(recipe.validation.best_metric) and read_best(place / "training" / "best.pt")[0] == 0
        )
        if number == 1 or not none_better:
            start, last = str(place / "training" / "checkpoint"), recipe
        if none_better:
            break
    save_student(last, Path(start).parent, run / "student", distributed)
    if distributed.first and not (run / "checkpoint").exists():
        with atomic_folder(run / "checkpoint") as partial:
            shutil.copytree(start, partial)
    distributed.barrier()


def _check(plan: Improvement, run: Path, device: str) -> None:
    """What can be known to be wrong before anything is written.

    Raises:
        ValueError: ``run`` is that of something else, the start does not know the tasks or has other heads than the
            recipe trains, or ``best`` is no score.
    """
    if (run / "recipe.json").exists() or (run / "checkpoint").exists():
        raise ValueError(f"{run} holds a training run; choose another --out")
    if plan.recipe.validation.best_metric:
        lower_is_better(plan.recipe)
    model = _able(plan.recipe.model.init_from, plan.recipe, device)
    if isinstance(model, Model) and not plan.fresh_student:
        check_heads(plan.recipe, model.backbone, model.heads)


def gains(run: Path, score: str) -> list[tuple[float, float, int]]:
    """By round of a finished run whose recipe calls ``score`` the best: before, at its best, and the step of that."""
    rounds = []
    for place in sorted(run.glob("round-*"), key=lambda p: int(p.name.removeprefix("round-"))):
        validated = [r for _, r in read_records(place / "training" / "metrics.jsonl") if "best" in r]
        best = validated[-1]["best"]
        rounds.append((validated[0]["validation"][score], best["score"], best["step"]))
    return rounds


def _created(
    plan: Improvement, start: str, number: int, place: Path, device: str
) -> Iterator[dict[str, Any]]:
    """Create what is not there yet from every source with labels; the model is opened only where there is work."""
    settings = replace(plan.generation, seed=plan.generation.seed + number - 1)
    for index, folder in enumerate(_real(plan.recipe)):
        out = place / f"created-{index}"
        if (out / "done").exists():
            continue
        generator = SyntheticDataGenerator.from_model(
            _able(start, plan.recipe, device),
            [get_task(t).name for t in plan.recipe.tasks],
            settings,
            plan.template,
            plan.captioner,
            class_names(folder.header),
            image_model=open_model(plan.image_model, device) if plan.image_model else None,
        )
        thresholds = tuple(ScoreThreshold.parse(text) for text in plan.filters)
        yield from create_samples(
            generator, folder, out, CreationOptions((settings.strength,), plan.per_image, thresholds)
        )
        with atomic_write(out / "done") as file:
            file.write_text("")


def _able(start: str, recipe: Recipe, device: str) -> Model | Network:
    """The model that a round starts from.

    Raises:
        ValueError: it has not learned the recipe's tasks yet.
    """
    if isinstance(recipe.model, NetworkConfig):
        model = open_network(start, instantiate_network(recipe.model.factory, recipe.model.options), device)
    else:
        model = open_model(start, device)
    missing = [t for t in recipe.tasks if get_task(t).name not in model.tasks]
    if missing:
        raise ValueError(
            f"{start} does not know {missing[0]} yet (it knows {', '.join(model.tasks) or 'no task'}); train it first, "
            "and start from that: --set model.init_from=runs/NAME/checkpoint"
        )
    return model


def _real(recipe: Recipe) -> Iterator[Folder]:
    """Of each source, the samples whose labels the recipe may use; of those that have none, nothing is drawn."""
    tasks = make_tasks(recipe)
    folders = [Folder(source.path, override=source.override) for source in recipe.data.sources]
    usable = [
        source.indices(len(folder)) if source.share and source.labels == "stored" else []
        for source, folder in zip(recipe.data.sources, folders, strict=True)
    ]
    able = pools(recipe, tasks, folders, usable)
    for number, folder in enumerate(folders):
        labelled = sorted({i for name in tasks for i in able[name][number]})
        if labelled:
            yield folder.select([folder.ids[i] for i in labelled])


def _training(plan: Improvement, start: str, number: int, place: Path) -> Recipe:
    """The recipe of a round: the plan's, from where the last round ended, with what was created."""
    real = plan.recipe.data.sources
    folders = sorted(place.glob("created-*"), key=lambda p: int(p.name.removeprefix("created-")))
    there = [f for f in folders if (f / "metadata.jsonl").exists() and (f / "metadata.jsonl").stat().st_size]
    if not there:
        raise ValueError(
            f"nothing that was created in {place} can be learned from: no source has labels, or none of its pictures "
            f"meets {', '.join(plan.filters) or 'what is asked'} (created-*/rejected.jsonl has the scores)"
        )
    share = plan.share * sum(s.share for s in real) / len(there)
    created = [Source(path=str(f), share=share, labels=plan.labels) for f in there]
    return plan.recipe.replace(
        name=f"{plan.recipe.name}-round-{number}",
        model={"init_from": start},
        data={"sources": (*real, *created)},
    )


def _claim(run: Path, plan: Improvement) -> None:
    run.mkdir(parents=True, exist_ok=True)
    path = run / PLAN
    if not path.exists():
        with atomic_write(path) as file:
            file.write_text(plan.model_dump_json(indent=2) + "\n")
        return
    try:
        found = Improvement.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(
            f"{path} is damaged ({wrong(error)}); choose another --out, or delete that folder"
        ) from None
    if not found.recipe.equals(plan.recipe) or found.model_copy(update={"recipe": plan.recipe}) != plan:
        raise ValueError(
            f"{run} holds another plan (see {path}); choose another --out, or delete that folder"
        )
