"""Handmade folders of runs and sweeps, with the files that figures read."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from lnsgd.records.cells import COLUMNS
from lnsgd.records.claims import Claim
from lnsgd.records.verdicts import DETERMINISTIC
from lnsgd.runs.folder import RunFolder
from lnsgd.sweep.folder import SweepFolder

# A measured number: measure, split, layer.
Name = tuple[str, str, str]


def handmade(
    folder: Path,
    steps: Sequence[int],
    curves: Mapping[Name, np.ndarray],
    settings: Sequence[Mapping[str, float]] | None = None,
    config: Mapping[str, Any] | None = None,
) -> RunFolder:
    """Write a finished run.

    Args:
        folder: The run's folder.
        steps: Steps of the measurements, (T,).
        curves: Measured numbers, (R, T) each.
        settings: Settings of each of the R replicas; by default only seeds.
        config: The resolved config, if the figure reads it.
    """
    run = RunFolder(folder)
    folder.mkdir(parents=True)
    number = len(next(iter(curves.values())))
    empty = {"noise": None, "lr": None, "subset": None, "diverged_at": None}
    replicas = [{"seed": i, **empty, **(settings[i] if settings else {})} for i in range(number)]
    pd.DataFrame(replicas).rename_axis("replica").to_csv(run.replicas)
    rows = [
        {
            **{"step": step, "epoch": 0, "replica": replica, "split": split, "measure": measure, "layer": layer},
            **{"value": float(values[replica, t]), "stderr": float("nan")},
        }
        for (measure, split, layer), values in curves.items()
        for replica in range(number)
        for t, step in enumerate(steps)
    ]
    pd.DataFrame(rows).to_parquet(run.measures)
    run.finished.write_text(json.dumps({"seconds": 1.0, "steps": int(steps[-1])}))
    if config is not None:
        run.config.write_text(yaml.safe_dump(config))
    return run


def handmade_sweep(
    folder: Path,
    cells: Sequence[tuple[Mapping[str, Any], Mapping[str, float]]],
    statuses: Mapping[int, str] | None = None,
    trajectories: Sequence[tuple[int, int, str, str, str, float]] = (),
) -> RunFolder:
    """Write the folder of a finished sweep.

    Args:
        folder: The folder.
        cells: Options and final measures of each cell.
        statuses: Status of each cell that is not done, by its number.
        trajectories: Number of a cell, step, split, measure, layer and value of each measurement.
    """
    sweep = SweepFolder(folder)
    sweep.planned.parent.mkdir(parents=True, exist_ok=True)
    options = [json.dumps(dict(chosen)) for chosen, _ in cells]
    planned = pd.DataFrame({"cell": [f"cell{i}" for i in range(len(cells))], "options": options})
    planned.to_parquet(sweep.planned)
    always = {**dict.fromkeys(COLUMNS), "steps": 10, "seconds": 0.5, "device": "abacus", "torch": "2.0", "job": "one"}
    rows = [{**always, "status": (statuses or {}).get(i, "done"), **measures} for i, (_, measures) in enumerate(cells)]
    sweep.result("one").parent.mkdir(parents=True)
    pd.concat([planned, pd.DataFrame(rows).astype(COLUMNS)], axis=1).to_parquet(sweep.result("one"))
    names = ["cell", "step", "split", "measure", "layer", "value"]
    table = pd.DataFrame(trajectories, columns=names).assign(epoch=0, stderr=float("nan"))
    table["cell"] = [f"cell{number}" for number in table.cell]
    sweep.trajectories("one").parent.mkdir(parents=True)
    table.to_parquet(sweep.trajectories("one"))
    ended = {"seconds": 4.5, "jobs": 3, "jobs_at_once": 2, "device": "abacus", "versions": {"torch": "2.0"}}
    run = RunFolder(folder)
    run.finished.write_text(json.dumps(ended))
    return run


def within_bounds(claim: Claim) -> bool:
    """Whether the mean of a claim lies within its bounds, and every value of a deterministic claim.

    Tests of figures have a few handmade seeds, which leave many verdicts undecided; verdicts have tests of their own.
    """
    if claim.statistic == DETERMINISTIC:
        return claim.holds
    lowest, highest = -math.inf if claim.low is None else claim.low, math.inf if claim.high is None else claim.high
    return lowest <= claim.measured <= highest
