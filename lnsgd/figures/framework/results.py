"""Read what the runs of an arm left on disk."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lnsgd.records.measures import (
    LAYER,
    MEASURE,
    SPLIT,
    STDERR,
    STEP,
    VALUE,
    WHOLE,
    read_measures,
    with_weights_in_names,
)
from lnsgd.records.provenance import LENGTH, read_provenance
from lnsgd.records.replicas import REPLICA, read_replicas
from lnsgd.runs.checkpoints import load_run_checkpoint
from lnsgd.runs.folder import RunFolder
from lnsgd.untrusted.checkpoint import load_safetensors


class Curves(NamedTuple):
    """A measure over training, for every replica.

    Attributes:
        steps: SGD steps taken at each of the T measurements, (T,).
        values: The measured values, (R, T); NaN after a replica has diverged.
        stderrs: Standard errors of the values, (R, T); NaN for exact values.
    """

    steps: np.ndarray
    values: np.ndarray
    stderrs: np.ndarray

    @property
    def last(self) -> np.ndarray:
        """The last values, (R,)."""
        return self.values[:, -1]

    def at(self, step: int) -> np.ndarray:
        """Return the values at the last measurement up to a step, (R,).

        Raises:
            ValueError: nothing was measured up to there.
        """
        before = np.flatnonzero(self.steps <= step)
        if not len(before):
            raise ValueError(f"nothing was measured up to step {step}; the first measurement is at {self.steps[0]}")
        return self.values[:, before[-1]]


def measured(run: RunFolder, measure: str, split: str = "", layer: str | None = None) -> Curves:
    """Read a measure of a run over training: of the layer that is named, or else the first number of the measure.

    That is the number of the whole network if there is one.

    Raises:
        ValueError: the run has no such measurement.
    """
    rows = _rows(run, measure, split)
    rows = rows[rows[LAYER] == (rows[LAYER].iloc[0] if layer is None else layer)]
    if rows.empty:
        raise ValueError(f"{run.measures} has no {measure} on split {split!r}")
    every = range(len(replicas(run)))
    values = rows.pivot(index=REPLICA, columns=STEP, values=VALUE).reindex(every)
    stderrs = rows.pivot(index=REPLICA, columns=STEP, values=STDERR).reindex(every)
    return Curves(values.columns.to_numpy(), values.to_numpy(), stderrs.to_numpy())


def last_by_layer(run: RunFolder, measure: str, split: str = "") -> pd.DataFrame:
    """Read the last values of a measure for all layers or tensors, with a row per replica and a column per layer.

    Numbers of the whole network are left out.

    The columns are in the order of their first measurements, which is that of the forward pass for activation sites.

    Raises:
        ValueError: the run has no such measurement.
    """
    rows = _rows(run, measure, split)
    rows = rows[~rows[LAYER].isin(WHOLE)]
    last = rows[rows[STEP] == rows[STEP].max()].pivot(index=REPLICA, columns=LAYER, values=VALUE)
    return last.reindex(index=range(len(replicas(run))), columns=rows[LAYER].unique())


def _rows(run: RunFolder, measure: str, split: str) -> pd.DataFrame:
    table = with_weights_in_names(read_measures(run.measures))
    rows = table[(table[MEASURE] == measure) & (table[SPLIT] == split)]
    if rows.empty:
        raise ValueError(f"{run.measures} has no {measure} on split {split!r}")
    return rows


def replicas(run: RunFolder) -> pd.DataFrame:
    """Read the settings and ends of the replicas of a run, a row each, with the columns of ``replicas.csv``."""
    return read_replicas(run.replicas).set_index(REPLICA)


def by_setting(run: RunFolder, setting: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Arrange numbers of the replicas of a run by one of their settings, such as ``noise``.

    Args:
        run: The run.
        setting: Name of a column of `replicas`, the only one in which the replicas of a seed differ.
        values: A number for each replica, (R,).

    Returns:
        The L levels of the setting, increasing, (L,), and the values (S, L), a row for each of the S seeds.
    """
    table = replicas(run).assign(value=values).pivot(index="seed", columns=setting, values="value")
    return table.columns.to_numpy(), table.to_numpy()


def weights(run: RunFolder, name: str, initial: bool = False) -> np.ndarray:
    """Read a weight tensor of every replica in float64, (R, …), from the last checkpoint or before the first step.

    Args:
        run: The run.
        name: The tensor's name in the network, such as ``layers.0.weight``.
        initial: Whether to read the weights before the first step.

    Raises:
        ValueError: the network has no such tensor.
    """
    return weights_in(run.init if initial else run.last_checkpoint, name)


def weights_in(path: Path, name: str) -> np.ndarray:
    """Read a weight tensor of every replica in float64, (R, …), from a file of a run.

    Args:
        path: A checkpoint, or the file of the initial weights.
        name: The tensor's name in the network, such as ``layers.0.weight``.

    Raises:
        ValueError: the network has no such tensor.
    """
    tensors = load_safetensors(path) if path.suffix == ".safetensors" else load_run_checkpoint(path)["state_dict"]
    stacked = f"stack.net.{name}"
    if stacked not in tensors:
        named = ", ".join(key.removeprefix("stack.net.") for key in tensors)
        raise ValueError(f"{path} has no weights {name!r}; there are {named}")
    return tensors[stacked].double().numpy()


def weights_over_training(run: RunFolder, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a weight tensor of every replica before the first step and from each checkpoint that was kept.

    Args:
        run: The run.
        name: The tensor's name in the network, see `weights`.

    Returns:
        The T numbers of steps taken, increasing, (T,), and the weights in float64, (T, R, …).

    Raises:
        ValueError: the network has no such tensor.
    """
    found = {0: weights(run, name, initial=True)}
    for path in run.checkpoints.glob("*.ckpt"):
        found[int(load_run_checkpoint(path)["global_step"])] = weights_in(path, name)
    steps = sorted(found)
    return np.array(steps), np.stack([found[step] for step in steps])


def epochs(run: RunFolder, steps: np.ndarray) -> np.ndarray:
    """Convert steps to epochs, for a finished run that was limited by epochs."""
    ended = read_provenance(run.finished, LENGTH)
    assert ended.epochs is not None and ended.steps is not None
    return steps * ended.epochs / ended.steps
