"""The training loop: a generator of records. Killed at any moment, the same command ends in the same weights."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..backbones.stable_diffusion import StableDiffusion
from ..heads import Head
from ..image import write_image
from ..io import atomic_write, derive_seed, remove_leftovers
from ..predict.finite import NonFiniteError
from .best import Best
from .distributed import DistributedContext
from .latent_cache import LATENTS
from .optimizer import learning_rate, make_optimizer, momentum, parameters, set_rate
from .recipe import Recipe
from .signals import DeferredSignals, Interrupted
from .state import Ema, State
from .step import Loss, means

Record = dict[str, Any]


class Stage(Protocol):
    """What the loop needs to know of what it trains."""

    module: nn.Module
    teacher: Ema | None  # the averaged weights, which may say what is to be learned

    def draw(self, step: int) -> Sequence[Any]:
        """This process's examples of step ``step``; random only through the recipe's seed and ``step``."""
        ...

    def loss(self, examples: Sequence[Any]) -> Loss:
        """What some of them add to the loss of their batch."""
        ...

    def validate(self) -> dict[str, float]:
        """Scores on held-out data with the weights as they stand."""
        ...

    def preview(self) -> Tensor | None:
        """A picture ``3 h w`` of the same, for a person; None where there is nothing to see."""
        ...

    def finish(self) -> None:
        """Whatever is done once, after the last step."""
        ...


def build_trainer(
    backbone: nn.Module, recipe: Recipe, run: Path, heads: dict[str, Head], distributed: DistributedContext
) -> Stage:
    """The stage a recipe names; latents are kept beside the run's folder, so that its neighbours share them."""
    if recipe.model.kind == "network":
        from .network import NetworkStage

        return NetworkStage(backbone, recipe, run, distributed)
    if not isinstance(backbone, StableDiffusion):
        raise TypeError(
            f"a run of kind {recipe.model.kind!r} trains a StableDiffusion, not a {type(backbone).__name__}"
        )
    if recipe.model.kind == "autoencoder":
        from .autoencoder import AutoencoderStage

        return AutoencoderStage(backbone, recipe, distributed)
    from .denoiser import DenoiserStage

    return DenoiserStage(backbone, recipe, run, heads, distributed)


def train(
    backbone: nn.Module,
    recipe: Recipe,
    run: Path,
    heads: dict[str, Head] | None = None,
    distributed: DistributedContext | None = None,
    averaged: bool = True,
) -> Generator[Record, None, None]:
    """Train ``backbone`` in place, yielding one record a step; resumes from ``run`` where a state is there.

    It is a `StableDiffusion`, or, where the recipe says so, a network of one's own.

    ``heads`` are those of the model it starts from, by task; those that were trained are put into it.

    When the generator is exhausted the backbone holds the averaged (EMA) weights, the best of them where the recipe
    says what is best; where they are not to be ``averaged``, those that the last step left.

    Ctrl-C, SIGTERM and SIGHUP take effect after the step, or during its validation, once the state is saved; so does
    closing the generator.

    Raises:
        ValueError: ``run`` belongs to another recipe, its state is damaged, a sample cannot be used, or the batch
            cannot be shared.
        FloatingPointError: a network output or a loss is not finite; the message names the samples, and the last saved
            state is kept.
        DiskFullError: there is no space for a file; the last saved state is kept.
    """
    distributed = distributed or DistributedContext()
    distributed.local_indices(recipe.loop.batch_size)
    if distributed.first:
        init_run_dir(run, recipe)
    distributed.barrier()
    best = Best(run / "best.pt", recipe) if recipe.validation.best_metric else None
    stage = build_trainer(backbone, recipe, run, heads or {}, distributed)
    optimizer, scaler = make_optimizer(recipe, stage.module), distributed.scaler(recipe.loop.precision)
    state = State(
        run / "state.pt",
        stage.module,
        Ema(stage.module, recipe.ema.decay, recipe.ema.update_every),
        optimizer,
        scaler,
    )
    stage.teacher = state.ema
    start = state.load() if state.path.exists() else 0
    stage.module.train()
    signals = DeferredSignals()
    try:
        if best and start == 0:
            yield {"step": 0, **_validated(stage, recipe, 0, run, state, best, distributed, signals)}
        yield from _steps(stage, recipe, start, run, state, best, distributed, signals)
    finally:
        signals.release()
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
    best: Best | None,
    distributed: DistributedContext,
    signals: DeferredSignals,
) -> Generator[Record, None, None]:
    """The steps from ``start`` on. Where they end early, by a signal or because nobody reads on, the state is saved."""
    unfinished = state.unfinished
    for step in range(start - bool(unfinished), recipe.loop.steps):
        if best and best.patience_exceeded(step):
            break
        signals.hold()
        began, done = time.perf_counter(), step + 1
        record: Record = unfinished or {"step": done, **update(stage, recipe, step, state, distributed)}
        unfinished = {}
        if is_due(done, recipe.validation.every, recipe.loop.steps):
            try:
                record |= _validated(stage, recipe, done, run, state, best, distributed, signals)
            except Interrupted:
                state.save(done, record)
                signals.deliver()
                raise KeyboardInterrupt from None  # a handler of the caller's that raises nothing
        record["seconds"] = time.perf_counter() - began
        stopping = distributed.any(bool(signals.pending))
        signals.release()
        # Before the state: a record without one is made again after a kill, a state without its record is not.
        try:
            yield record
        except GeneratorExit:
            if distributed.first:
                state.save(done)
            raise
        signals.hold()
        if (
            stopping
            or is_due(done, recipe.loop.save_every, recipe.loop.steps)
            or (best and best.patience_exceeded(done))
        ):
            if distributed.first:
                state.save(done)
            distributed.barrier()
        if stopping:
            signals.deliver()
            if distributed.size > 1:
                raise KeyboardInterrupt  # the signal went to another process


