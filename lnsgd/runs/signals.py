"""Signals that ask a run to stop are noted, so that the run can stop where it can be resumed."""

import multiprocessing
import os
import signal
import threading
from types import FrameType

STOP_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)

# The exit code that shells give to a command that Ctrl-C has ended.
INTERRUPTED = 128 + signal.SIGINT


class StopSignals:
    """A context in which signals that ask to stop are noted; earlier handlers are restored after it.

    SIGUSR1, SIGUSR2 and SIGTERM are only noted. The first Ctrl-C (SIGINT) is noted and reported in a line; the second
    ends the process at once, with code 130; a third, in case that this takes too long, kills it. If SIGINT is ignored,
    as in a command that a shell runs in the background, it stays ignored.

    The context may be entered again while it is entered. Only a main thread gets signals; in other threads none is
    noted.

    Attributes:
        received: The first signal that was noted, or ``None``.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}
        self._entered = self._interruptions = 0

    def __enter__(self) -> "StopSignals":
        self._entered += 1
        if self._entered == 1 and threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGINT)}
            self._before = {number: found for number, found in handlers.items() if not _is_ignored(number, found)}
            self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self._entered -= 1
        if self._entered == 0:
            for number, handler in self._before.items():
                signal.signal(number, handler)  # type: ignore[arg-type]
            self._before = {}

    def listen(self) -> None:
        """Install the handlers again, if other code has replaced them."""
        for number in self._before:
            signal.signal(number, self._note)

    def leave_interruptions(self) -> None:
        """Restore the earlier effect of Ctrl-C if nothing would stop for it, also for one that was already noted."""
        if (handler := self._before.pop(signal.SIGINT, None)) is not None:
            signal.signal(signal.SIGINT, handler)  # type: ignore[arg-type]
            if self._interruptions:
                signal.raise_signal(signal.SIGINT)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            self._interrupt()
        self.received = self.received or signal.Signals(number)

    def _interrupt(self) -> None:
        self._interruptions += 1
        if self._interruptions > 1:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            raise SystemExit(INTERRUPTED)
        # Not by print, because the signal may have interrupted another print.
        if multiprocessing.parent_process() is None and os.environ.get("LOCAL_RANK", "0") == "0":
            line = b"\nlnsgd: stopping after this batch, with a checkpoint; press Ctrl-C again to stop at once\n"
            os.write(2, line)


def _is_ignored(number: int, handler: object) -> bool:
    return number == signal.SIGINT and handler is signal.SIG_IGN
