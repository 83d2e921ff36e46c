"""Choose the folder of a run, and the checkpoint from which it resumes.

In a run of several processes the first claims the folder (``lnsgd.runs.claims``), and the others find its choice. None
writes to the folder before all have chosen, because Lightning makes them wait for each other first.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pytorch_lightning.utilities import rank_zero_only

from lnsgd.runs.claims import announce, chosen_by_first, claim, claim_new
from lnsgd.runs.folder import RunFolder
from lnsgd.runs.writing import check_writable
from lnsgd.untrusted.checkpoint import load_checkpoint


def is_first_process() -> bool:
    """Return whether this process prints and writes for all, before there is a Trainer to ask."""
    return getattr(rank_zero_only, "rank", 0) == 0


def choose_folder(
    run_dir: str | None, checkpoint: str | None, configs: Sequence[Any] | None, start_over: bool
) -> RunFolder:
    """Choose the folder of a run, and claim it for this process and those that it starts.

    Args:
        run_dir: The requested folder.
        checkpoint: The checkpoint from which the run resumes, by default in the folder of that checkpoint.
        configs: Config files of the command; a new run is named after the first.
        start_over: Accept a ``run_dir`` that holds a run without a checkpoint.

    Raises:
        ValueError: ``run_dir`` holds another run, another process writes there, or the checkpoint is not in the folder
            of a run.
        OSError: The folder cannot be written to.
    """
    if checkpoint is not None:
        run = RunFolder(Path(run_dir)) if run_dir else RunFolder.of_checkpoint(Path(checkpoint))
        if run is None:
            raise ValueError(f"ckpt_path = {checkpoint} is not in the folder of a run; give a folder with --run_dir")
    elif run_dir is not None:
        run = RunFolder(Path(run_dir))
    else:
        return _new_folder(Path("runs"), _config_name(configs))
    check_writable(run.path)
    if is_first_process():
        claimed = claim(run.path)
        if checkpoint is None and run.config.exists() and not start_over:
            claimed.release()
            raise ValueError(
                f"run_dir = {run_dir} holds a run already; resume it (--ckpt_path last), or give another folder"
            )
    return run


def given_run(run_dir: str | None, checkpoint: str) -> RunFolder:
    """Return the run to resume.

    Args:
        run_dir: The folder of the run, if one was given.
        checkpoint: The value of ``ckpt_path``, for the message.

    Raises:
        ValueError: ``run_dir`` was not given.
    """
    if run_dir is None:
        raise ValueError(f"ckpt_path = {checkpoint} needs the folder of a run; give it with --run_dir")
    return RunFolder(Path(run_dir))


def last_checkpoint(run_dir: str | None) -> str:
    """Return the newest checkpoint of a run.

    Args:
        run_dir: The folder of the run, if one was given.

    Raises:
        ValueError: The run has no checkpoint.
    """
    run = given_run(run_dir, "last")
    if (newest := newest_checkpoint(run)) is None:
        raise ValueError(
            f"ckpt_path = last: {run.last_checkpoint} does not exist; give the folder of a run with checkpoints"
        )
    return newest


class Newest(NamedTuple):
    """The checkpoint from which a run resumes.

    Attributes:
        path: The file; ``None`` if no checkpoint is intact.
        step: Optimizer steps taken by then; 0 if there is no checkpoint.
        damaged: One line for each newer checkpoint, which says what is wrong with it.
    """

    path: Path | None
    step: int
    damaged: list[str]


def find_newest(run: RunFolder) -> Newest:
    """Find the newest intact checkpoint of a run: the one with the most steps, whatever the clock says of the files.

    Of several with as many steps, it is the first in the order of `checkpoint_files`.

    Args:
        run: The folder of the run.
    """
    damaged: list[str] = []
    steps = {path: step for path in checkpoint_files(run) if (step := _read_step(path, damaged)) is not None}
    for path in sorted(steps, key=lambda path: -steps[path]):  # stable: last.ckpt stays before the others
        if _is_intact(path, damaged):
            return Newest(path, steps[path], damaged)
    return Newest(None, 0, damaged)


def newest_checkpoint(run: RunFolder) -> str | None:
    """Find the newest intact checkpoint of a run, and report damaged checkpoints on stderr.

    Args:
        run: The folder of the run.

    Returns:
        Its path, or ``None`` if there are no checkpoints.

    Raises:
        ValueError: There are checkpoints, but none is intact.
    """
    newest = find_newest(run)
    if newest.path is None and newest.damaged:
        raise ValueError(
            f"{run.path} has no intact checkpoint: {newest.damaged[0]}; move {run.checkpoints} away to start over, or "
            "give another folder"
        )
    if is_first_process():
        for line in newest.damaged:
            print(f"lnsgd: {line}; resuming from {newest.path} at step {newest.step}", file=sys.stderr)
    return str(newest.path) if newest.path else None


def checkpoint_files(run: RunFolder) -> list[Path]:
    """List the checkpoints of a run: ``last.ckpt``, others named last, all others, then the files of former contents.

    Args:
        run: The folder of the run.
    """
    name = run.last_checkpoint
    every = name.with_name(f"*{name.suffix}")
    found = {*run.checkpoints.glob(every.name), *run.checkpoints.glob(RunFolder.before(every).name)}
    visible = (path for path in found if not path.name.startswith("."))
    return sorted(visible, key=lambda path: (path.suffix != name.suffix, path != name, path.name[:4] != "last", path))


def set_aside_later(run: RunFolder, step: int) -> list[Path]:
    """Rename the checkpoints of a run that has gone back to an earlier step, so that they are not its newest any more.

    Args:
        run: The folder of the run.
        step: The step to which it has gone back.

    Returns:
        The new paths, with ``.set-aside`` at the end.
    """
    later = [path for path in checkpoint_files(run) if (_read_step(path, []) or 0) > step]
    return [path.rename(path.with_name(f"{path.name}.set-aside")) for path in later]


def _read_step(path: Path, damaged: list[str]) -> int | None:
    """Read the step of a checkpoint; if that cannot be done, append what is wrong to a list."""
    try:
        content = load_checkpoint(path, without_weights=True)
        step = content["global_step"] if isinstance(content, dict) and "global_step" in content else None
        if isinstance(step, int):
            return step
        damaged.append(f"{path} is not a checkpoint of a run")
    except ValueError as error:
        damaged.append(str(error).split(";")[0])
    return None


def _is_intact(path: Path, damaged: list[str]) -> bool:
    """Return whether a checkpoint can be loaded; if not, append what is wrong to a list."""
    try:
        load_checkpoint(path)
    except ValueError as error:
        damaged.append(str(error).split(";")[0])
        return False
    return True


def _config_name(configs: Sequence[Any] | None) -> str:
    """Return the name of the first config or, if that is the record of a run, the name of the run."""
    if not configs:
        return "run"
    path = Path(str(configs[0]))
    run = RunFolder(path.resolve().parent)
    return run.path.name if path.name == run.config.name and run.init.exists() else path.stem


def _new_folder(parent: Path, name: str) -> RunFolder:
    check_writable(parent)
    if not is_first_process():
        return RunFolder(chosen_by_first(parent, name))
    folder = claim_new(parent, name).folder
    announce(folder)
    return RunFolder(folder)
