"""Run folders written by hand: what a figure reads, without training."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lnsgd.run_folder import RunFolder

# A measured number: measure, split, layer.
Name = tuple[str, str, str]


def handmade(
    folder: Path,
    steps: Sequence[int],
    curves: Mapping[Name, np.ndarray],
    settings: Sequence[Mapping[str, float]] | None = None,
) -> RunFolder:
    """A finished run with these curves (R, T) and, for each of the R replicas, its settings; by default only seeds."""
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
    return run
