from .results import changed_runs as changed_runs
from .table import load as load
from .table import load_trajectories as load_trajectories
from .table import over_seeds as over_seeds
