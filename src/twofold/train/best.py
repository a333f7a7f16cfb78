"""The best averaged weights of a run by a validation score, and early stopping."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..io import atomic_write
from ..tasks import get_task
from .recipe import Recipe
from .state import Ema, read_saved, tensors_to_save


def lower_is_better(recipe: Recipe) -> bool:
    """Whether lower values of ``validation.best_metric`` are better.

    Raises:
        ValueError: no task of the recipe has that score.
    """
    tasks = [get_task(name) for name in recipe.tasks]
    known = {f"{task.name}/{m.name}": m.better for task in tasks for m in task.metrics}
    best = recipe.validation.best_metric
    if best not in known:
        raise ValueError(
            f"best_metric={best!r} is not a score of this recipe; its scores: {', '.join(known)}"
        )
    return known[best] == "lower"


class BestWeights:
    """The averaged weights of the validation with the best score, in a file that is written atomically.

    Early stopping depends on that file and the step only, so a resumed run stops at the same step as an uninterrupted
    one. This includes a file that is newer than the state from which the run resumes: no score before the file's step
    is better, and patience cannot be exceeded before it.

    Args:
        path: of the file.
        recipe: with the score, the period of validations and the patience.

    Raises:
        ValueError: the file is damaged, or no task of the recipe has the score.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path, self.recipe = path, recipe
        self.lower = lower_is_better(recipe)
        self.step, self.score = 0, float("nan")
        if path.exists():
            self.step, self.score = read_best(path)

    def update(
        self, step: int, scores: Mapping[str, float], module: nn.Module, ema: Ema, write: bool
    ) -> None:
        """Save the averaged weights if their score is the best so far; ``write`` is true in the first process only."""
        score = scores[self.recipe.validation.best_metric]
        worse = score >= self.score if self.lower else score <= self.score
        if worse or score != score:
            return
        self.step, self.score = step, score
        if write:
            ema.swap()
            # Copies, on a CPU too: swapping back changes the module's tensors in place.
            weights = {k: v.detach().cpu().clone() for k, v in tensors_to_save(module).items()}
            ema.swap()
            with atomic_write(self.path) as path, path.open("wb") as file:
                torch.save({"step": step, "score": score, "weights": weights}, file)

    def patience_exceeded(self, step: int) -> bool:
        """Whether ``validation.patience`` validations in a row had no better score."""
        validation = self.recipe.validation
        return 0 < validation.patience * validation.every <= step - self.step

    def restore(self, module: nn.Module) -> bool:
        """Load the best weights into ``module``; False if there are none, because every score was NaN."""
        if not self.path.exists():
            return False
        weights: dict[str, Tensor] = read_saved(self.path, ("weights",))["weights"]
        module.load_state_dict(weights, strict=False)
        return True


def read_best(path: Path) -> tuple[int, float]:
    """Step and score of a file that `BestWeights` wrote; step 0 and NaN if there is no file.

    Raises:
        ValueError: the file is damaged.
    """
    if not path.exists():
        return 0, float("nan")
    state = read_saved(path, ("step", "score"), mmap=True)
    return int(state["step"]), float(state["score"])
