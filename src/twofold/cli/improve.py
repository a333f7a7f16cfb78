"""The command `twofold improve`, which trains a model on labelled images that it generates."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from twofold.cli.command import OptionGroup
from twofold.cli.console import OK, CommandError, print_json, print_line, with_progress
from twofold.cli.generation import SampleCreationOptions, SyntheticLabelOptions, creation_settings
from twofold.cli.interrupt import report_saved
from twofold.cli.model import DeviceOptions
from twofold.cli.options import choice
from twofold.cli.train import RunOptions, check_log_every, done_text, find_recipe
from twofold.cli.usage import refuse_unused

if TYPE_CHECKING:
    from twofold.train.improvement import Improvement
    from twofold.train.recipe import Recipe


@dataclass(frozen=True)
class ImprovementOptions(OptionGroup):
    """Options of training on generated samples."""

    title: ClassVar[str] = "Self-improving"
    strength: Annotated[
        float, typer.Option(help="Fraction of the noise schedule added to a source, in (0, 1].")
    ] = 0.6
    share: Annotated[
        float, typer.Option(min=0.0, help="Examples from generated images, relative to all real ones.")
    ] = 1.0
    label_source: Annotated[
        str,
        choice(
            "--labels",
            ("teacher", "stored"),
            "Pseudo-labels from the EMA teacher at every step, or the labels of the generated samples.",
        ),
    ] = "teacher"
    rounds: Annotated[int, typer.Option(min=1, help="Number of times that images are generated.")] = 1
    generator: Annotated[
        str,
        typer.Option(
            metavar="M", help="Model that generates images, if the recipe's does not: 'embedded', a folder."
        ),
    ] = ""
    fresh_student: Annotated[
        bool,
        typer.Option(
            "--fresh-student",
            help="Reinitialize the modules in the recipe's reset in each round; with --labels stored only.",
        ),
    ] = False


def improve(
    recipe: Annotated[
        str,
        typer.Argument(
            help="FILE.py[:FUNCTION], FILE.json or a name, as for twofold train; it starts from a trained model."
        ),
    ],
    run: RunOptions,
    improvement: ImprovementOptions,
    sampling: SampleCreationOptions,
    labels: SyntheticLabelOptions,
    device: DeviceOptions,
) -> int:
    """Generate labelled images from the training images, and train on both (Diff-2-in-1).

    The EMA teacher of the trained student (decay 0.998 every 40 examples unless the recipe configures it) labels the
    generated images at every step, and is saved. An interrupted command continues when it is run again.
    """
    check_log_every()
    if labels.captioner:
        refuse_unused("with --captioner", "template")
    parsed = find_recipe(recipe, run.settings or [])
    from twofold.train.distributed import DistributedContext
    from twofold.train.improve import gains, improve as run_improvement

    plan = _plan(parsed, improvement, sampling, labels)
    folder = run.out or Path("runs") / f"{parsed.name}-improved"
    distributed = DistributedContext(device.device)
    printer = EventPrinter(parsed.loop.steps, improvement.rounds, run.log_every)
    events = run_improvement(plan, folder, distributed)
    with report_saved(folder), closing(events):
        for event in with_progress(events, 0, parsed.name) if distributed.first else events:
            if distributed.first:
                print_json(event)
                printer(event)
    if distributed.first:
        best = parsed.validation.best_metric
        if best:
            print_line(_gain_text(best, gains(folder, best)))
        print_line(done_text(folder / "checkpoint", parsed))
    return OK


def _plan(
    recipe: Recipe,
    options: ImprovementOptions,
    sampling: SampleCreationOptions,
    labels: SyntheticLabelOptions,
) -> Improvement:
    """Convert the options. CommandError if they are inconsistent with each other or with the recipe."""
    from twofold.generate import ScoreThreshold
    from twofold.protocols import reason
    from twofold.train.improvement import Improvement

    filters = tuple(labels.filters or ())
    try:
        scoring = "all" if any(ScoreThreshold.parse(text).needs_predictions for text in filters) else "cheap"
        return Improvement.of(
            recipe,
            generation=creation_settings(options.strength, sampling, labels, scoring),
            per_image=labels.per_image,
            share=options.share,
            labels=options.label_source,
            filters=filters,
            rounds=options.rounds,
            image_model=options.generator,
            captioner=labels.captioner,
            template=labels.template,
            fresh_student=options.fresh_student,
        )
    except ValueError as error:
        raise CommandError(reason(error)) from error


class EventPrinter:
    """Prints validation scores, steps, and rejected or failed samples of a self-improvement, one line each."""

    def __init__(self, steps: int, rounds: int, log_every: int) -> None:
        self.steps, self.rounds, self.log_every, self.generating = steps, rounds, log_every, 0

    def __call__(self, event: dict[str, Any]) -> None:
        """Print an event of `train.improve.improve`, if it is one of the printed kinds."""
        where = f"round {event['round']}/{self.rounds}"
        if event.get("status") == "created" and event["round"] > self.generating:
            self.generating = event["round"]
            print_line(f"{where}  generating images")
        elif "validation" in event or ("loss" in event and event["step"] % self.log_every == 0):
            scores = {k: event[k] for k in ("loss",) if k in event} | event.get("validation", {})
            values = "  ".join(f"{k} {v:.4g}" for k, v in scores.items())
            print_line(f"{where}  step {event['step']}/{self.steps}  {values}")
        elif event.get("status") in ("rejected", "failed"):
            reasons = event.get("reasons") or event.get("error")
            text = "; ".join(reasons) if isinstance(reasons, list) else reasons
            print_line(f"{where}  {event['id']} {event['status']}: {text}")


def _gain_text(metric: str, rounds: list[tuple[float, float, int]]) -> str:
    """The score before the improvement, and the best score of each round, as one line."""
    results = [
        f"round {n}: {best:.4g} at step {step}" if step else f"round {n}: no better"
        for n, (_, best, step) in enumerate(rounds, 1)
    ]
    return f"{metric} on held-out samples: {rounds[0][0]:.4g} before; {'; '.join(results)}"
