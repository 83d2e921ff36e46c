"""Sweeps: from a grid to cells, packed jobs, and one table.

`load` and `load_trajectories` give what a sweep has found so far, `over_seeds` averages it.
"""

from lnsgd.sweep.seeds import over_seeds
from lnsgd.sweep.table import load, load_trajectories

__all__ = ["load", "load_trajectories", "over_seeds"]
