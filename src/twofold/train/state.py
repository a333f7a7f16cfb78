"""Save and resume a run: everything that must survive, by name, in one file that is whole or absent."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..io import atomic_write, escape


def learning(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters that learn, by name."""
    return [(k, p) for k, p in module.named_parameters() if p.requires_grad]


def kept(module: nn.Module) -> dict[str, Tensor]:
    """What of a module has to survive: the parameters that learn, and the buffers beside them.

    What several of its parts have together is there once, by the first name it has.
    """
    chosen = {k for k, _ in learning(module)} | {k for k, _ in module.named_buffers()}
    return {k: v for k, v in module.state_dict().items() if k in chosen}


class Ema:
    """An exponential moving average of a module's parameters, with constant decay after a short ramp.

    The ramp ``(1 + n) / (10 + n)`` keeps the first random weights from lingering. A decay of 0 averages nothing.
    Buffers, such as the running statistics of batch normalisation, are averages already and stay as they are; those of
    a teacher follow as its parameters do, because statistics of other weights are none of its own.

    Args:
        module: whose parameters that learn are averaged.
        decay: how much of the average stays.
        every: examples between two steps of the average, exactly, whatever the size of batches, and then without a
            ramp: the teacher of Diff-2-in-1 (Zheng et al. 2025). 0: one step an update.
    """

    def __init__(self, module: nn.Module, decay: float, every: int = 0) -> None:
        self.module, self.decay, self.every, self.count = module, decay, every, 0
        self.average = {k: p.detach().clone() for k, p in learning(module)} if decay else {}
        self.beside = {k: b.detach().clone() for k, b in self._buffers()} if decay else {}

    def _buffers(self) -> list[tuple[str, Tensor]]:
        """A teacher's buffers that are averaged, by name: those of real numbers that survive."""
        there = kept(self.module) if self.every else {}
        named = self.module.named_buffers() if self.every else ()
        return [(k, b) for k, b in named if k in there and b.is_floating_point()]

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        """What is averaged, and its average."""
        pairs: list[tuple[Tensor, Tensor]] = [(p, self.average[k]) for k, p in learning(self.module)]
        return pairs + [(b, self.beside[k]) for k, b in self._buffers()]

    @torch.no_grad()
    def update(self, examples: int = 1) -> None:
        """Move the average toward the parameters' present values, after an update from so many examples."""
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
        """Exchange averages and what they are of; call again to undo."""
        for value, average in self._pairs() if self.decay else ():
            held = value.clone()
            value.copy_(average)
            average.copy_(held)

    @torch.no_grad()
    def ema_forward(self, part: nn.Module, shown: tuple[Any, ...]) -> Any:
        """What ``part`` of the module says with the averaged weights, which do not take the place of its own."""
        own = {id(value): average for value, average in self._pairs()}
        # Each tensor of each module by one name: torch, given a module's second name too, does not put the module's
        # own weights back.
        average = {
            f"{prefix}.{k}".lstrip("."): own[id(value)]
            for prefix, module in part.named_modules()
            for found in (module.named_parameters, module.named_buffers)
            for k, value in found(recurse=False, remove_duplicate=False)
            if id(value) in own
        }
        training = {m: m.training for m in part.modules()}
        part.eval()
        try:
            return torch.func.functional_call(part, average, shown, tie_weights=False)
        finally:
            for module, mode in training.items():
                module.training = mode

    @contextmanager
    def ema_scope(self) -> Generator[None]:
        """Inside, the module has the averaged weights and nothing is learned; to be left before what learns begins."""
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
    """All of a run that must survive: step, weights that learn, their average, the optimizer's and the scaler's.

    Args:
        path: file it is kept in.
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
    def kept(self) -> str:
        """Where the last good state is, in words."""
        return f"{self.path} holds the last good state" if self.path.exists() else "nothing was saved yet"

    def save(self, step: int, unfinished: Mapping[str, Any] | None = None) -> None:
        """Write the state after ``step`` steps. A kill at any moment leaves the previous file or this one.

        ``unfinished`` is the record of the last step where its validation is still to come.
        """
        state = {
            "step": step,
            "unfinished": dict(unfinished or {}),
            "weights": kept(self.module),
            "ema": self.ema.average | self.ema.beside,
            "ema_count": self.ema.count,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # An open file: given a path, torch writes by itself, and does not say why it could not.
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
            wanted = kept(self.module)
            if set(wanted) != set(state["weights"]):
                strange = sorted(set(wanted) ^ set(state["weights"]))[0]
                raise ValueError(f"{strange} is in one of the two only")
            self.module.load_state_dict(state["weights"], strict=False)
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            averages: dict[str, Tensor] = state["ema"]
            for name, value in (self.ema.average | self.ema.beside).items():
                value.copy_(averages[name])
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"{self.path} was written by another recipe ({reason}); choose another run folder"
            ) from error
        self.ema.count = int(state["ema_count"])
        return int(state["step"])


class DamagedFileError(ValueError):
    """A file that a run wrote cannot be read. One line: which file, what is wrong, and what to do."""


def read_saved(path: Path, keys: Iterable[str], mmap: bool = False) -> dict[str, Any]:
    """What a file of a run (``state.pt``, ``best.pt``) holds: ``keys``, and perhaps more.

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
        raise _damaged(path, error) from error
    except Exception as error:
        raise _damaged(path, error) from error
    if missing:
        raise _damaged(path, f"it has no {missing[0]!r}")
    return state


def _damaged(path: Path, reason: object) -> DamagedFileError:
    lines = str(reason).splitlines() or [type(reason).__name__]
    return DamagedFileError(
        f"{path} is damaged ({escape(lines[0][:120])}); restore a copy of it, or delete {path.parent} and run the same "
        "command again to train from the start"
    )


def saved_step(path: Path) -> int:
    """The step of a ``state.pt``.

    Raises:
        ValueError: the file is damaged.
    """
    return int(read_saved(path, ("step",), mmap=True)["step"])
