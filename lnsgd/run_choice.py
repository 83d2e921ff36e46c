"""Which folder a run goes to, and from which checkpoint it goes on.

In several processes each chooses for itself: none writes to the folder before all have chosen, because Lightning lets
them wait for each other first.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pytorch_lightning.utilities import rank_zero_only

from lnsgd.run_folder import RunFolder
from lnsgd.untrusted.checkpoint import load_checkpoint
from lnsgd.untrusted.tables import naming, read_record
from lnsgd.untrusted.texts import load_yaml
from lnsgd.writing import check_writable

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
    check_writable(run.path)
    return run


def given_run(run_dir: str | None, checkpoint: str) -> RunFolder:
    """The run to go on with.

    Args:
        run_dir: The folder of the run, if one was given.
        checkpoint: What was asked for, for the message.

    Raises:
        ValueError: there is no ``run_dir``.
    """
    if run_dir is None:
        raise ValueError(f"ckpt_path = {checkpoint}: of which run? Say it with --run_dir")
    return RunFolder(Path(run_dir))


def last_checkpoint(run_dir: str | None) -> str:
    """The newest checkpoint of a run.

    Args:
        run_dir: The folder of the run, if one was given.

    Raises:
        ValueError: there is none.
    """
    run = given_run(run_dir, "last")
    if (newest := newest_checkpoint(run)) is None:
        raise ValueError(f"ckpt_path = last: there is no such checkpoint: {run.last_checkpoint}")
    return newest


class Newest(NamedTuple):
    """The checkpoint that a run goes on from.

    Attributes:
        path: The file; ``None`` where no checkpoint is whole.
        step: Optimizer steps taken by then; 0 where there is none.
        damaged: What is wrong with those that would have come before it, a line each.
    """

    path: Path | None
    step: int
    damaged: list[str]


def find_newest(run: RunFolder) -> Newest:
    """The newest checkpoint of a run that is whole.

    That is ``last.ckpt``, or ``last-v1.ckpt`` and so on where a ModelCheckpoint of the config counts them. Where these
    are damaged or missing it is, of all others in the folder, the one that has taken the most steps.

    Args:
        run: The run's folder.
    """
    damaged: list[str] = []
    last, others = _checkpoint_files(run)
    for path in last:
        if (step := _step(path, damaged)) is not None:
            return Newest(path, step, damaged)
    whole = {path: step for path in others if (step := _step(path, damaged)) is not None}
    if not whole:
        return Newest(None, 0, damaged)
    path = max(whole, key=whole.__getitem__)
    return Newest(path, whole[path], damaged)


def newest_checkpoint(run: RunFolder) -> str | None:
    """The same; says on stderr which checkpoints are damaged, and what is used in their place.

    Args:
        run: The run's folder.

    Raises:
        ValueError: there are checkpoints, and none is whole.
    """
    newest = find_newest(run)
    if newest.path is None and newest.damaged:
        raise ValueError(
            f"{run.path} has no checkpoint that is whole: {newest.damaged[0]}; move {run.checkpoints} away to start "
            "over, or give another folder"
        )
    if is_first_process():
        for line in newest.damaged:
            print(f"lnsgd: {line}; going on from {newest.path} at step {newest.step}", file=sys.stderr)
    return str(newest.path) if newest.path else None


def _checkpoint_files(run: RunFolder) -> tuple[list[Path], list[Path]]:
    """Those called last, newest first, and all others."""
    name = run.last_checkpoint
    last = sorted(run.checkpoints.glob(f"{name.stem}*{name.suffix}"), key=lambda path: -path.stat().st_mtime_ns)
    every = name.with_name(f"*{name.suffix}")
    others = {*run.checkpoints.glob(every.name), *run.checkpoints.glob(RunFolder.before(every).name)} - {*last}
    return last, sorted(path for path in others if not path.name.startswith("."))


def _step(path: Path, damaged: list[str]) -> int | None:
    """The step of a checkpoint that is whole; else what is wrong is added to a list."""
    try:
        content = load_checkpoint(path)
        step = content["global_step"] if isinstance(content, dict) and "global_step" in content else None
        if isinstance(step, int):
            return step
        damaged.append(f"{path} is no checkpoint of a run")
    except ValueError as error:
        damaged.append(str(error).split(";")[0])
    return None


def has_ended(run: RunFolder, trainer: Any) -> bool:
    """Whether a run has reached its end, and there is no more to do.

    There is more where the Trainer's settings allow more than those that it ended with, but not where a stopping rule
    has ended it.

    Args:
        run: The run's folder.
        trainer: Whose ``max_epochs``, ``max_steps`` and other limits hold now.

    Raises:
        ValueError: there is more, but there is no checkpoint to go on from; a record of the run is damaged.
    """
    if not run.finished.exists():
        return False
    ended = read_record(run.finished, {"steps": int, "epochs": (int, float)})
    with naming(run.config):
        before = {name: load_yaml(run.config)["trainer"][name] for name in _LIMITS}
    if ended.get("stopped_by", "limit") != "limit":
        return True
    epochs_taken = trainer.max_epochs not in (None, -1) and ended["epochs"] >= trainer.max_epochs
    steps_taken = trainer.max_steps != -1 and ended["steps"] >= trainer.max_steps
    if epochs_taken or steps_taken or all(str(before[name]) == str(getattr(trainer, name)) for name in _LIMITS):
        return True
    if not any(_checkpoint_files(run)):
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
