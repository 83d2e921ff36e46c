"""Checkpoints: whole or not at all, and refused in one line where they do not fit."""

import os
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.plugins.io import TorchCheckpointIO

from lnsgd.run_folder import whole_file


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, then renames.

    Lightning writes to the system's temporary folder and moves from there; on another file system a
    move is a copy, and a run killed in the middle of it loses its newest checkpoint.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Saves a checkpoint to a local file."""
        with whole_file(Path(path)) as part:
            torch.save(checkpoint, part)


def check_fits(path: Path, module: LightningModule) -> None:
    """Raises ValueError where a checkpoint is damaged, or of another model."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    except Exception as error:
        raise ValueError(
            f"{path} is damaged or no checkpoint of a run ({' '.join(str(error).split())[:200]})"
        ) from error
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
