"""Checkpoints: whole or not at all, and refused in one line where they do not fit."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from lnsgd.run_folder import RunFolder
from lnsgd.untrusted.checkpoint import load_checkpoint
from lnsgd.writing import whole_file


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, then renames.

    Lightning writes to the system's temporary folder and moves from there; on another file system a
    move is a copy, and a run killed in the middle of it loses its newest checkpoint.

    What a file held before is kept beside it (`RunFolder.before`), in case that the disk damages the new one; but only
    where it is known to be whole, because this object has written or loaded it.
    """

    def __init__(self) -> None:
        self._known: set[Path] = set()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Saves a checkpoint to a local file.

        Raises:
            NotWrittenError: the system does not let it be written.
        """
        path = Path(path)
        with whole_file(path) as part:
            with part.open("wb") as file:  # of which errors are those of the system, and not torch's
                torch.save(checkpoint, file)
            if path.resolve() in self._known and path.exists():
                _keep_before(path)
        self._known.add(path.resolve())

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Loads a checkpoint to the CPU, without running code from it, whatever is asked for.

        It need not be of a run: Lightning hands weights alone from one process to another in this way.

        Raises:
            ValueError: it is damaged or no checkpoint.
        """
        content = load_checkpoint(Path(path))
        self._known.add(Path(path).resolve())
        return content


def _keep_before(path: Path) -> None:
    """Gives a file a second name; it keeps the first, so that there is a newest checkpoint at any moment."""
    with whole_file(RunFolder.before(path)) as part:
        try:
            part.hardlink_to(path)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, part)


def load_run_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint that a Trainer wrote; no code in it is run (``lnsgd.untrusted.checkpoint``).

    Args:
        path: The checkpoint.

    Raises:
        ValueError: it is damaged or no checkpoint of a run.
    """
    content = load_checkpoint(path)
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} is no checkpoint of a run (it has no state_dict of tensors); give another one")
    return content


def check_fits(path: Path, module: LightningModule) -> None:
    """Raises ValueError where a checkpoint is damaged, or of another model.

    Args:
        path: The checkpoint.
        module: What it would be loaded into; stays as it is.
    """
    saved = load_run_checkpoint(path)["state_dict"]
    own = module.state_dict()
    for name in (*own, *saved):
        here, there = _shape(own, name), _shape(saved, name)
        if here != there:
            raise ValueError(
                f"{path} is of another model: {name} is {there} there and {here} here; take the run's own config.yaml"
            )


def begin_next_epoch(checkpoint: dict[str, Any]) -> None:
    """Lets a run that is limited by steps go on from the end of an epoch with the first batch of the next, in place.

    Lightning takes such a run (``max_steps`` is set) for one that was stopped within the epoch, and trains another
    batch in it. A checkpoint that was written within an epoch stays as it is.

    Args:
        checkpoint: The whole content of a checkpoint file; changed in place.
    """
    loop = checkpoint["loops"]["fit_loop"]
    epochs, batches = loop["epoch_progress"], loop["epoch_loop.batch_progress"]
    if not epochs["total"]["ready"] == epochs["total"]["started"] == epochs["total"]["processed"]:
        return
    for counts in (epochs["total"], epochs["current"]):
        counts["completed"] = counts["processed"]
    batches["current"] = dict.fromkeys(batches["current"], 0)
    batches["is_last_batch"] = False


def _shape(state: dict[str, Any], name: str) -> str:
    return str(tuple(state[name].shape)) if name in state else "missing"
