"""Checkpoints are written whole or not at all, and a checkpoint that does not fit is refused in one line."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from lnsgd.runs.folder import RunFolder
from lnsgd.runs.writing import whole_file
from lnsgd.untrusted.checkpoint import load_checkpoint


class WholeCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written beside their target and then renamed.

    Lightning writes to the system's temporary folder and moves the file. On another file system moving is copying, and
    a run that is killed meanwhile loses its newest checkpoint.

    The former content of a file is kept beside it (`RunFolder.before`), in case that the disk damages the new one. It
    is kept only if it is known to be intact, because this object has written or loaded it.
    """

    def __init__(self) -> None:
        self._known: set[Path] = set()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Save a checkpoint to a local file.

        Raises:
            NotWrittenError: The system cannot write it.
        """
        path = Path(path)
        with whole_file(path) as part:
            with part.open("wb") as file:  # so that errors are those of the system instead of torch's
                torch.save(checkpoint, file)
            if path.resolve() in self._known and path.exists():
                _keep_before(path)
        self._known.add(path.resolve())

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load a checkpoint to the CPU without executing code from it, whatever is requested.

        It need not be of a run: Lightning also passes weights from one process to another in this way.

        Raises:
            ValueError: The file is damaged or not a checkpoint.
        """
        content = load_checkpoint(Path(path))
        self._known.add(Path(path).resolve())
        return content


def _keep_before(path: Path) -> None:
    """Give a file a second name; it keeps its first, so that there is a newest checkpoint at any moment."""
    with whole_file(RunFolder.before(path)) as part:
        try:
            part.hardlink_to(path)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, part)


def load_run_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint that a Trainer wrote, without executing code from it (``lnsgd.untrusted.checkpoint``).

    Args:
        path: The checkpoint.

    Raises:
        ValueError: The file is damaged or not a checkpoint of a run.
    """
    content = load_checkpoint(path)
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(
            f"{path} is not a checkpoint of a run (it has no state_dict of tensors); give a checkpoint of a run"
        )
    return content


def check_fits(path: Path, module: LightningModule) -> None:
    """Raise ValueError if a checkpoint is damaged, or belongs to another model.

    Args:
        path: The checkpoint.
        module: The module that is to load it; it is not changed.
    """
    saved = load_run_checkpoint(path)["state_dict"]
    own = module.state_dict()
    for name in (*own, *saved):
        expected, found = _shape(own, name), _shape(saved, name)
        if expected != found:
            raise ValueError(
                f"{path} belongs to another model: {name} is {found} in the file and {expected} in the model; use the "
                "config.yaml of its run"
            )


def _shape(state: dict[str, Any], name: str) -> str:
    return str(tuple(state[name].shape)) if name in state else "missing"
