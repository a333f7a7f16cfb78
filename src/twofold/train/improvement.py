"""The settings of self-improving: a recipe, and how samples are generated for it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..generate import (
    GenerationConfig,
    ScoreThreshold,
)
from ..generate.captions import TEMPLATE
from ..tasks import get_task
from .config import EmaConfig
from .recipe import Recipe, error_text

# Diff-2-in-1's EMA teacher for one task; its decay is 0.999 for PASCAL-Context's several tasks.
EMA_DECAY, EMA_UPDATE_EVERY = 0.998, 40


class Improvement(BaseModel):
    """The settings of self-improving.

    Attributes:
        recipe: of a round's training. It starts from a model after warm-up, its sources have real labels, and its
            averaged weights are the teacher.
        generation: how samples are generated; each round has another seed.
        per_image: number of generated samples per real one.
        share: examples from generated samples, relative to those from real ones.
        labels: ``teacher`` trains on pseudo-labels of the EMA teacher at that step, ``stored`` on the labels that were
            predicted when the images were generated.
        filters: thresholds on the scores of generated samples, such as ``drift.normals<20``
            (`generate.ScoreThreshold`).
        rounds: number of times that images are generated.
        fresh_student: apply the recipe's ``reset``: each round trains a new student on stored labels. Otherwise a
            recipe with ``reset`` is refused, because it would discard the warm-up.
        captioner, template: captions of sources without one, see `generate.get_caption`.
        image_model: the model that generates images, a name or folder for `open_model`; empty is the recipe's own
            model, which cannot be a user-defined network.
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
    def _consistent(self) -> Improvement:
        for threshold in self.filters:
            ScoreThreshold.parse(threshold)
        if not self.recipe.tasks or self.recipe.model.init_from == "new":
            raise ValueError(
                "self-improving starts from a model that was trained for the recipe's tasks, not from 'new'"
            )
        if self.recipe.model.kind == "network" and not self.image_model:
            raise ValueError(
                "a user-defined network generates no images; pass the model that does, such as image_model='embedded' "
                "(--generator embedded)"
            )
        if self.image_model and self.generation.label_mode == "denoise":
            raise ValueError(
                "label_mode 'denoise' reads features of the image generator, but here another network labels the "
                "images; use 'reencode'"
            )
        if self.labels == "teacher" and not self.recipe.ema.decay:
            raise ValueError("the teacher has the averaged weights: ema.decay must be above 0")
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
                "fresh_student needs a recipe that resets parts, and this one resets none; leave it out, or set the "
                "parts to reset (--set 'model.reset=[\"heads\"]')"
            )
        if self.fresh_student and self.labels == "teacher":
            raise ValueError(
                "a fresh student has no trained teacher: its labels have to be stored (--labels stored)"
            )

    @classmethod
    def of(cls, recipe: Recipe, **settings: Any) -> Improvement:
        """An improvement of a recipe, with the published EMA teacher if the recipe configures none.

        A warm-up has no teacher, so its recipe may have no averaged weights (``ema.decay`` of 0, as in Diff-2-in-1).
        With ``labels="teacher"``, a decay of 0, or the default decay without ``ema.update_every``, is replaced by the
        published decay and period.

        Args:
            recipe: of a round's training.
            settings: other attributes.

        Raises:
            ValueError: the settings do not fit the recipe; one line.
        """
        teacher = settings.get("labels", cls.model_fields["labels"].default) == "teacher"
        if teacher and not recipe.ema.decay:
            recipe = recipe.replace(ema={"decay": EMA_DECAY})
        if not recipe.ema.update_every and recipe.ema.decay:
            default = recipe.ema.decay == EmaConfig().decay
            decay = EMA_DECAY if default else recipe.ema.decay
            recipe = recipe.replace(ema={"decay": decay, "update_every": EMA_UPDATE_EVERY})
        try:
            plan = cls(recipe=recipe, **settings)
        except ValidationError as error:
            raise ValueError(error_text(error)) from None
        # Not in the validator, which also runs when a plan is read from a file: user-defined tasks are code.
        tasks = [get_task(t).name for t in recipe.tasks]
        for threshold in plan.filters:
            named = ScoreThreshold.parse(threshold).task
            if named and named not in tasks:
                raise ValueError(f"{threshold!r} is about {named}; this recipe trains {', '.join(tasks)}")
        return plan
