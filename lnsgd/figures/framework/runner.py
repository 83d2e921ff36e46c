"""Run the arms of a figure, resuming where an earlier call stopped.

An arm is one replicated run, or a run of each seed, or a sweep, or a table that is computed. Whichever it is, its
folder ends with the same files, so that claims and pictures are made from the disk alone.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from rich.console import Console
from rich.progress import track

from lnsgd import __version__
from lnsgd.figures.framework.figure import Figure
from lnsgd.figures.framework.screen import print_first_comparison
from lnsgd.loggers.wandb import WandbGroup
from lnsgd.records.cells import UNFINISHED
from lnsgd.records.measures import REPLICA, read_measures, write_measures
from lnsgd.records.provenance import TRAINED, Provenance, now, provenance_of_now, read_provenance, write_provenance
from lnsgd.records.replicas import DIVERGED_AT, End, write_replicas
from lnsgd.records.settings import read_settings, write_settings
from lnsgd.replicas import Replica
from lnsgd.runs.claims import claim, released_at_end
from lnsgd.runs.folder import RunFolder
from lnsgd.runs.writing import check_writable, remove_parts, whole_file
from lnsgd.sweep import load


def run_figure(
    figure: Figure,
    scale: str,
    seeds: int,
    out: Path,
    console: Console,
    workers: int | None = None,
    wandb: WandbGroup | None = None,
) -> dict[str, RunFolder]:
    """Run the arms of a figure that are not finished, one after the other.

    The seeds of an arm are the replicas of one run in ``out/<arm>``. If the figure says that its arms are not
    replicated, each seed is a run of its own in ``out/<arm>/seed-<s>``, and `unite` joins them in the arm's folder.
    If the scale has grids, each arm is a sweep. A figure that trains nothing is computed, seed by seed.

    Args:
        figure: The figure.
        scale: One of its scales.
        seeds: Number of seeds of each arm, counted from 0.
        out: Folder of the figure.
        console: Where progress is printed.
        workers: Number of jobs of a sweep at a time; by default as many as fit.
        wandb: Group of W&B runs. Every run that is trained here joins it, named by its arm, and by its seed if seeds
            are separate runs. Runs that were finished before are not sent.

    Raises:
        ValueError: ``out`` holds runs with other settings, another command writes there, or a cell of a sweep failed.
        SystemExit: training was interrupted, code 75.
    """
    with released_at_end():
        _claim_folder(figure, scale, seeds, out)
        return _run_arms(_Call(figure, scale, seeds, console, workers, wandb), out)


def arm_runs(figure: Figure, scale: str, out: Path) -> dict[str, RunFolder]:
    """Return the run folder of each arm of a scale in the folder of the figure, finished or not."""
    return {arm: RunFolder(out / _folder_name(arm)) for arm in figure.arms_at(scale)}


def _run_arms(call: "_Call", out: Path) -> dict[str, RunFolder]:
    figure, scale, seeds, console = call.figure, call.scale, call.seeds, call.console
    runs = arm_runs(figure, scale, out)
    to_compare = set(figure.compared)
    for number, (arm, run) in enumerate(runs.items(), 1):
        state = _state(run, "computing" if figure.compute else "training and measuring")
        console.print(f"[bold]{figure.name}[/bold] {number}/{len(runs)}: {arm}, {seeds} seeds ({state})")
        if not run.finished.exists():
            call.run(arm, run)
        following = list(runs.values())[number:]
        if arm in to_compare:
            to_compare.remove(arm)
            if not to_compare and any(not other.finished.exists() for other in following):
                print_first_comparison(console, figure, runs, len(following))
    return runs


@dataclass(frozen=True)
class _Call:
    """One call of `run_figure`, and the four ways to run an arm."""

    figure: Figure
    scale: str
    seeds: int
    console: Console
    workers: int | None
    wandb: WandbGroup | None

    def run(self, arm: str, run: RunFolder) -> None:
        """Run an arm until it has finished."""
        if self.figure.compute:
            self.compute(run)
        elif self.figure.swept:
            self.run_sweep(arm, run)
        elif self.figure.replicated:
            self.train(arm, run, arm, ["--replicas.seeds", str(self.seeds)])
        else:
            self.train_each_seed(arm, run)

    def train(self, arm: str, run: RunFolder, name: str, further: Sequence[str]) -> None:
        """Train one run of an arm, which W&B shows by the given name."""
        from lnsgd.training.cli import train  # a figure that is computed does not need it

        tracked = [] if self.wandb is None else [f"--trainer.logger={json.dumps(self.wandb.logger(name, arm))}"]
        config = ["--config", str(self.figure.config_path(arm)), *self.figure.options(self.scale, arm)]
        options = ["--run_dir", str(run.path), "--ckpt_path", "auto", "--trainer.enable_model_summary", "false"]
        train(["fit", *config, *further, *tracked, *options])

    def train_each_seed(self, arm: str, run: RunFolder) -> None:
        """Train the seeds of an arm one after the other, then join them in the arm's folder."""
        parts = [seed_run(run, seed) for seed in range(self.seeds)]
        for seed, part in enumerate(parts):
            self.console.print(f"  seed {seed}, {seed + 1} of {self.seeds} ({_state(part)})")
            if not part.finished.exists():
                self.train(arm, part, f"{arm} seed {seed}", ["--seed_everything", str(seed)])
        unite(run, parts)

    def run_sweep(self, arm: str, run: RunFolder) -> None:
        """Train the cells of an arm's grid that are missing or failed before.

        The sweep is written beside its folder as ``<arm>.yaml``, so that ``lnsgd sweep <arm>.yaml --out <arm>`` runs
        it too, for example with ``--executor slurm``.
        """
        from lnsgd.sweep.executors.base import make_executor
        from lnsgd.sweep.run import run_sweep

        file = run.path.parent / f"{run.path.name}.yaml"
        write_sweep(self.figure, self.scale, arm, self.seeds, file, self.wandb)
        executor = make_executor("local", self.workers, None)
        if not run_sweep(file, run.path, executor, self.console, retry_failed=True):
            raise SystemExit(os.EX_TEMPFAIL)
        table = load(run.path)
        unfinished = table[table.status.isin(UNFINISHED)]
        if len(unfinished):
            why = f"{unfinished.status.iloc[0]}: {unfinished.reason.iloc[0]}".rstrip(": ")
            raise ValueError(f"{len(unfinished)} of {len(table)} cells {why}; see lnsgd table {run.path}")
        provenance = Provenance(
            seconds=round(float(table.seconds.sum()), 1),
            ended=now(),
            jobs=table.job.nunique(),
            jobs_at_once=executor.resources().at_once,
            device=table.device.iloc[0],
            versions={"lnsgd": __version__, "torch": table.torch.iloc[0]},
        )
        write_provenance(provenance, run.finished)

    def compute(self, run: RunFolder) -> None:
        """Compute the rows of every seed and keep them as the measures of a run."""
        assert self.figure.compute is not None
        started = time.monotonic()
        tables = []
        for seed in track(range(self.seeds), "seeds", console=self.console):
            table = self.figure.compute(seed)
            table.insert(0, "seed", seed)
            tables.append(table)
        with whole_file(run.measures) as part:
            pd.concat(tables, ignore_index=True).to_parquet(part)
        write_provenance(provenance_of_now(seconds=round(time.monotonic() - started, 1)), run.finished)


