"""The best weights of a run so far, by a score on held-out data, and when to stop waiting for better ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..io import atomic_write
from ..tasks import get_task
from .recipe import Recipe
from .state import Ema, kept, read_saved


def lower_is_better(recipe: Recipe) -> bool:
    """Whether lower values of ``validation.best_metric`` are better.

    Raises:
        ValueError: none of the recipe's tasks has such a score.
    """
    tasks = [get_task(name) for name in recipe.tasks]
    known = {f"{task.name}/{m.name}": m.better for task in tasks for m in task.metrics}
    best = recipe.validation.best_metric
    if best not in known:
        raise ValueError(f"best_metric={best!r} is no score of this recipe; its scores: {', '.join(known)}")
    return known[best] == "lower"


class Best:
    """The averaged weights at the validation with the best score, kept in one file that is whole or absent.

    All that decides is in that file and in the step, so a run that goes on after a kill stops where it would have
    stopped. That holds for a file from the future as well, written after the state that the run goes on from: on the
    way there nothing is better than it, and waiting for it cannot have ended before it.

    Args:
        path: of the file.
        recipe: says which score, how often it is taken and how long to wait.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path, self.recipe = path, recipe
        self.lower = lower_is_better(recipe)
        self.step, self.score = 0, float("nan")
        if path.exists():
            self.step, self.score = read_best(path)

    def update(
        self, step: int, scores: Mapping[str, float], module: nn.Module, ema: Ema, writes: bool
    ) -> None:
        """Keep the averaged weights where they are the best so far; the first process ``writes``."""
        score = scores[self.recipe.validation.best_metric]
        worse = score >= self.score if self.lower else score <= self.score
        if worse or score != score:
            return
        self.step, self.score = step, score
        if writes:
            ema.swap()
            # Copies, also on a processor: swapping back changes the module's own in place.
            weights = {k: v.detach().cpu().clone() for k, v in kept(module).items()}
            ema.swap()
            with atomic_write(self.path) as path, path.open("wb") as file:
                torch.save({"step": step, "score": score, "weights": weights}, file)

    def patience_exceeded(self, step: int) -> bool:
        """Whether so many validations in a row were no better that the run is over."""
        validation = self.recipe.validation
        return 0 < validation.patience * validation.every <= step - self.step

    def restore(self, module: nn.Module) -> bool:
        """Put the best weights into ``module``; False where there are none, because no score was a number."""
        if not self.path.exists():
            return False
        weights: dict[str, Tensor] = read_saved(self.path, ("weights",))["weights"]
        module.load_state_dict(weights, strict=False)
        return True


def read_best(path: Path) -> tuple[int, float]:
    """Step and score of a file that `Best` wrote; step 0 where there is none.

    Raises:
        ValueError: the file is damaged.
    """
    if not path.exists():
        return 0, float("nan")
    state = read_saved(path, ("step", "score"), mmap=True)
    return int(state["step"]), float(state["score"])
