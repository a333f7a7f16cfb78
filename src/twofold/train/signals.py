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
# Seconds. A launcher forwards a signal that this process already got from the terminal: only a later Ctrl-C counts as
# the second one.
_REPEATED = 2.0


class Interrupted(BaseException):
    """A signal arrived inside `DeferredSignals.raising`. Like KeyboardInterrupt, it is not an `Exception`."""


class DeferredSignals:
    """Defers SIGINT, SIGTERM and SIGHUP between `hold` and `release`; ``pending`` is the number of a deferred one.

    `deliver` raises the pending signal with the previous handler: KeyboardInterrupt for Ctrl-C, the end of the process
    for SIGTERM unless the program has a handler. A second Ctrl-C, two seconds or more after the first, is not deferred.
    Ignored signals stay ignored. Outside the main thread, which signals do not interrupt, nothing is deferred.
    """

    def __init__(self) -> None:
        self.pending = 0
        self._since = 0.0
        self._raises = False
        self._before: dict[int, Any] = {}

    def hold(self) -> None:
        """Start to defer signals."""
        if self._before or threading.current_thread() is not threading.main_thread():
            return
        for number in _NUMBERS:
            before = signal.getsignal(number)
            if before is not None and before != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._receive)

    def release(self) -> None:
        """Restore the previous handlers; a pending signal stays pending."""
        while self._before:
            signal.signal(*self._before.popitem())

    def deliver(self) -> None:
        """Restore the previous handlers and raise the pending signal, if there is one."""
        self.release()
        number, self.pending = self.pending, 0
        if number:
            signal.raise_signal(number)

    @contextmanager
    def raising(self) -> Generator[None]:
        """A context in which a deferred signal, pending or new, raises `Interrupted` at once.

        For long work that is repeated after a resume and does not change the saved state: validation.
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
