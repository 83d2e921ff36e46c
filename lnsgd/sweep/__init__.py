"""Sweeps: from a grid to cells, packed jobs, and one table.

`load` and `load_trajectories` give what a sweep has found so far.
"""

from lnsgd.sweep.table import load, load_trajectories

__all__ = ["load", "load_trajectories"]
