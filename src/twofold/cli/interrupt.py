"""Handles interrupts of commands: Ctrl-C, SIGTERM, and SIGHUP of a closed terminal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from twofold.cli.console import INTERRUPTED, CommandError


@contextmanager
def signals_as_interrupts() -> Generator[None]:
    """Context in which SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does, unless they are ignored (nohup)."""
    names = ("SIGTERM", "SIGHUP") if threading.current_thread() is threading.main_thread() else ()
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) == signal.SIG_DFL}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def report_saved(run: Path) -> Generator[None]:
    """Context for training in the folder ``run``, which reports the saved step after an interrupt.

    Raises:
        CommandError: training was interrupted; the exit code is 130.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        raise CommandError(f"interrupted; {_saved(run)}", INTERRUPTED) from error


def _saved(run: Path) -> str:
    from twofold.train.state import saved_step

    # States of the run, of the warm-up of a smoke test, and of rounds of self-improvement.
    states = [p for pattern in ("state.pt", "*/state.pt", "*/training/state.pt") for p in run.glob(pattern)]
    if not states:
        return "no step of the training is saved yet; run the same command again to start it again"
    newest = max(states, key=lambda p: p.stat().st_mtime)
    try:
        step = saved_step(newest)
    except (ValueError, OSError) as error:
        return str(error)
    return f"the state after step {step} is saved in {newest}; run the same command again to continue"
