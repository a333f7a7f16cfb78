"""The training loop, a generator of records. A run that is killed and resumed ends with the same weights."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..heads import Head
from ..image import write_image
from ..io import OutputFolder, atomic_write, derive_seed, remove_leftovers
from ..predict.finite import NonFiniteError
from .best import BestWeights
from .distributed import DistributedContext
from .latent_cache import LATENTS
from .optimizer import learning_rate, make_optimizer, momentum, parameters, set_rate
from .recipe import Recipe
from .signals import DeferredSignals, Interrupted
from .stage import Stage, build_trainer
from .state import Ema, State
from .step import means

Record = dict[str, Any]


def train(
    backbone: nn.Module,
    recipe: Recipe,
    run: Path,
    heads: dict[str, Head] | None = None,
    distributed: DistributedContext | None = None,
    averaged: bool = True,
) -> Generator[Record, None, None]:
    """Train ``backbone`` in place and yield one record per step; resumes if ``run`` has a saved state.

    When the generator is exhausted, the backbone has the averaged (EMA) weights: those of the best validation if the
    recipe has a ``best_metric``, otherwise the last.

    Ctrl-C, SIGTERM and SIGHUP take effect after the step, or during its validation, once the state is saved; so does
    closing the generator.

    Args:
        backbone: a `StableDiffusion`, or a user-defined network if the recipe's kind is ``network``.
        recipe: of the run.
        run: its folder.
        heads: those of the initial model, by task; the trained heads are put into this dictionary.
        distributed: the processes.
        averaged: False leaves the weights of the last step, without averaging.

    Raises:
        ValueError: ``run`` belongs to another recipe, its state is damaged, a sample cannot be used, or the batch
            cannot be divided among the processes.
        FloatingPointError: a network output or a loss is not finite; the message names the samples, and the last saved
            state remains.
        DiskFullError: there is no space for a file; the last saved state remains.
        OSError: the run folder was deleted or replaced.
    """
    distributed = distributed or DistributedContext()
    distributed.local_indices(recipe.loop.batch_size)
    if distributed.first:
        init_run_dir(run, recipe)
    distributed.barrier()
    folder = OutputFolder(run) if distributed.first else None
    best = BestWeights(run / "best.pt", recipe) if recipe.validation.best_metric else None
    stage = build_trainer(backbone, recipe, run, heads or {}, distributed)
    optimizer, scaler = make_optimizer(recipe, stage.module), distributed.scaler(recipe.loop.precision)
    stage.teacher = Ema(stage.module, recipe.ema.decay, recipe.ema.update_every)
    state = State(run / "state.pt", stage.module, stage.teacher, optimizer, scaler)
    start = state.load() if state.path.exists() else 0
    stage.module.train()
    signals = DeferredSignals()
    try:
        if best and start == 0:
            yield {"step": 0, **_validated(stage, recipe, 0, run, state, best, distributed, signals)}
        yield from _steps(stage, recipe, start, run, state, best, distributed, signals, folder)
    finally:
        signals.release()
        stage.close()
    if averaged and not (best and best.restore(stage.module)):
        state.ema.swap()
    stage.module.eval()
    stage.finish()
    if heads is not None:
        heads.update(getattr(stage, "heads", {}))


def _steps(
    stage: Stage,
    recipe: Recipe,
    start: int,
    run: Path,
    state: State,
    best: BestWeights | None,
    distributed: DistributedContext,
    signals: DeferredSignals,
    folder: OutputFolder | None,
) -> Generator[Record, None, None]:
    """The steps from ``start`` on. If a signal or closing the generator ends them early, the state is saved."""
    unfinished = state.unfinished
    for step in range(start - bool(unfinished), recipe.loop.steps):
        if best and best.patience_exceeded(step):
            break
        signals.hold()
        start_time, done = time.perf_counter(), step + 1
        record: Record = unfinished or {"step": done, **update(stage, recipe, step, state, distributed)}
        unfinished = {}
        if folder is not None:
            folder.check()  # before previews, which would create it again
        if is_due(done, recipe.validation.every, recipe.loop.steps):
            try:
                record |= _validated(stage, recipe, done, run, state, best, distributed, signals)
            except Interrupted:
                _save(state, folder, done, record)
                signals.deliver()
                raise KeyboardInterrupt from None  # a handler of the caller's that raises nothing
        record["seconds"] = time.perf_counter() - start_time
        stopping = distributed.any(bool(signals.pending))
        signals.release()
        # Before the state is saved: after a kill, the step of a record without a state is repeated, but a state without
        # its record would leave a gap.
        try:
            yield record
        except GeneratorExit:
            _save(state, folder, done)
            raise
        signals.hold()
        if (
            stopping
            or is_due(done, recipe.loop.save_every, recipe.loop.steps)
            or (best and best.patience_exceeded(done))
        ):
            _save(state, folder, done)
            distributed.barrier()
        if stopping:
            signals.deliver()
            if distributed.size > 1:
                raise KeyboardInterrupt  # the signal went to another process


def _save(state: State, folder: OutputFolder | None, step: int, unfinished: Record | None = None) -> None:
    """Save the state in the first process, which has a ``folder``. OSError if the folder was deleted."""
    if folder is not None:
        folder.check()
        state.save(step, unfinished)


def update(stage: Stage, recipe: Recipe, step: int, state: State, distributed: DistributedContext) -> Record:
    """One update of the weights from one batch. Returns mean losses by name, the gradient's norm and the learning rate.

    Raises:
        FloatingPointError: a network output, a loss or (except in fp16) the gradient is not finite.
    """
    rate = learning_rate(recipe, step)
    set_rate(state.optimizer, rate, momentum(recipe, step))
    state.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, float] = {}
    names: list[str] = []
    for start, examples in _micro_batches(stage.draw(step), recipe.loop.micro_batch_size):
        # Randomness inside the network, such as dropout, is a function of the step as well.
        with distributed.fork_rng():
            torch.manual_seed(derive_seed(recipe.loop.seed, "inside", step, distributed.rank, start))
            try:
                loss = stage.loss(examples)
            except FloatingPointError as error:
                raise FloatingPointError(f"step {step + 1}: {error}; {state.last_saved}") from error
            if loss.total.requires_grad:
                state.scaler.scale(loss.total).backward()
        names += loss.names
        for name, value in loss.sums.items():
            sums[name] = sums.get(name, 0.0) + value
    trained = list(parameters(state.optimizer))
    distributed.add_gradients(trained)
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(trained, recipe.optimizer.max_grad_norm or float("inf")).item()
    if not norm < float("inf") and recipe.loop.precision != "fp16":
        samples = ", ".join(dict.fromkeys(names))
        raise FloatingPointError(
            f"step {step + 1}: the gradient of {samples} is not finite; {state.last_saved}"
        )
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.ema.update(recipe.loop.batch_size)
    # The norm of a step that the fp16 scaler skipped is infinite, which JSON cannot represent.
    return {**means(distributed.add(sums)), "norm": norm if norm < float("inf") else None, "lr": rate}


def _micro_batches(examples: Sequence[Any], size: int) -> Iterator[tuple[int, Sequence[Any]]]:
    """Micro-batches of at most ``size`` examples (0: all), each with the index of its first example."""
    size = size or len(examples)
    for start in range(0, len(examples), size):
        yield start, examples[start : start + size]


def _validated(
    stage: Stage,
    recipe: Recipe,
    step: int,
    run: Path,
    state: State,
    best: BestWeights | None,
    distributed: DistributedContext,
    signals: DeferredSignals,
) -> Record:
    """Validate after ``step`` steps, update the best weights, and return the fields that this adds to the record."""
    start_time = time.perf_counter()
    try:
        scores = validate(stage, state.ema, preview_path(run, step), distributed, signals)
    except NonFiniteError as error:
        raise NonFiniteError(f"validation after step {step}: {error}; {state.last_saved}") from error
    record: Record = {"validation": scores, "seconds": time.perf_counter() - start_time}
    if best is None:
        return record
    if recipe.validation.best_metric not in scores:
        raise ValueError(
            f"validation on {recipe.validation.data} has no score best_metric={recipe.validation.best_metric!r}; its "
            f"scores: {', '.join(scores) or 'none'}"
        )
    best.update(step, scores, stage.module, state.ema, distributed.first)
    return {**record, "best": {"step": best.step, "score": best.score}}


def preview_path(run: Path, step: int) -> Path:
    """The file of the preview image of a validation after ``step`` steps."""
    return run / "previews" / f"step-{step:06d}.png"


def validate(
    stage: Stage, ema: Ema, path: Path, distributed: DistributedContext, signals: DeferredSignals
) -> dict[str, float]:
    """Scores of the averaged weights, by name, computed by the first process, which writes a preview to ``path``.

    Raises:
        Interrupted: a deferred signal arrived; the trained weights are in place again. Never with several processes,
            which would wait for each other.
    """
    scores: dict[str, float] = {}
    if distributed.first:
        ema.swap()
        stage.module.eval()
        try:
            with signals.raising() if distributed.size == 1 else nullcontext():
                scores = stage.validate()
                preview = stage.preview()
        finally:
            stage.module.train()
            ema.swap()
        if preview is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, preview)
    distributed.barrier()
    return distributed.add(scores)


def is_due(step: int, period: int, last: int) -> bool:
    """Whether something periodic is due after ``step`` of ``last`` steps."""
    return step == last or (period > 0 and step % period == 0)


def init_run_dir(run: Path, recipe: Recipe) -> None:
    """Write the recipe into its run folder, or check that it is the one already there; removes partial files.

    Raises:
        ValueError: the folder has another recipe.
    """
    run.mkdir(parents=True, exist_ok=True)
    for folder in (run, *(run.parent / LATENTS).glob("*/")):
        remove_leftovers(folder)
    path = run / "recipe.json"
    if path.exists():
        found = Recipe.read(path, allow_code=True)  # only compared
        if not found.equals(recipe) and not (run / "state.pt").exists():
            # A run that a broken sample stopped before its first state may be repeated with --skip-bad.
            found = found.replace(data={"skip_bad": recipe.data.skip_bad})
        if not found.equals(recipe):
            raise ValueError(
                f"{run} holds another recipe (see {path}); choose another --out, or delete that folder"
            )
    with atomic_write(path) as file:
        recipe.save(file)
