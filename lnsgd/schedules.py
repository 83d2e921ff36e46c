"""Schedules: at which steps something happens.

A schedule is a function ``step -> bool`` that can also say when it is due next, so that many steps
may be taken at once without passing one by.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Collection
from math import floor, log10


class Schedule(ABC):
    """When something happens, in steps or epochs taken so far."""

    @abstractmethod
    def next_after(self, step: int) -> int | None:
        """The first due step after a step ≥ −1; ``None`` where there is none."""

    def __call__(self, step: int) -> bool:
        """Whether a step is due."""
        return self.next_after(step - 1) == step


class every(Schedule):  # noqa: N801  (read as a phrase: every(100))
    """Due at n, 2n, 3n and so on.

    Args:
        n: In steps or epochs, at least 1.

    Raises:
        ValueError: n below 1.
    """

    def __init__(self, n: int) -> None:
        if n < 1:
            raise ValueError(f"every {n} steps or epochs; give an integer >= 1")
        self.n = n

    def next_after(self, step: int) -> int:
        """The next multiple of n."""
        return max(step // self.n + 1, 1) * self.n


class at(Schedule):  # noqa: N801
    """Due at the given steps.

    Args:
        steps: In steps or epochs, in any order.
    """

    def __init__(self, steps: Collection[int]) -> None:
        self.steps = sorted(set(steps))

    def next_after(self, step: int) -> int | None:
        """The next of the given steps."""
        place = bisect_right(self.steps, step)
        return self.steps[place] if place < len(self.steps) else None


class log_spaced(Schedule):  # noqa: N801
    """Due at 10^(k/per_decade), k = 0, 1, …, rounded: for 3 per decade at 1, 2, 5, 10, 22, 46, 100 and so on.

    Args:
        per_decade: How many between a step and its tenfold, at least 1.

    Raises:
        ValueError: ``per_decade`` below 1.
    """

    def __init__(self, per_decade: int) -> None:
        if per_decade < 1:
            raise ValueError(f"log_spaced = {per_decade}; give the number of measurements per decade, >= 1")
        self.per_decade = per_decade

    def next_after(self, step: int) -> int:
        """The next rounded power."""
        k = max(0, floor(self.per_decade * log10(max(step, 1))) - 1)
        while (point := round(10 ** (k / self.per_decade))) <= step:
            k += 1
        return point
