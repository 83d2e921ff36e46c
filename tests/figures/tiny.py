"""Figures that train for a few steps or compute little, and handmade run folders."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from lnsgd.figures.framework.claims import CONTROL, Claim, judge
from lnsgd.figures.framework.figure import Figure, Runs, Scale
from lnsgd.figures.framework.results import measured
from lnsgd.figures.framework.runner import run_figure
from lnsgd.figures.framework.statements import Statement
from lnsgd.runs.folder import RunFolder

# Two epochs of 24 steps.
CONFIG = """\
model:
  class_path: lnsgd.modules.Classifier
  init_args:
    net: {class_path: lnsgd.models.MLP, init_args: {widths: [6, 8, 1]}}
    loss: lnsgd.losses.LogisticLoss
    label_noise: {class_path: lnsgd.label_noise.UniformNoise, init_args: {p: 0.9}}
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1}}
data: {class_path: lnsgd.data.Hypercube, init_args: {dimension: 6, test_size: 50}}
replicas: {seeds: 1}
trainer:
  accelerator: cpu
  max_epochs: 2
  enable_progress_bar: false
  callbacks:
    - {class_path: lnsgd.callbacks.ActiveNeurons, init_args: {every_n_steps: 12, splits: [train]}}
"""

STATEMENT = Statement("smith/some", "Smith", "Fig. 0", "some neurons fire")

ARMS = {"p = 0": ["--model.label_noise.p", "0"], "p = 0.5": ["--model.label_noise.p", "0.5"]}
FOLDERS = ["p_0", "p_0.5"]
STEPS = [0, 12, 24, 36, 48]


def claims(runs: Runs) -> list[Claim]:
    """Judge a claim that holds and one that does not, for any runs."""
    active = measured(runs["p = 0"], "active_count", "train").last.tolist()
    return [
        judge("some", "some fire", STATEMENT, paper="some", measured=np.add(100, active), low=0.01),
        judge("none", "none fires", CONTROL, source="Fig. 0", paper=0.0, measured=np.add(100, active), high=0.0),
    ]


def figure(folder: Path, **changes: Any) -> Figure:
    """Make the figure, with its config in a folder of the test."""
    config = folder / "tiny.yaml"
    config.write_text(CONFIG)
    settings = {
        "name": "tiny",
        "title": "Nothing much",
        "config": str(config),  # absolute, so not below configs/
        "scales": {
            "ci": Scale(seeds=2),
            "paper": Scale(seeds=3, options=["--model.optimizer.lr", "0.2"]),
            "arm": Scale(seeds=2, options=["--data.test_size", "40"], arms={"p = 0.5": ["--data.test_size", "30"]}),
        },
        "arms": ARMS,
        "table": lambda runs: Table(f"table of {len(runs)} arms"),
        "claims": claims,
        "draw": lambda runs: matplotlib.figure.Figure(),
    }
    return Figure(**{**settings, **changes})


def figure_seed_by_seed(folder: Path, **changes: Any) -> Figure:
    """Make the figure with a separate run for each seed."""
    made = figure(folder, replicated=False, **changes)
    made.config_path("p = 0").write_text(CONFIG.replace("replicas: {seeds: 1}\n", ""))
    return made


def run(figure: Figure, out: Path, scale: str = "ci", seeds: int = 2) -> dict[str, RunFolder]:
    """Call `run_figure` without output."""
    return run_figure(figure, scale, seeds, out, Console(file=io.StringIO()))


def computed_figure(**changes: Any) -> Figure:
    """Make a figure that is computed: the squares of three numbers that depend on the seed."""
    settings = {
        "name": "computed",
        "title": "Squares",
        "scales": {"ci": Scale(seeds=2), "paper": Scale(seeds=4)},
        "compute": lambda seed: pd.DataFrame({"x": range(3), "square": [(seed + x) ** 2 for x in range(3)]}),
        "claims": lambda runs: [
            judge(
                "sum",
                "squares (sum)",
                CONTROL,
                source="Fig. 0",
                paper=5.0,
                measured=pd.read_parquet(runs["computed"].measures).groupby("seed")["square"].sum().tolist(),
            )
        ],
        "draw": lambda runs: matplotlib.figure.Figure(),
    }
    return Figure(**{**settings, **changes})


def hand_made_run(
    folder: Path,
    rows: Sequence[tuple[int, int, str, str, str, float]],
    diverged_at: Sequence[int | None] = (None, None),
    seconds: float = 1.5,
    steps: int = 100,
) -> RunFolder:
    """Write a run folder with the files that figures read.

    Args:
        folder: The run's folder.
        rows: Step, replica, split, measure, layer and value of each measurement.
        diverged_at: Step at which each replica diverged, or ``None``; one entry per replica.
        seconds: Duration of the run.
        steps: Number of steps.
    """
    run = RunFolder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows, columns=["step", "replica", "split", "measure", "layer", "value"])
    table.insert(1, "epoch", 0)
    table["stderr"] = table["value"] / 10
    table.to_parquet(run.measures)
    settings = [{"replica": r, "seed": r, "noise": None, "diverged_at": at} for r, at in enumerate(diverged_at)]
    pd.DataFrame(settings).to_csv(run.replicas, index=False)
    ended = {"steps": steps, "seconds": seconds, "device": "abacus", "threads": 2, "versions": {"torch": "2.0"}}
    run.finished.write_text(json.dumps(ended))
    return run


def swept_figure(folder: Path, **changes: Any) -> Figure:
    """Make a figure whose only arm is a sweep over widths and sample sizes."""
    config = folder / "swept.yaml"
    config.write_text(CONFIG.replace("replicas: {seeds: 1}\n", "").replace("max_epochs: 2", "max_steps: 20"))
    scales = {
        "ci": Scale(seeds=2, grids={"p = 0": {"model.net.widths": [[6, 4, 1], [6, 8, 1]], "data.subset": [10, 20]}}),
        "paper": Scale(seeds=2, grids={arm: {"model.net.widths": [[6, 4, 1]]} for arm in ARMS}),
    }
    return figure(folder, **{"config": str(config), "scales": scales, **changes})
