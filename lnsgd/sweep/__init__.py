"""Sweeps: from a grid to cells, packed jobs, and one table.

`load` and `load_trajectories` return what a sweep has found so far; `over_seeds` averages it; `changed_runs` says which
runs were resumed with other options.
"""

import lazy_loader

# ``__init__.pyi`` names what the room offers; it is imported when it is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
