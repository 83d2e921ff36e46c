"""Schedules: plain functions ``step -> bool`` that say at which steps something happens."""

from collections.abc import Callable, Collection

Schedule = Callable[[int], bool]


def every(n: int) -> Schedule:
    """True at n, 2n, 3n and so on.

    Raises:
        ValueError: n below 1.
    """
    if n < 1:
        raise ValueError(f"every {n} steps or epochs; give an integer >= 1")
    return lambda step: step > 0 and step % n == 0


def at(steps: Collection[int]) -> Schedule:
    """True at the given steps."""
    chosen = frozenset(steps)
    return lambda step: step in chosen


def log_spaced(per_decade: int) -> Schedule:
    """True at 10^(k/per_decade), k = 0, 1, …, rounded: for 3 per decade at 1, 2, 5, 10, 22, 46, 100 and so on.

    Raises:
        ValueError: ``per_decade`` below 1.
    """
    if per_decade < 1:
        raise ValueError(f"log_spaced = {per_decade}; give the number of measurements per decade, >= 1")

    def due(step: int) -> bool:
        if step < 1:
            return False
        k = 0
        while (point := round(10 ** (k / per_decade))) < step:
            k += 1
        return point == step

    return due