def update(stage: Stage, recipe: Recipe, step: int, state: State, distributed: DistributedContext) -> Record:
    """One update of the weights from one batch; the losses, the gradient's norm and the learning rate."""
    rate = learning_rate(recipe, step)
    set_rate(state.optimizer, rate, momentum(recipe, step))
    state.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, float] = {}
    names: list[str] = []
    for place, examples in _micro(stage.draw(step), recipe.loop.micro_batch_size):
        # What is random inside the network, such as dropout, belongs to the step as well.
        with distributed.fork_rng():
            torch.manual_seed(derive_seed(recipe.loop.seed, "inside", step, distributed.rank, place))
            try:
                loss = stage.loss(examples)
            except FloatingPointError as error:
                raise FloatingPointError(f"step {step + 1}: {error}; {state.kept}") from error
            if loss.total.requires_grad:
                state.scaler.scale(loss.total).backward()
        names += loss.names
        for name, value in loss.sums.items():
            sums[name] = sums.get(name, 0.0) + value
    learned = list(parameters(state.optimizer))
    distributed.add_gradients(learned)
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(learned, recipe.optimizer.max_grad_norm or float("inf")).item()
    if not norm < float("inf") and recipe.loop.precision != "fp16":
        seen = ", ".join(dict.fromkeys(names))
        raise FloatingPointError(f"step {step + 1}: the gradient of {seen} is not finite; {state.kept}")
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.ema.update(recipe.loop.batch_size)
    # Of a step that fp16 has left out, the norm is infinite, which JSON has no word for.
    return {**means(distributed.add(sums)), "norm": norm if norm < float("inf") else None, "lr": rate}


def _micro(examples: Sequence[Any], size: int) -> Iterator[tuple[int, Sequence[Any]]]:
    """The examples in runs of at most ``size`` (0: all), each with its place."""
    size = size or len(examples)
    for place in range(0, len(examples), size):
        yield place, examples[place : place + size]


def _validated(
    stage: Stage,
    recipe: Recipe,
    step: int,
    run: Path,
    state: State,
    best: Best | None,
    distributed: DistributedContext,
    signals: DeferredSignals,
) -> Record:
    """What a validation after so many steps adds to the record; the best weights are kept."""
    began = time.perf_counter()
    try:
        scores = validate(stage, state.ema, run / "pictures" / f"step-{step:06d}.png", distributed, signals)
    except NonFiniteError as error:
        raise NonFiniteError(f"validation after step {step}: {error}; {state.kept}") from error
    record: Record = {"validation": scores, "seconds": time.perf_counter() - began}
    if best is None:
        return record
    if recipe.validation.best_metric not in scores:
        raise ValueError(
            f"{recipe.validation.data} has no score best_metric={recipe.validation.best_metric!r}"
        )
    best.update(step, scores, stage.module, state.ema, distributed.first)
    return {**record, "best": {"step": best.step, "score": best.score}}


def validate(
    stage: Stage, ema: Ema, picture: Path, distributed: DistributedContext, signals: DeferredSignals
) -> dict[str, float]:
    """Scores of the averaged weights, and a ``picture`` of what they answer; the first process takes them for all.

    Raises:
        Interrupted: a held signal arrived; the weights are those that are trained again. Never in one of several
            processes: the others would wait for it.
    """
    scores: dict[str, float] = {}
    if distributed.first:
        ema.swap()
        stage.module.eval()
        try:
            with signals.raising() if distributed.size == 1 else nullcontext():
                scores = stage.validate()
                seen = stage.preview()
        finally:
            stage.module.train()
            ema.swap()
        if seen is not None:
            picture.parent.mkdir(parents=True, exist_ok=True)
            write_image(picture, seen)
    distributed.barrier()
    return distributed.add(scores)


def is_due(step: int, period: int, last: int) -> bool:
    """Whether something periodic is due after ``step`` of ``last`` steps."""
    return step == last or (period > 0 and step % period == 0)


def init_run_dir(run: Path, recipe: Recipe) -> None:
    """Write the recipe into its run folder, or check that it is the one already there; clear up after a kill.

    Raises:
        ValueError: another recipe is there.
    """
    run.mkdir(parents=True, exist_ok=True)
    for folder in (run, *(run.parent / LATENTS).glob("*/")):
        remove_leftovers(folder)
    path = run / "recipe.json"
    if path.exists():
        found = Recipe.read(path, allow_code=True)  # only compared
        if found != recipe and not (run / "state.pt").exists():
            # What a run that a broken sample stopped before its first state has to try next.
            found = found.replace(data={"skip_bad": recipe.data.skip_bad})
        if found != recipe:
            raise ValueError(
                f"{run} holds another recipe (see {path}); choose another --out, or delete that folder"
            )
    with atomic_write(path) as file:
        recipe.save(file)
