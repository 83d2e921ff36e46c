"""Reads what the runs of an arm left on disk."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lnsgd.checkpoints import load_run_checkpoint
from lnsgd.run_folder import RunFolder
from lnsgd.untrusted.checkpoint import load_safetensors
from lnsgd.untrusted.tables import naming, read_parquet, read_record
from lnsgd.untrusted.texts import load_yaml


class Curves(NamedTuple):
    """A measured number over training, of every replica.

    Attributes:
        steps: SGD steps taken at each of the T measurements, (T,).
        values: (R, T); NaN from where a replica has diverged.
        stderrs: Their standard errors, (R, T); NaN where the number is exact.
    """

    steps: np.ndarray
    values: np.ndarray
    stderrs: np.ndarray

    @property
    def last(self) -> np.ndarray:
        """The last values, (R,)."""
        return self.values[:, -1]

    def at(self, step: int) -> np.ndarray:
        """The values at the last measurement up to a step, (R,).

        Raises:
            ValueError: nothing was measured up to there.
        """
        before = np.flatnonzero(self.steps <= step)
        if not len(before):
            raise ValueError(f"nothing was measured up to step {step}; the first measurement is at {self.steps[0]}")
        return self.values[:, before[-1]]


def measured(run: RunFolder, measure: str, split: str = "", layer: str | None = None) -> Curves:
    """A measure of a run over training; the first layer that has it where none is named.

    Raises:
        ValueError: the run has no such measurement.
    """
    rows = _rows(run, measure, split)
    rows = rows[rows["layer"] == (rows["layer"].iloc[0] if layer is None else layer)]
    if rows.empty:
        raise ValueError(f"{run.measures} has no {measure} on split {split!r}")
    every = range(len(replicas(run)))
    values = rows.pivot(index="replica", columns="step", values="value").reindex(every)
    stderrs = rows.pivot(index="replica", columns="step", values="stderr").reindex(every)
    return Curves(values.columns.to_numpy(), values.to_numpy(), stderrs.to_numpy())


def last_by_layer(run: RunFolder, measure: str, split: str = "") -> pd.DataFrame:
    """The last values of a measure for all layers or tensors: a row per replica, a column per layer.

    The columns are in the order in which they were measured first; of activation sites, that of the forward pass.

    Raises:
        ValueError: the run has no such measurement.
    """
    rows = _rows(run, measure, split)
    last = rows[rows["step"] == rows["step"].max()].pivot(index="replica", columns="layer", values="value")
    return last.reindex(index=range(len(replicas(run))), columns=rows["layer"].unique())


def _rows(run: RunFolder, measure: str, split: str) -> pd.DataFrame:
    table = read_parquet(run.measures)
    rows = table[(table["measure"] == measure) & (table["split"] == split)]
    if rows.empty:
        raise ValueError(f"{run.measures} has no {measure} on split {split!r}")
    return rows


def replicas(run: RunFolder) -> pd.DataFrame:
    """Settings and ends of the replicas of a run, a row each; its columns are those of ``replicas.csv``."""
    with naming(run.replicas):
        return pd.read_csv(run.replicas, index_col="replica")


def config(run: RunFolder) -> dict[str, Any]:
    """The resolved config of a run, as nested dictionaries."""
    with naming(run.config):
        return dict(load_yaml(run.config))


def by_setting(run: RunFolder, setting: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the replicas of a run by one of their settings, such as ``noise``.

    Args:
        run: The run.
        setting: Name of a column of `replicas`, in which the replicas of each seed differ and nothing else does.
        values: A number for each replica, (R,).

    Returns:
        The L levels of the setting, increasing, (L,), and the values (S, L), a row for each of the S seeds.
    """
    table = replicas(run).assign(value=values).pivot(index="seed", columns=setting, values="value")
    return table.columns.to_numpy(), table.to_numpy()


def weights(run: RunFolder, name: str, initial: bool = False) -> np.ndarray:
    """A tensor of the weights of every replica, (R, …), in float64: at the last checkpoint, or before the first step.

    Args:
        run: The run.
        name: The tensor's name in the network, such as ``layers.0.weight``.
        initial: Before the first step.

    Raises:
        ValueError: the network has no such tensor.
    """
    tensors = load_safetensors(run.init) if initial else load_run_checkpoint(run.last_checkpoint)["state_dict"]
    stacked = f"stack.net.{name}"
    if stacked not in tensors:
        named = ", ".join(key.removeprefix("stack.net.") for key in tensors)
        raise ValueError(f"{run.path} has no weights {name!r}; there are {named}")
    return tensors[stacked].double().numpy()


def epochs(run: RunFolder, steps: np.ndarray) -> np.ndarray:
    """Numbers of steps in epochs of a finished run that was limited by epochs."""
    ended = read_record(run.finished, {"steps": int, "epochs": (int, float)})
    return steps * ended["epochs"] / ended["steps"]


def seconds(run: RunFolder) -> float:
    """How long a run was trained, measuring included."""
    return float(read_record(run.finished, {"seconds": (int, float)})["seconds"])
