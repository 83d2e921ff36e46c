"""Signals that ask a run to stop: noted, so that it can stop at a place from which it can go on."""

import signal
import threading
from types import FrameType

STOP_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)


class StopSignals:
    """A context in which `STOP_SIGNALS` are noted and have no other effect; the handlers before it come back after it.

    It may be entered again while it is entered. Only a main thread gets signals: elsewhere nothing is ever noted.

    Attributes:
        received: The first signal that came, if one did.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}
        self._entered = 0

    def __enter__(self) -> "StopSignals":
        self._entered += 1
        if self._entered == 1 and threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
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

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number)