def write_sweep(figure: Figure, scale: str, arm: str, seeds: int, file: Path, wandb: WandbGroup | None) -> None:
    """Write the sweep of an arm as a file for ``lnsgd sweep``.

    Args:
        figure: The figure, whose scales have grids.
        scale: One of its scales.
        arm: One of its arms at that scale.
        seeds: Number of seeds of each cell, counted from 0.
        file: The file; written whole or not at all.
        wandb: Group of W&B runs that every job joins, if any.
    """
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


def seed_run(arm: RunFolder, seed: int) -> RunFolder:
    """Return the run folder of one seed in the folder of its arm."""
    return RunFolder(arm.path / f"seed-{seed}")


def unite(arm: RunFolder, parts: Sequence[RunFolder]) -> None:
    """Write the files of a replicated run into an arm's folder, from the finished runs of its seeds.

    ``measures.parquet`` has the rows of all seeds, with the seed's number as ``replica``; ``replicas.csv`` has the
    seeds; ``config.yaml`` is that of the first seed; ``finished.json``, written last, has the sum of their seconds,
    the last of their ends and all of their devices. An ordinary run does not know whether it diverged, so
    ``diverged_at`` is empty.

    Args:
        arm: The arm's folder.
        parts: The runs of seeds 0, 1, … in this order.

    Raises:
        ValueError: the runs took different numbers of steps.
    """
    ended = [read_provenance(part.finished, TRAINED) for part in parts]
    if len({end.steps for end in ended}) > 1:
        steps = ", ".join(f"{end.steps:,} ({part.path.name})" for part, end in zip(parts, ended))
        raise ValueError(f"the runs in {arm.path} took different numbers of steps: {steps}; delete those that differ")
    tables = [read_measures(part.measures).assign(**{REPLICA: seed}) for seed, part in enumerate(parts)]
    write_measures(pd.concat(tables, ignore_index=True), arm.measures)
    write_replicas(arm.replicas, [(asdict(Replica(seed)), End()) for seed in range(len(parts))], known=[DIVERGED_AT])
    with whole_file(arm.config) as file:
        file.write_text(parts[0].config.read_text())
    united = replace(
        ended[0],
        seconds=round(sum(end.seconds or 0.0 for end in ended), 1),
        device=", ".join(dict.fromkeys(end.device or "" for end in ended)),
        ended=max((end.ended for end in ended if end.ended is not None), default=None),  # older versions have no date
    )
    write_provenance(united, arm.finished)


def _state(run: RunFolder, doing: str = "training") -> str:
    """Name what is about to happen to a run."""
    if run.finished.exists():
        return "finished before"
    return "resuming" if run.last_checkpoint.exists() else doing


def _claim_folder(figure: Figure, scale: str, seeds: int, out: Path) -> None:
    """Write the settings of the call into its folder, or refuse a folder that holds runs with other settings."""
    settings = {
        "figure": figure.name,
        "scale": scale,
        "seeds": seeds,
        "configs": {arm: figure.config_path(arm).read_text() for arm in figure.arms},
        "arms": {arm: figure.options(scale, arm) for arm in figure.arms},
        **({"grids": figure.scales[scale].grids} if figure.swept else {}),
    }
    check_writable(out)
    claim(out)
    remove_parts(out)
    path = out / "settings.json"
    if path.exists() and _without_comments(read_settings(path)) != _without_comments(settings):
        raise ValueError(f"{out} holds runs with other settings (see {path.name} there); give another --out")
    write_settings(settings, path)


def _without_comments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the comment lines of the configs in a figure's settings: a new wording does not make another run."""
    configs = settings.get("configs")
    if not isinstance(configs, dict):
        return dict(settings)
    lines = {arm: str(text).splitlines() for arm, text in configs.items()}
    kept = {arm: [line for line in of_arm if not line.lstrip().startswith("#")] for arm, of_arm in lines.items()}
    return {**settings, "configs": kept}


def _folder_name(arm: str) -> str:
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in arm.replace(" ", ""))
