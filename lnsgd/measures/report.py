"""Messages of a long computation to its caller: which method it takes and why, and how far it is."""

import logging
from math import ceil
from time import perf_counter

# Computations that are expected to take longer than this, in seconds, are announced.
LONG = 10.0

# Seconds after which the speed so far tells how long a computation will take.
_TRIAL = 0.5


class Report:
    """Receives what one computation tells. Subclasses override `announce` and `show`.

    By default, announcements go to the logger ``lnsgd.measures``, as warnings if the computation will take longer than
    10 seconds, and progress is not shown.

    Args:
        name: Name of the measure, for announcements.

    Example:
        >>> class Printed(Report):
        ...     def announce(self, what, message, seconds):
        ...         print(message)
        >>> report = Printed("hessian_trace")
        >>> report.choose("method = 'exact' is taken")
        >>> report.progress(100, 100)
        hessian_trace: method = 'exact' is taken; this takes at most 1 s
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._choice: str | None = None
        self._is_announced = False
        self._started = perf_counter()
        self._largest = 0.0

    def choose(self, choice: str) -> None:
        """Take note that a method was chosen that is dearer than others; it is announced with the time it will take."""
        self._choice = choice
        self._started = perf_counter()

    def progress(self, done: float, total: float) -> None:
        """Take note of the progress.

        Args:
            done: Units of work that are done.
            total: The largest number of units that will be done, as far as is known.
        """
        elapsed = perf_counter() - self._started
        expected = elapsed * max(total / done, 1.0)
        if not self._is_announced and (elapsed > _TRIAL or done >= total):
            self._is_announced = True
            self._announce(f"this takes at most {_rounded(expected)}", expected)
        self._largest = max(self._largest, min(done / total, 1.0))
        self.show(self._largest)

    def finish(self) -> None:
        """Take note that the computation is done."""
        if self._choice is not None and not self._is_announced:
            self._is_announced = True
            seconds = perf_counter() - self._started
            self._announce(f"this has taken {_rounded(seconds)}", seconds)

    def _announce(self, duration: str, seconds: float) -> None:
        if self._choice is not None:
            what = f"{self.name}: {self._choice}"
            self.announce(what, f"{what}; {duration}", seconds)
        elif seconds > LONG:
            self.announce(self.name, f"{self.name}: {duration}", seconds)

    def announce(self, what: str, message: str, seconds: float) -> None:
        """Tell the user something, in one line.

        Args:
            what: The line without the duration.
            message: The line.
            seconds: Expected duration of the computation.
        """
        level = logging.WARNING if seconds > LONG else logging.INFO
        logging.getLogger("lnsgd.measures").log(level, message)

    def show(self, fraction: float) -> None:
        """Show which fraction of the work is done; by default nothing is shown."""


def _rounded(seconds: float) -> str:
    if seconds < 90:
        return f"{ceil(seconds)} s"
    return f"{ceil(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
