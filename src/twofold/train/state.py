"""Saved state of a run and its exponential moving average of weights. Files are written atomically."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..io import atomic_write, escape, first_line


def trainable_parameters(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters with ``requires_grad``, by name."""
    return [(k, p) for k, p in module.named_parameters() if p.requires_grad]


def tensors_to_save(module: nn.Module) -> dict[str, Tensor]:
    """Trainable parameters and persistent buffers of a module, by name; shared ones once, under their first name."""
    names = {k for k, _ in trainable_parameters(module)} | {k for k, _ in module.named_buffers()}
    return {k: v for k, v in module.state_dict().items() if k in names}


class Ema:
    """An exponential moving average of a module's trainable parameters, with constant decay after a short ramp.

    The ramp ``(1 + n) / (10 + n)`` reduces the influence of the initial weights. A decay of 0 averages nothing.
    Buffers, such as the running statistics of batch normalisation, are averages already and are not averaged, except
    with ``every``: a teacher's statistics have to belong to its averaged weights.

    Args:
        module: whose trainable parameters are averaged.
        decay: weight of the old average in an update.
        every: examples between two updates of the average, exactly, for any batch size, and without a ramp: the teacher
            of Diff-2-in-1 (Zheng et al. 2025). 0: one update per training step.
    """

    def __init__(self, module: nn.Module, decay: float, every: int = 0) -> None:
        self.module, self.decay, self.every, self.count = module, decay, every, 0
        self.average = {k: p.detach().clone() for k, p in trainable_parameters(module)} if decay else {}
        self.buffers = {k: b.detach().clone() for k, b in self._averaged_buffers()} if decay else {}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The averages of parameters and buffers, by name."""
        return self.average | self.buffers

    def _averaged_buffers(self) -> list[tuple[str, Tensor]]:
        """Buffers that are averaged, by name: with ``every``, the persistent floating-point ones."""
        saved = tensors_to_save(self.module) if self.every else {}
        named = self.module.named_buffers() if self.every else ()
        return [(k, b) for k, b in named if k in saved and b.is_floating_point()]

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Pairs of a tensor of the module and its average."""
        pairs: list[tuple[Tensor, Tensor]] = [
            (p, self.average[k]) for k, p in trainable_parameters(self.module)
        ]
        return pairs + [(b, self.buffers[k]) for k, b in self._averaged_buffers()]

    @torch.no_grad()
    def update(self, examples: int = 1) -> None:
        """Update the average with the current parameters, after a training step on ``examples`` examples."""
        before = self.count
        self.count += examples if self.every else 1
        if not self.decay:
            return
        if self.every:
            decay = self.decay ** (self.count // self.every - before // self.every)
        else:
            decay = min(self.decay, (1 + self.count) / (10 + self.count))
        for value, average in self._pairs():
            average.lerp_(value, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the module's tensors and their averages; call again to undo."""
        for value, average in self._pairs() if self.decay else ():
            saved = value.clone()
            value.copy_(average)
            average.copy_(saved)

    @torch.no_grad()
    def ema_forward(self, part: nn.Module, inputs: tuple[Any, ...]) -> Any:
        """The output of ``part``, a submodule, for ``inputs`` with the averaged weights, in evaluation mode.

        The module's own weights are not changed, so this may run between the student's forward and backward pass.
        """
        averages = {id(value): average for value, average in self._pairs()}
        # Each tensor under one name only: with a second name of a shared module, functional_call does not restore the
        # module's own weights.
        named = {
            f"{prefix}.{k}".lstrip("."): averages[id(value)]
            for prefix, module in part.named_modules()
            for found in (module.named_parameters, module.named_buffers)
            for k, value in found(recurse=False, remove_duplicate=False)
            if id(value) in averages
        }
        training = {m: m.training for m in part.modules()}
        part.eval()
        try:
            return torch.func.functional_call(part, named, inputs, tie_weights=False)
        finally:
            for module, mode in training.items():
                module.training = mode

    @contextmanager
    def ema_scope(self) -> Generator[None]:
        """A context in which the module has the averaged weights, evaluation mode and no gradients.

        Leave it before the student's forward pass, whose graph a swap would invalidate.
        """
        self.swap()
        training = {m: m.training for m in self.module.modules()}
        self.module.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for module, mode in training.items():
                module.training = mode
            self.swap()


class State:
    """The resumable state of a run: step, trained weights, their average, optimizer and gradient scaler.

    Args:
        path: of its file.
        module: whose parameters are trained.
        ema: their moving average.
        optimizer: of the parameters.
        scaler: of fp16 gradients.
    """

    def __init__(
        self,
        path: Path,
        module: nn.Module,
        ema: Ema,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
    ) -> None:
        self.path, self.module, self.ema, self.optimizer, self.scaler = path, module, ema, optimizer, scaler
        self.unfinished: dict[str, Any] = {}

    @property
    def last_saved(self) -> str:
        """The end of an error message: where the last saved state is."""
        return f"{self.path} holds the last good state" if self.path.exists() else "nothing was saved yet"

    def save(self, step: int, unfinished: Mapping[str, Any] | None = None) -> None:
        """Write the state after ``step`` steps, atomically.

        ``unfinished`` is the record of the last step if its validation was interrupted.
        """
        state = {
            "step": step,
            "unfinished": dict(unfinished or {}),
            "weights": tensors_to_save(self.module),
            "ema": self.ema.tensors,
            "ema_count": self.ema.count,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # An open file: given a path, torch.save does not report the reason of a failure.
        with atomic_write(self.path) as path, path.open("wb") as file:
            torch.save(state, file)

    def load(self) -> int:
        """Restore what `save` wrote and return its step.

        Raises:
            ValueError: the file is damaged, or belongs to a differently shaped run.
        """
        state = read_saved(self.path, ("step", "weights", "ema", "ema_count", "optimizer", "scaler"))
        self.unfinished = dict(state.get("unfinished") or {})
        try:
            expected = tensors_to_save(self.module)
            if set(expected) != set(state["weights"]):
                name = sorted(set(expected) ^ set(state["weights"]))[0]
                raise ValueError(f"{name} is {'missing' if name in expected else 'unexpected'}")
            self.module.load_state_dict(state["weights"], strict=False)
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            averages: dict[str, Tensor] = state["ema"]
            for name, value in self.ema.tensors.items():
                value.copy_(averages[name])
        except (KeyError, RuntimeError, ValueError) as error:
            reason = first_line(error)
            raise ValueError(
                f"{self.path} was written by another recipe ({reason}); choose another run folder"
            ) from error
        self.ema.count = int(state["ema_count"])
        return int(state["step"])


class DamagedFileError(ValueError):
    """A file that a run wrote is damaged. The message is one line: the file, the reason, and what to do."""


def read_saved(path: Path, keys: Iterable[str], mmap: bool = False) -> dict[str, Any]:
    """The content of a file of a run (``state.pt``, ``best.pt``), which has at least ``keys``.

    Raises:
        DamagedFileError: the file is damaged.
        OSError: it cannot be read.
    """
    try:
        state = torch.load(path, weights_only=True, map_location="cpu", mmap=mmap)
        missing = [key for key in keys if key not in state]
    except OSError as error:
        if error.errno is not None:
            raise
        raise _damaged(path, first_line(error)) from error
    except Exception as error:
        raise _damaged(path, first_line(error)) from error
    if missing:
        raise _damaged(path, f"it has no {missing[0]!r}")
    return state


def _damaged(path: Path, reason: str) -> DamagedFileError:
    return DamagedFileError(
        f"{path} is damaged ({escape(reason[:120])}); restore a copy of it, or delete {path.parent} and run the same "
        "command again to train from the start"
    )


def saved_step(path: Path) -> int:
    """The step of a ``state.pt``.

    Raises:
        ValueError: the file is damaged.
    """
    return int(read_saved(path, ("step",), mmap=True)["step"])
