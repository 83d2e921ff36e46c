"""How many SGD steps a training step of the Trainer takes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

# A training step of about this length is short enough for a progress bar, and so long that the time that Lightning
# takes between two of them does not matter.
_SECONDS = 0.25
_FIRST_STEPS = 100


class CallLength:
    """Number of SGD steps in a training step of the Trainer: a given number, or as many as take a quarter of a second.

    Args:
        steps: The number; ``None`` to measure how long a step takes.
    """

    def __init__(self, steps: int | None) -> None:
        self._given = steps
        self._seconds_per_step: float | None = None

    @property
    def steps(self) -> int:
        """Number of SGD steps in the next training step."""
        if self._given is not None:
            return self._given
        if self._seconds_per_step is None:
            return _FIRST_STEPS
        return max(1, round(_SECONDS / self._seconds_per_step))

    @contextmanager
    def timing(self, steps: int) -> Iterator[None]:
        """Measure how long some steps take.

        Args:
            steps: Number of SGD steps taken inside.
        """
        started = time.perf_counter()
        yield
        self._seconds_per_step = (time.perf_counter() - started) / steps
