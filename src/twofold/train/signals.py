"""Interrupts during training: delivered between two steps, after the state has been saved."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_LOG = logging.getLogger(__name__)
# Ctrl-C; `kill`, batch systems and torchrun; a terminal that closes (not on Windows).
_NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
# A launcher passes on what its terminal has sent to this process already; only a later Ctrl-C is a second one.
_REPEATED = 2.0


class Interrupted(BaseException):
    """A signal arrived inside `DeferredSignals.raising`. Like KeyboardInterrupt, no handler of errors takes it."""


class DeferredSignals:
    """Between `hold` and `release`, SIGINT, SIGTERM and SIGHUP only become ``pending``.

    `deliver` then raises the pending signal with the handler that was there before: KeyboardInterrupt for Ctrl-C, the
    end of the process for SIGTERM unless the program has a handler. A second Ctrl-C, two seconds or more after the
    first, is not deferred. Signals that are ignored stay ignored. In threads other than the main one, which no signal
    interrupts, nothing is held.
    """

    def __init__(self) -> None:
        self.pending = 0
        self._since = 0.0
        self._raises = False
        self._before: dict[int, Any] = {}

    def hold(self) -> None:
        """Defer signals from here on."""
        if self._before or threading.current_thread() is not threading.main_thread():
            return
        for number in _NUMBERS:
            before = signal.getsignal(number)
            if before is not None and before != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._receive)

    def release(self) -> None:
        """Put the previous handlers back; what is pending stays so."""
        while self._before:
            signal.signal(*self._before.popitem())

    def deliver(self) -> None:
        """Raise the pending signal, if there is one."""
        self.release()
        number, self.pending = self.pending, 0
        if number:
            signal.raise_signal(number)

    @contextmanager
    def raising(self) -> Generator[None]:
        """Inside, a held signal that is pending or arrives raises `Interrupted` at once.

        For what takes long, is repeated after a resume and changes nothing that is saved: validation.
        """
        if self.pending:
            raise Interrupted
        self._raises = bool(self._before)
        try:
            yield
        finally:
            self._raises = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._raises:
            self.pending, self._raises = number, False
            raise Interrupted
        now = time.monotonic()
        if not self.pending:
            self.pending, self._since = number, now
            _LOG.warning(
                "%s: this step is finished and the state saved; Ctrl-C again ends at once",
                signal.Signals(number).name,
            )
        elif number == signal.SIGINT and now - self._since >= _REPEATED:
            self.pending = number
            self.deliver()
