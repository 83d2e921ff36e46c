"""Keeps measuring to a part of the training time."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from pytorch_lightning.utilities import rank_zero_info


class Overhead:
    """Time spent on measuring against time spent on training.

    Args:
        name: Who measures, for the message.
        limit: Largest part of the training time; ``None`` for no limit.

    Raises:
        ValueError: a limit that is not positive.
    """

    def __init__(self, name: str, limit: float | None) -> None:
        if limit is not None and not limit > 0:
            raise ValueError(
                f"{name}: max_overhead = {limit}; give a part of the training time > 0, or null for no limit"
            )
        self.name = name
        self.limit = limit
        self._started = perf_counter()
        self._measured = 0.0
        self._said = False

    def start(self) -> None:
        """Training starts, or goes on after a restart: both clocks at zero."""
        self._started, self._measured = perf_counter(), 0.0

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Counts what happens within as measuring."""
        begun = perf_counter()
        try:
            yield
        finally:
            self._measured += perf_counter() - begun

    def affordable(self) -> bool:
        """Whether the limit is kept so far; says so the first time that it is not."""
        training = perf_counter() - self._started - self._measured
        if self.limit is None or self._measured <= self.limit * training:
            return True
        if not self._said:
            self._said = True
            rank_zero_info(
                f"{self.name} has taken {self._measured:.2g} s of {training:.2g} s of training, more than "
                f"max_overhead = {self.limit:g} allows: it is measured less often from here on"
            )
        return False
