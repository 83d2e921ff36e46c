"""Schedules: at which steps something happens.

A schedule is a function ``step -> bool`` that can also say when it is due next, so that many steps can be taken at once
without missing a due step.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Collection
from math import floor, log10


class Schedule(ABC):
    """Interface of a schedule, in steps or epochs taken so far."""

    @abstractmethod
    def next_after(self, step: int) -> int | None:
        """Return the first due step after a step ≥ −1; ``None`` if there is none."""

    def __call__(self, step: int) -> bool:
        """Say whether a step is due."""
        return self.next_after(step - 1) == step

    def is_passed(self, before: int, step: int) -> bool:
        """Say whether a step is due after ``before`` and no later than ``step``.

        The counter of steps need not grow by one: it grows by two where two optimizers take a step each.

        Args:
            before: A step ≥ −1, at which the schedule was asked last.
            step: The present step.

        Example:
            >>> every(3).is_passed(2, 4), every(3).is_passed(4, 5)
            (True, False)
        """
        due = self.next_after(before)
        return due is not None and due <= step


class every(Schedule):  # noqa: N801  (read as a phrase: every(100))
    """A schedule that is due at n, 2n, 3n and so on.

    Args:
        n: Number of steps or epochs, at least 1.

    Raises:
        ValueError: n below 1.

    Example:
        >>> [step for step in range(10) if every(3)(step)]
        [3, 6, 9]
    """

    def __init__(self, n: int) -> None:
        if n < 1:
            raise ValueError(f"every {n} steps or epochs; give an integer >= 1")
        self.n = n

    def next_after(self, step: int) -> int:
        """Return the next multiple of n."""
        return max(step // self.n + 1, 1) * self.n


class at(Schedule):  # noqa: N801
    """A schedule that is due at the given steps.

    Args:
        steps: Steps or epochs, in any order.

    Example:
        >>> at([5, 2]).next_after(2)
        5
    """

    def __init__(self, steps: Collection[int]) -> None:
        self.steps = sorted(set(steps))

    def next_after(self, step: int) -> int | None:
        """Return the next of the given steps."""
        place = bisect_right(self.steps, step)
        return self.steps[place] if place < len(self.steps) else None


class log_spaced(Schedule):  # noqa: N801
    """A schedule that is due at 10^(k/per_decade), k = 0, 1, …, rounded.

    Args:
        per_decade: Number of due steps between a step and ten times that step, at least 1.

    Raises:
        ValueError: ``per_decade`` below 1.

    Example:
        >>> [step for step in range(101) if log_spaced(3)(step)]
        [1, 2, 5, 10, 22, 46, 100]
    """

    def __init__(self, per_decade: int) -> None:
        if per_decade < 1:
            raise ValueError(f"log_spaced = {per_decade}; give the number of measurements per decade, >= 1")
        self.per_decade = per_decade

    def next_after(self, step: int) -> int:
        """Return the next rounded power."""
        k = max(0, floor(self.per_decade * log10(max(step, 1))) - 1)
        while (point := round(10 ** (k / self.per_decade))) <= step:
            k += 1
        return point
