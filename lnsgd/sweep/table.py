"""The table of a sweep as a data frame, every number that was measured, and averages over seeds."""

from pathlib import Path
from typing import Any

import pandas as pd

from lnsgd.records.cells import CELL, COLUMNS, JOB, option_names, read_planned, read_trajectories
from lnsgd.sweep.averages import average_over_seeds
from lnsgd.sweep.results import load_columns, planned_sweep, read_results


def load(folder: str | Path) -> pd.DataFrame:
    """Load the table of a sweep, at any time: one row for each cell, in the order of the grid.

    Columns are ``cell`` (the hash of its resolved config), its options by their names, ``status``, ``reason``,
    ``steps``, ``epochs``, ``seconds``, ``device``, versions of ``lnsgd`` and ``torch``, ``attempts``, ``job``, and the
    final measures as ``measure/split/layer``, with ``…/stderr`` if there is a standard error. The status is ``done``,
    ``limit`` (the limit of steps came before a stopping rule), ``diverged`` or ``failed``; without a result it is
    ``running`` or ``missing``. The ``seconds`` of a replica are those of its job divided by the number of replicas.

    Args:
        folder: Folder of the sweep, such as ``runs/sweeps/mnist-noise``.

    Raises:
        ValueError: The folder does not hold a sweep.
    """
    columns = load_columns(folder)
    options = option_names(columns)
    kinds = {name: COLUMNS.get(name, "float64") for name in columns if name not in (CELL, *options)}
    return pd.DataFrame({name: _inferred(values) for name, values in columns.items()}).astype(kinds)


def _inferred(values: list[Any]) -> "pd.Series[Any]":
    """Return values of one kind as a column of that kind, and others, such as lists, as they are."""
    return pd.Series(values, dtype=object).infer_objects()


def load_trajectories(folder: str | Path) -> pd.DataFrame:
    """Load every number that a sweep has measured so far: cell, step, epoch, split, measure, layer, value, stderr.

    Args:
        folder: Folder of the sweep, such as ``runs/sweeps/mnist-noise``.

    Raises:
        ValueError: The folder does not hold a sweep.
    """
    sweep = planned_sweep(folder)
    rows, _ = read_results(sweep, read_planned(sweep.planned))
    by_job: dict[str, list[str]] = {}
    for cell, row in rows.items():
        by_job.setdefault(str(row[JOB]), []).append(cell)
    jobs = [(sweep.trajectories(Path(job).name), cells) for job, cells in sorted(by_job.items())]
    return read_trajectories([(path, cells) for path, cells in jobs if path.exists()])  # a failed job has none


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Compute mean and standard deviation of the final measures over seeds.

    Args:
        table: The data frame that `load` returns.

    Returns:
        One row for each cell of the grid without its seed, in the order of the grid, with the columns: its options;
        ``status``, such as ``2 done, 1 diverged``; ``n``, the number of trained networks (``done`` or ``limit``) that
        are averaged; and for each measure the mean and, as ``…/std``, the sample standard deviation (n − 1), which is
        NaN for n < 2. Both are NaN if the measure of one of these networks is NaN.
    """
    return pd.DataFrame(average_over_seeds({str(name): list(table[name]) for name in table}))
