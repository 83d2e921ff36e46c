"""Runs the arms of a figure, and goes on where an earlier call stopped."""

import json
import platform
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console
from rich.progress import track

from lnsgd import __version__
from lnsgd.figures.figure import Figure
from lnsgd.figures.seed_runs import seed_run, unite
from lnsgd.figures.sweeps import run_grid
from lnsgd.loggers.wandb import WandbGroup
from lnsgd.run_folder import RunFolder
from lnsgd.untrusted.tables import read_record
from lnsgd.writing import check_writable, remove_parts, whole_file


def run_figure(
    figure: Figure,
    scale: str,
    seeds: int,
    out: Path,
    console: Console,
    workers: int | None = None,
    wandb: WandbGroup | None = None,
) -> dict[str, RunFolder]:
    """Trains what is missing: one arm after the other, all seeds of an arm as replicas of one run.

    Where the figure says that its arms are not replicated, the seeds of an arm are trained one after the other, each
    in ``out/<arm>/seed-<s>``, and then united in the arm's folder (`lnsgd.figures.seed_runs.unite`). Where it has
    grids, every arm is a sweep (`lnsgd.figures.sweeps.run_grid`). A figure that trains nothing is computed instead,
    seed by seed.

    Args:
        figure: The figure.
        scale: One of its scales.
        seeds: Number of seeds of each arm, from 0 on.
        out: Folder of the figure; an arm's run is in ``out/<arm>``.
        console: Where progress is told.
        workers: Jobs of a sweep at the same time; by default as many as fit.
        wandb: Group of W&B runs that every run trained here is one of, named by its arm, and by its seed where that is
            a run of its own. What was trained before is not sent.

    Raises:
        ValueError: ``out`` holds runs with other settings; a cell of a sweep failed.
        SystemExit: it was interrupted, code 75.
    """
    _claim_folder(figure, scale, seeds, out)
    runs = {arm: RunFolder(out / _folder_name(arm)) for arm in figure.arms_at(scale)}
    for number, (arm, run) in enumerate(runs.items(), 1):
        state = _state(run, "computing" if figure.compute else "training")
        console.print(f"[bold]{figure.name}[/bold] {number}/{len(runs)}: {arm}, {seeds} seeds ({state})")
        if run.finished.exists():
            continue
        if figure.compute:
            _compute(figure, seeds, run, console)
        elif figure.swept:
            run_grid(figure, scale, arm, seeds, run, console, workers, wandb)
        elif figure.replicated:
            _train(figure, scale, arm, run, ["--replicas.seeds", str(seeds), *_tracked(wandb, arm, arm)])
        else:
            _train_each(figure, scale, arm, seeds, run, console, wandb)
    return runs


def _train_each(
    figure: Figure, scale: str, arm: str, seeds: int, run: RunFolder, console: Console, wandb: WandbGroup | None
) -> None:
    parts = [seed_run(run, seed) for seed in range(seeds)]
    for seed, part in enumerate(parts):
        console.print(f"  seed {seed}, {seed + 1} of {seeds} ({_state(part)})")
        if not part.finished.exists():
            tracked = _tracked(wandb, f"{arm} seed {seed}", arm)
            _train(figure, scale, arm, part, ["--seed_everything", str(seed), *tracked])
    unite(run, parts)


def _state(run: RunFolder, doing: str = "training") -> str:
    """What is about to happen to a run, as told."""
    return "done before" if run.finished.exists() else "going on" if run.last_checkpoint.exists() else doing


def _tracked(wandb: WandbGroup | None, name: str, arm: str) -> list[str]:
    """Options that let a run be one of a group."""
    return [] if wandb is None else [f"--trainer.logger={json.dumps(wandb.logger(name, arm))}"]


def _train(figure: Figure, scale: str, arm: str, run: RunFolder, further: Sequence[str]) -> None:
    from lnsgd.training import train

    options = ["--run_dir", str(run.path), "--ckpt_path", "auto", "--trainer.enable_model_summary", "false"]
    train(["fit", "--config", str(figure.config_path(arm)), *figure.options(scale, arm), *further, *options])


def _compute(figure: Figure, seeds: int, run: RunFolder, console: Console) -> None:
    assert figure.compute is not None
    started = time.monotonic()
    tables = []
    for seed in track(range(seeds), "seeds", console=console):
        table = figure.compute(seed)
        table.insert(0, "seed", seed)
        tables.append(table)
    with whole_file(run.measures) as part:
        pd.concat(tables, ignore_index=True).to_parquet(part)
    ended = {
        "seconds": round(time.monotonic() - started, 1),
        "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": platform.machine(),
        "threads": torch.get_num_threads(),
        "versions": {"lnsgd": __version__, "torch": torch.__version__},
    }
    with whole_file(run.finished) as part:
        part.write_text(json.dumps(ended, indent=2) + "\n")


def _claim_folder(figure: Figure, scale: str, seeds: int, out: Path) -> None:
    settings = {
        "figure": figure.name,
        "scale": scale,
        "seeds": seeds,
        "configs": {arm: figure.config_path(arm).read_text() for arm in figure.arms},
        "arms": {arm: figure.options(scale, arm) for arm in figure.arms},
        **({"grids": figure.scales[scale].grids} if figure.swept else {}),
    }
    check_writable(out)
    remove_parts(out)
    path = out / "settings.json"
    if path.exists() and read_record(path, {}) != settings:
        raise ValueError(f"{out} holds runs with other settings (see {path.name} there); give another --out")
    with whole_file(path) as part:
        part.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n")


def _folder_name(arm: str) -> str:
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in arm.replace(" ", ""))
