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


def _shape(state: dict[str, Any], name: str) -> str:
    return str(tuple(state[name].shape)) if name in state else "missing"
