"""Which folder a run goes to, and from which checkpoint it goes on.

In several processes each chooses for itself: none writes to the folder before all have chosen, because Lightning lets
them wait for each other first.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning.utilities import rank_zero_only

from lnsgd.run_folder import RunFolder

_LIMITS = ("max_epochs", "max_steps", "max_time")


def is_first_process() -> bool:
    """Whether this is the process that speaks and writes for all, where there is no Trainer to ask yet."""
    return getattr(rank_zero_only, "rank", 0) == 0


def choose_folder(
    run_dir: str | None, checkpoint: str | None, configs: Sequence[Any] | None, start_over: bool
) -> RunFolder:
    """The folder of a run.

    Args:
        run_dir: The folder asked for.
        checkpoint: Where the run goes on from; by default it goes on in the folder of that.
        configs: Config files of the command; a new run is named after the first.
        start_over: Take ``run_dir`` also where it holds a run without a checkpoint.

    Raises:
        ValueError: ``run_dir`` holds another run; the checkpoint lies in no run's folder.
        OSError: the folder cannot be written to.
    """
    if checkpoint is not None:
        run = RunFolder(Path(run_dir)) if run_dir else RunFolder.of_checkpoint(Path(checkpoint))
        if run is None:
            raise ValueError(f"ckpt_path = {checkpoint} lies in no run's folder; say where to go on with --run_dir")
    elif run_dir is not None:
        run = RunFolder(Path(run_dir))
        if is_first_process() and run.config.exists() and not start_over:
            raise ValueError(
                f"run_dir = {run_dir} holds a run already; go on with it (--ckpt_path last), or give another folder"
            )
    else:
        run = _free_folder(Path("runs"), _config_name(configs))
    run.check_writable()
    return run


def given_run(run_dir: str | None, checkpoint: str) -> RunFolder:
    """The run to go on with.

    Raises:
        ValueError: there is no ``run_dir``.
    """
    if run_dir is None:
        raise ValueError(f"ckpt_path = {checkpoint}: of which run? Say it with --run_dir")
    return RunFolder(Path(run_dir))


def last_checkpoint(run_dir: str | None) -> str:
    """The newest checkpoint of a run.

    Raises:
        ValueError: there is none.
    """
    run = given_run(run_dir, "last")
    if (newest := newest_checkpoint(run)) is None:
        raise ValueError(f"ckpt_path = last: there is no such checkpoint: {run.last_checkpoint}")
    return newest


def newest_checkpoint(run: RunFolder) -> str | None:
    """``last.ckpt``, or ``last-v1.ckpt`` and so on where a ModelCheckpoint of the config counts them."""
    found = run.checkpoints.glob(f"{run.last_checkpoint.stem}*{run.last_checkpoint.suffix}")
    newest = max(found, key=lambda path: path.stat().st_mtime_ns, default=None)
    return str(newest) if newest else None


def has_ended(run: RunFolder, trainer: Any) -> bool:
    """Whether a run has reached its end, and there is no more to do.

    There is more where the Trainer's settings allow more than those that it ended with, but not where a stopping rule
    has ended it.

    Raises:
        ValueError: there is more, but there is no checkpoint to go on from.
    """
    if not run.finished.exists():
        return False
    ended, before = json.loads(run.finished.read_text()), yaml.safe_load(run.config.read_text())["trainer"]
    if ended.get("stopped_by", "limit") != "limit":
        return True
    epochs_taken = trainer.max_epochs not in (None, -1) and ended["epochs"] >= trainer.max_epochs
    steps_taken = trainer.max_steps != -1 and ended["steps"] >= trainer.max_steps
    if epochs_taken or steps_taken or all(str(before[name]) == str(getattr(trainer, name)) for name in _LIMITS):
        return True
    if newest_checkpoint(run) is None:
        raise ValueError(
            f"run_dir = {run.path} holds a run that has reached its end and has no checkpoint to go on from; "
            "give another folder"
        )
    return False


def _config_name(configs: Sequence[Any] | None) -> str:
    """That of the first config; where it is the record of a run, that of the run."""
    if not configs:
        return "run"
    path = Path(str(configs[0]))
    run = RunFolder(path.resolve().parent)
    return run.path.name if path.name == run.config.name and run.init.exists() else path.stem


def _free_folder(parent: Path, name: str) -> RunFolder:
    number, run = 1, RunFolder(parent / name)
    while run.config.exists():
        number += 1
        run = RunFolder(parent / f"{name}-{number}")
    return run
