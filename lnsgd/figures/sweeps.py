"""Arms that are sweeps: the file that says so, and its run."""

import json
import os
from datetime import datetime, timezone
from pathlib import Path

import yaml
from rich.console import Console

from lnsgd import __version__
from lnsgd.figures.figure import Figure
from lnsgd.loggers.wandb import WandbGroup
from lnsgd.run_folder import RunFolder
from lnsgd.sweep import load
from lnsgd.sweep.table import UNFINISHED
from lnsgd.writing import whole_file


def run_grid(
    figure: Figure,
    scale: str,
    arm: str,
    seeds: int,
    run: RunFolder,
    console: Console,
    workers: int | None,
    wandb: WandbGroup | None = None,
) -> None:
    """Trains what is missing of an arm's grid on this machine.

    The sweep is written beside its folder, ``<arm>.yaml``: ``lnsgd sweep <arm>.yaml --out <arm>`` runs it too, say
    with ``--executor slurm``. What failed before is run again.

    Args:
        figure: The figure.
        scale: One of its scales.
        arm: One of its arms.
        seeds: Number of seeds of each cell, from 0 on.
        run: The arm's folder.
        console: Where progress is told.
        workers: Jobs at the same time; by default as many as fit.
        wandb: Group of W&B runs that every job is one of.

    Raises:
        ValueError: a cell failed, or has no row.
        SystemExit: it was interrupted, code 75.
    """
    # Here, because a figure that trains nothing needs none of it.
    from lnsgd.sweep.executor import make_executor
    from lnsgd.sweep.run import run_sweep

    file = run.path.parent / f"{run.path.name}.yaml"
    _write_sweep(figure, scale, arm, seeds, file, wandb)
    executor = make_executor("local", workers, None)
    if not run_sweep(file, run.path, executor, console, retry_failed=True):
        raise SystemExit(os.EX_TEMPFAIL)
    table = load(run.path)
    left = table[table.status.isin(UNFINISHED)]
    if len(left):
        why = f"{left.status.iloc[0]}: {left.reason.iloc[0]}".rstrip(": ")
        raise ValueError(f"{len(left)} of {len(table)} cells {why}; see lnsgd table {run.path}")
    ended = {
        "seconds": round(float(table.seconds.sum()), 1),
        "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "jobs": table.job.nunique(),
        "jobs_at_once": executor.resources().at_once,
        "device": table.device.iloc[0],
        "versions": {"lnsgd": __version__, "torch": table.torch.iloc[0]},
    }
    with whole_file(run.finished) as part:
        part.write_text(json.dumps(ended, indent=2) + "\n")


def _write_sweep(figure: Figure, scale: str, arm: str, seeds: int, file: Path, wandb: WandbGroup | None = None) -> None:
    options = figure.options(scale, arm)
    sweep = {
        "base": str(figure.config_path(arm)),
        "options": {name.removeprefix("--"): value for name, value in zip(options[::2], options[1::2], strict=True)},
        "grid": {name: list(values) for name, values in figure.scales[scale].grids[arm].items()},
        "seeds": seeds,
        **({"wandb": {"group": wandb.name, "project": wandb.project}} if wandb else {}),
    }
    with whole_file(file) as part:
        part.write_text(yaml.safe_dump(sweep, sort_keys=False))
