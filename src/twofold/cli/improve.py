"""`twofold improve`: a model that makes data for itself and learns from it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from twofold.cli.console import OK, CommandError, check_choice, print_json, print_line, with_progress
from twofold.cli.create import creation_settings
from twofold.cli.interrupt import report_saved
from twofold.cli.limits import MaxPixels
from twofold.cli.train import done, find_recipe


def improve(
    recipe: Annotated[
        str,
        typer.Argument(
            help="FILE.py[:FUNCTION], FILE.json or a name, as for twofold train; it starts from a warmed-up model."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run's folder; runs/NAME-improved by default.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe; may be repeated."),
    ] = None,
    strength: Annotated[
        float, typer.Option(help="How far a source is noised: near 0 little, 1 wholly.")
    ] = 0.6,
    guidance: Annotated[
        float,
        typer.Option(help="Classifier-free guidance of the caption; 1 is none. 3, or 1 with --compat."),
    ] = 0.0,
    steps: Annotated[
        int, typer.Option(min=0, help="Denoising steps of a created image; 30, or 50 with --compat.")
    ] = 0,
    sampler: Annotated[
        str, typer.Option(help="ddim, dpmpp_2m (in a third of the steps), euler or lcm.")
    ] = "ddim",
    per_image: Annotated[int, typer.Option(min=1, help="Created pictures of each real one, each round.")] = 1,
    share: Annotated[
        float, typer.Option(min=0.0, help="Examples from created pictures, relative to all the real ones.")
    ] = 1.0,
    labels: Annotated[
        str, typer.Option(help="teacher: labelled anew at every step; stored: as labelled when created.")
    ] = "teacher",
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="SCORE<N",
            help="Keep created images that pass, such as 'drift<20'; may be repeated.",
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often pictures are made anew.")] = 1,
    generator: Annotated[
        str,
        typer.Option(
            metavar="M",
            help="The model that generates images, if the recipe's model does not: 'embedded', a folder.",
        ),
    ] = "",
    size: Annotated[int, typer.Option(min=0, help="Longest edge created at; 0 is the source's own.")] = 0,
    label_mode: Annotated[
        str,
        typer.Option(
            help="Stored labels: reencode, predicted from the image; denoise, read off its denoising."
        ),
    ] = "",
    mask: Annotated[str, typer.Option(help="Where labels hold: where the source's own do, or all.")] = "",
    captioner: Annotated[
        str, typer.Option(metavar="HUB_ID", help="An image-to-text model, for sources without a caption.")
    ] = "",
    template: Annotated[
        str, typer.Option(help="Caption of sources without one; {classes} names what is in them.")
    ] = "a photograph",
    compat: Annotated[
        str, typer.Option(help="'official': the denoising steps of Diff-2-in-1's released code.")
    ] = "",
    fresh_student: Annotated[
        bool,
        typer.Option(
            "--fresh-student", help="Reset what the recipe resets, each round; with --labels stored only."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of what is created.")] = 0,
    device: Annotated[str, typer.Option(help="auto (the accelerator there is), or cpu.")] = "auto",
    log_every: Annotated[int, typer.Option(min=1, help="Print every so many steps.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print every event as JSON.")] = False,
    max_pixels: MaxPixels = "",
) -> int:
    """Create labelled pictures from the few there are, and learn from both (Diff-2-in-1).

    A student learns; its teacher, which follows it slowly (decay 0.998 every 40 examples where the recipe says nothing
    else), labels the created pictures at every step and is what is kept. Run again after a kill, the command goes on.
    """
    check_choice("--labels", labels, ("teacher", "stored"))
    asked = find_recipe(recipe, settings or [])
    from twofold.generate import ScoreThreshold
    from twofold.protocols import reason
    from twofold.train.improve import Improvement, gains
    from twofold.train.improve import improve as run_improvement
    from twofold.train.team import Team

    try:
        scoring = "all" if any(ScoreThreshold.parse(k).needs_predictions for k in filters or ()) else "cheap"
        made = creation_settings(
            str(strength), steps, sampler, guidance, seed, size, label_mode, mask, scoring, compat
        )
        plan = Improvement.of(
            asked,
            create=made,
            per_image=per_image,
            share=share,
            labels=labels,
            keep=tuple(filters or ()),
            rounds=rounds,
            creator=generator,
            captioner=captioner,
            template=template,
            fresh_student=fresh_student,
        )
    except ValueError as error:
        raise CommandError(reason(error)) from error
    run, team = out or Path("runs") / f"{asked.name}-improved", Team(device)
    printer = EventPrinter(asked.loop.steps, rounds, log_every)
    events = run_improvement(plan, run, team)
    with report_saved(run), closing(events):
        for event in with_progress(events, 0, asked.name, quiet=as_json or not team.first):
            if not team.first:
                continue
            if as_json:
                print_json(event)
            else:
                printer(event)
    if team.first and not as_json:
        if asked.validation.best_metric:
            print_line(_helped(asked.validation.best_metric, gains(run, asked.validation.best_metric)))
        print_line(done(run / "checkpoint", asked))
    return OK


class EventPrinter:
    """Prints the events of an improvement that a user wants to see: one line each, created images once a round."""

    def __init__(self, steps: int, rounds: int, log_every: int) -> None:
        self.steps, self.rounds, self.log_every, self.drawing = steps, rounds, log_every, 0

    def __call__(self, event: dict[str, Any]) -> None:
        """Print an event of `train.improve.improve`, or nothing."""
        where = f"round {event['round']}/{self.rounds}"
        if event.get("status") == "created" and event["round"] > self.drawing:
            self.drawing = event["round"]
            print_line(f"{where}  drawing")
        elif "validation" in event or ("loss" in event and event["step"] % self.log_every == 0):
            scores = {k: event[k] for k in ("loss",) if k in event} | event.get("validation", {})
            told = "  ".join(f"{k} {v:.4g}" for k, v in scores.items())
            print_line(f"{where}  step {event['step']}/{self.steps}  {told}")
        elif event.get("status") in ("rejected", "failed"):
            found = event.get("reasons") or event.get("error")
            why = "; ".join(found) if isinstance(found, list) else found
            print_line(f"{where}  {event['id']} {event['status']}: {why}")


def _helped(score: str, rounds: list[tuple[float, float, int]]) -> str:
    """Whether it helped, in one line: the score before, and the best of each round."""
    reached = [
        f"round {n}: {best:.4g} at step {step}" if step else f"round {n}: no better"
        for n, (_, best, step) in enumerate(rounds, 1)
    ]
    return f"{score} on held-out samples: {rounds[0][0]:.4g} before; {'; '.join(reached)}"
