"""Runs the arms of a figure, and goes on where an earlier call stopped."""

import json
from pathlib import Path

from rich.console import Console

from lnsgd.figures.figure import Figure
from lnsgd.run_folder import RunFolder, whole_file


def run_figure(figure: Figure, scale: str, seeds: int, out: Path, console: Console) -> dict[str, list[RunFolder]]:
    """Trains what is missing: every arm with seeds 0, 1, …, one after the other.

    Args:
        figure: The figure.
        scale: One of its scales.
        seeds: Number of runs of each arm.
        out: Folder of the figure; a run's folder is ``out/<arm>/seed-<k>``.
        console: Where progress is told.

    Raises:
        ValueError: ``out`` holds runs with other settings.
    """
    _claim_folder(figure, scale, out)
    runs: dict[str, list[RunFolder]] = {arm: [] for arm in figure.arms}
    todo = [(arm, seed) for seed in range(seeds) for arm in figure.arms]
    for number, (arm, seed) in enumerate(todo, 1):
        run = RunFolder(out / _folder_name(arm) / f"seed-{seed}")
        runs[arm].append(run)
        state = "done before" if run.finished.exists() else "going on" if run.last_checkpoint.exists() else "training"
        console.print(f"[bold]{figure.name}[/bold] {number}/{len(todo)}: {arm}, seed {seed} ({state})")
        if not run.finished.exists():
            _train(figure, scale, arm, seed, run)
    return runs


def _train(figure: Figure, scale: str, arm: str, seed: int, run: RunFolder) -> None:
    from lnsgd.training import train

    options = ["--run_dir", str(run.path), "--seed_everything", str(seed), "--trainer.enable_model_summary", "false"]
    if run.last_checkpoint.exists():
        options += ["--ckpt_path", "last"]
    elif run.config.exists():  # killed before its first checkpoint
        run.config.unlink()
    train(["fit", "--config", str(figure.config_path()), *figure.scales[scale], *figure.arms[arm], *options])


def _claim_folder(figure: Figure, scale: str, out: Path) -> None:
    settings = {
        "figure": figure.name,
        "scale": scale,
        "config": figure.config_path().read_text(),
        "options": list(figure.scales[scale]),
        "arms": {arm: list(options) for arm, options in figure.arms.items()},
    }
    RunFolder(out).check_writable()
    path = out / "settings.json"
    if path.exists() and json.loads(path.read_text()) != settings:
        raise ValueError(f"{out} holds runs with other settings (see {path.name} there); give another --out")
    with whole_file(path) as part:
        part.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n")


def _folder_name(arm: str) -> str:
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in arm.replace(" ", ""))
