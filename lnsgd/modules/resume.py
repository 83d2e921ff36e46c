"""State of a run that resuming needs besides weights, optimizer and counters, which Lightning restores."""

from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import LightningModule, Trainer

from lnsgd import compat, rng


def begin_loading(module: LightningModule, checkpoint: dict[str, Any]) -> bool:
    """Prepare a module for the weights of a checkpoint; return whether a Trainer loads it.

    Args:
        module: The module.
        checkpoint: Content of the checkpoint; the end of an epoch becomes the beginning of the next one.
    """
    if compat.attached_trainer(module) is None:
        return False
    compat.begin_next_epoch(checkpoint, module.trainer.max_steps)
    # Lightning loads weights before it gives the module its type, and so would round the weights of 64-true.
    module.trainer.precision_plugin.convert_module(module)
    return True


def gathered(mine: Any) -> list[Any]:
    """Return the objects of all processes, by rank.

    Args:
        mine: The object of this process.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return [mine]
    found = [None] * dist.get_world_size()
    dist.all_gather_object(found, mine)
    return found


class ResumedRandomState:
    """States of the global random generators from a checkpoint, one for each process of the run that wrote it."""

    def __init__(self) -> None:
        self._states: list[dict[str, torch.Tensor]] = []

    def load(self, states: list[dict[str, torch.Tensor]]) -> None:
        """Keep the states, by rank, until `restore`."""
        self._states = states

    def restore(self, trainer: Trainer, device: torch.device, seed: int) -> None:
        """Set the global generators of this process, once.

        Without a state of its own in the checkpoint, a process other than the first gets a keyed state, for dropout.

        Args:
            trainer: The Trainer of the run.
            device: Device of this process.
            seed: Seed of the run.
        """
        rank = trainer.global_rank
        if rank < len(self._states):
            rng.set_global_state(self._states[rank], device)
        elif rank > 0:  # all processes started from one seed, and would drop the same units
            rng.seed_globals(seed, "dropout", rank, trainer.global_step)
        self._states = []
