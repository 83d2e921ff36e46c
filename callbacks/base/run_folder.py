"""The folder into which the callbacks of a Trainer write."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import finalize

from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_info

from lnsgd.runs.claims import Claim, claim, claim_new
from lnsgd.runs.folder import RunFolder

# The attribute of a Trainer that keeps its folder, and the entry of a checkpoint that names it.
_KEPT = "_lnsgd_run_folder"
_IN_CHECKPOINT = "lnsgd_run_folder"


def run_folder(trainer: Trainer) -> RunFolder:
    """Return the folder of a Trainer's run. Call it on all processes.

    This is the folder of the first logger that has one for each run (``log_dir``), as those for TensorBoard and CSV
    files have. Other loggers, such as those for MLflow and Weights & Biases, have none; then it is the Trainer's
    ``default_root_dir``, if one was given. Where there is neither, or where the table of another run is in that folder,
    the run gets a new folder ``runs/<class of the module>``, with a number if that is taken. Nothing is written into
    the working directory itself. A resumed run continues in the folder that its checkpoint names.

    Args:
        trainer: The Trainer, which keeps the answer.

    Raises:
        ValueError: the run is resumed by two commands at once.
        OSError: the folder cannot be created.
    """
    found: RunFolder | None = getattr(trainer, _KEPT, None)
    if found is None:
        answer: str | Exception = ""
        if trainer.is_global_zero:
            try:
                answer = str(_choose(trainer))
            except (OSError, ValueError) as error:  # of which the other processes must hear, too
                answer = error
        answer = trainer.strategy.broadcast(answer)
        if isinstance(answer, Exception):
            raise answer
        found = RunFolder(Path(answer))
        set_run_folder(trainer, found)
    return found


def set_run_folder(trainer: Trainer, folder: RunFolder) -> None:
    """Let the callbacks of a Trainer write into a folder that was chosen for its run.

    Args:
        trainer: The Trainer.
        folder: The folder of its run.
    """
    setattr(trainer, _KEPT, folder)


def note_run_folder(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Note in a checkpoint which folder the run writes to, if nothing else says it. Call it on all processes."""
    folder = run_folder(trainer)
    if trainer.is_global_zero and _home(trainer) is None:
        checkpoint[_IN_CHECKPOINT] = str(folder.path.absolute())


def restore_run_folder(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Continue in the folder that a checkpoint names, if the loggers and the Trainer name none and it still exists."""
    noted = checkpoint.get(_IN_CHECKPOINT)
    if noted is not None and getattr(trainer, _KEPT, None) is None and RunFolder(Path(noted)).measures.exists():
        set_run_folder(trainer, RunFolder(Path(noted)))


def _choose(trainer: Trainer) -> Path:
    home = _home(trainer)
    # A Trainer that has taken steps continues its run.
    continues = trainer.ckpt_path is not None or trainer.global_step > 0
    name = type(trainer.lightning_module).__name__
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return home or Path("runs") / name
    if home is not None and continues:
        _keep(trainer, claim(home))
        return home
    why = "the loggers have no folder for each run"
    if home is not None:
        why = f"another run writes into {home}"
        with suppress(ValueError):
            claimed = claim(home, seconds=0)
            if not RunFolder(home).measures.exists():
                _keep(trainer, claimed)
                return home
            claimed.release()
            why = f"{home} has the table of another run"
    claimed = claim_new((home or Path()) / "runs", name)
    _keep(trainer, claimed)
    rank_zero_info(f"lnsgd writes what it measures into {claimed.folder}, because {why}")
    return claimed.folder


def _keep(trainer: Trainer, claimed: Claim) -> None:
    """Keep others from the folder as long as there is the Trainer; an empty folder that was made for it is removed."""
    finalize(trainer, claimed.release)


def _home(trainer: Trainer) -> Path | None:
    """Return the folder that a logger has for this run, or else the one that the Trainer was given."""
    for logger in trainer.loggers:
        if _is_own(folder := getattr(logger, "log_dir", None)):
            return Path(str(folder))
    return Path(trainer.default_root_dir) if _is_own(trainer.default_root_dir) else None


def _is_own(folder: str | os.PathLike[str] | None) -> bool:
    """Whether a folder is on this machine, and is not simply the working directory."""
    return folder is not None and "://" not in str(folder) and Path(folder).resolve() != Path.cwd().resolve()
