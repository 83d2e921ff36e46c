"""Signals that ask a run to stop: noted, so that it can stop at a place from which it can go on."""

import multiprocessing
import os
import signal
import threading
from types import FrameType

STOP_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)

# What shells say of a command that Ctrl-C has ended.
INTERRUPTED = 128 + signal.SIGINT


class StopSignals:
    """A context in which signals that ask to stop are noted; the handlers before it come back after it.

    SIGUSR1, SIGUSR2 and SIGTERM have no other effect. So has Ctrl-C, SIGINT, when it comes for the first time, but for
    a line that says so; the second time it ends the process at once, with code 130, and should that take too long, the
    third time it kills it. Where SIGINT is ignored, as in a command that a shell runs in the background, it stays so.

    The context may be entered again while it is entered. Only a main thread gets signals: elsewhere nothing is ever
    noted.

    Attributes:
        received: The first signal that came, if one did.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}
        self._entered = self._interruptions = 0

    def __enter__(self) -> "StopSignals":
        self._entered += 1
        if self._entered == 1 and threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGINT)}
            self._before = {number: found for number, found in handlers.items() if _is_heard(number, found)}
            self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self._entered -= 1
        if self._entered == 0:
            for number, handler in self._before.items():
                signal.signal(number, handler)  # type: ignore[arg-type]
            self._before = {}

    def listen(self) -> None:
        """Takes the signals back from whoever has set handlers since."""
        for number in self._before:
            signal.signal(number, self._note)

    def leave_interruptions(self) -> None:
        """Lets Ctrl-C do again what it did before, where nobody would stop for it; also one that has come already."""
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
        # Not by print: the signal may have come in the middle of another one.
        if multiprocessing.parent_process() is None and os.environ.get("LOCAL_RANK", "0") == "0":
            line = b"\nlnsgd: stopping after this batch, with a checkpoint; Ctrl-C once more stops at once\n"
            os.write(2, line)


def _is_heard(number: int, handler: object) -> bool:
    return number != signal.SIGINT or handler is not signal.SIG_IGN
