"""Cells of handmade sweeps in which r follows a power law exactly."""

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

Cell = tuple[dict[str, Any], dict[str, float]]


def law(hidden: int, m: int, of_hidden: float, of_m: float, factor: float = 1.0) -> float:
    """Return r = factor · H^of_hidden · m^of_m."""
    return factor * hidden**of_hidden * m**of_m


def cell(hidden: int, m: int, seed: int, r: float, options: Mapping[str, Any] | None = None, **more: float) -> Cell:
    """Make a cell of options and final measures."""
    chosen = {
        "model.net.widths": [784, *[hidden] * 4, 10],
        "data.subset": m,
        **(options or {}),
        "seed_everything": seed,
    }
    return chosen, {"distance_from_init": r, "error/test": 0.25, **more}


def grid(
    of_hidden: float, of_m: float, hidden: Iterable[int] = (40, 80, 160), examples: Iterable[int] = (64, 256, 1024)
) -> list[Cell]:
    """Make three seeds of each H and m, which differ only in the factor."""
    return [
        cell(h, m, seed, law(h, m, of_hidden, of_m, 1 + seed / 10))
        for h, m, seed in product(hidden, examples, range(3))
    ]
