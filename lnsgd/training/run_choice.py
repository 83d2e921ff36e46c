"""Where a training command starts: the folder of its run, and the checkpoint that it loads."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from lnsgd.records.changes import config_in_effect
from lnsgd.records.provenance import LENGTH, read_provenance
from lnsgd.records.replicas import LIMIT
from lnsgd.runs.folder import RunFolder
from lnsgd.runs.resume import checkpoint_files, choose_folder, given_run, last_checkpoint, newest_checkpoint
from lnsgd.untrusted.tables import naming

_LIMITS = ("max_epochs", "max_steps", "max_time")


class RunChoice(NamedTuple):
    """Where a training command starts.

    Attributes:
        folder: The folder of the run; ``None`` for commands that only measure or try a few steps (``fast_dev_run``),
            and for a run that has ended.
        checkpoint: The checkpoint to load; ``None`` for a new run.
        ended: Whether ``--ckpt_path auto`` found a run that has reached its end, so that nothing is left to do.
    """

    folder: RunFolder | None
    checkpoint: str | None
    ended: bool = False


def choose_run(command: str, config: Any) -> RunChoice:
    """Choose the folder and the checkpoint of a command, before anything is built.

    Args:
        command: ``fit``, ``validate`` or ``test``.
        config: The parsed config of the command.

    Raises:
        ValueError: there is no such checkpoint, the folder holds another run, or a command that measures has no
            checkpoint.
        OSError: the folder cannot be written to.
    """
    checkpoint = config.get("ckpt_path")
    automatic = command == "fit" and checkpoint == "auto"
    if automatic:
        run = given_run(config.run_dir, checkpoint)
        if has_ended(run, config.trainer):
            return RunChoice(None, None, ended=True)
        checkpoint = newest_checkpoint(run)
    elif checkpoint == "last":
        checkpoint = last_checkpoint(config.run_dir)
    elif checkpoint is not None and not Path(checkpoint).exists():
        raise ValueError(f"ckpt_path = {checkpoint}: there is no such checkpoint")
    if command == "fit" and config.trainer.fast_dev_run:
        return RunChoice(None, checkpoint)
    if command == "fit":
        folder = choose_folder(config.run_dir, checkpoint, config.get("config"), start_over=automatic)
        return RunChoice(folder, checkpoint)
    if config.resume is not None:
        raise ValueError(f"resume = {config.resume}: lnsgd {command} resumes nothing; give a checkpoint by --ckpt_path")
    if checkpoint is None:
        raise ValueError(f"lnsgd {command} measures a trained network; give its checkpoint with --ckpt_path")
    return RunChoice(None, checkpoint)


def has_ended(run: RunFolder, trainer: Any) -> bool:
    """Whether a run has reached its end and nothing is left to do.

    More is left to do if the Trainer's limits allow more than those with which the run ended, unless a stopping rule
    ended it.

    Args:
        run: The run's folder.
        trainer: Has the limits that hold now, such as ``max_epochs`` and ``max_steps``.

    Raises:
        ValueError: more is left to do, but there is no checkpoint to resume from; a record of the run is damaged.
    """
    if not run.finished.exists():
        return False
    ended = read_provenance(run.finished, LENGTH)
    assert ended.steps is not None and ended.epochs is not None
    with naming(run.config):
        limits = config_in_effect(run)["trainer"]
        before = {name: limits[name] for name in _LIMITS}
    if ended.stopped_by not in (None, LIMIT):
        return True
    epochs_taken = trainer.max_epochs not in (None, -1) and ended.epochs >= trainer.max_epochs
    steps_taken = trainer.max_steps != -1 and ended.steps >= trainer.max_steps
    if epochs_taken or steps_taken or all(str(before[name]) == str(getattr(trainer, name)) for name in _LIMITS):
        return True
    if not checkpoint_files(run):
        raise ValueError(
            f"run_dir = {run.path} holds a run that has reached its end and has no checkpoint to resume from; "
            "give another folder"
        )
    return False


def with_resumed_run(args: list[str]) -> list[str]:
    """Return a command line in which ``--resume DIR`` is replaced by the options that resume the run.

    The options of the run come first, so that others on the command line replace them.

    Args:
        args: Arguments of ``lnsgd fit``.

    Raises:
        ValueError: the folder is missing, is not that of a run, or another run folder or config is given too.
    """
    rest, given = [], []
    words = iter(args)
    for word in words:
        name, equals, value = word.partition("=")
        if name == "--resume":
            given.append(value if equals else next(words, ""))
        else:
            rest.append(word)
    if not given or args[0] != "fit":
        return list(args)
    if len(given) > 1 or not given[0]:
        raise ValueError("--resume needs the folder of one run, such as runs/mnist")
    run = RunFolder(Path(given[0]))
    if not run.config.is_file():
        raise ValueError(f"--resume {run.path}: it is not the folder of a run (it has no {run.config.name})")
    if any(word.partition("=")[0] == "--run_dir" for word in rest):
        raise ValueError(f"--resume {run.path} and --run_dir: a run is resumed in its own folder; leave out --run_dir")
    with naming(run.config):
        in_effect = config_in_effect(run)
    config = json.dumps(in_effect) if run.changes.exists() else str(run.config)  # the parser takes a text, too
    return ["fit", f"--config={config}", f"--run_dir={run.path}", "--ckpt_path=auto", *rest[1:]]
