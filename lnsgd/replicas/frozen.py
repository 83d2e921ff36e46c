"""The replicas that take no further step."""

from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from lnsgd.replicas.grid import Replica


class FrozenReplicas:
    """Which replicas of a run are frozen, since which step, and why.

    A replica is *running* until it is frozen. It is frozen because it was *stopped*, by a stopping rule, or because it
    *diverged*. A replica is *valid* unless it has diverged: running and stopped replicas are measured, replicas that
    have diverged are not.

    Args:
        replicas: Number of replicas R; all are running at first.

    Attributes:
        at: Number of steps that a replica had taken when it was frozen, −1 for running replicas. Shape (R,), int64.
            Engines freeze the replicas that diverge in this tensor, in place.
        stopped_by: Name of the stopping rule of each replica that was stopped, by index.
    """

    def __init__(self, replicas: int) -> None:
        self.at = torch.full((replicas,), -1)
        self.stopped_by: dict[int, str] = {}

    @property
    def running(self) -> list[int]:
        """Replicas that take steps."""
        return [index for index, step in enumerate(self.at.tolist()) if step < 0]

    @property
    def valid(self) -> list[int]:
        """Replicas that have not diverged."""
        return [index for index, step in enumerate(self.at.tolist()) if step < 0 or index in self.stopped_by]

    @property
    def stopped_at(self) -> Tensor:
        """Step at which a replica was stopped, −1 for the others, (R,), int64."""
        return self._only(stopped=True)

    @property
    def diverged_at(self) -> Tensor:
        """Step at which a replica diverged, −1 for the others, (R,), int64."""
        return self._only(stopped=False)

    def _only(self, stopped: bool) -> Tensor:
        chosen = [(index in self.stopped_by) == stopped for index in range(len(self.at))]
        return self.at.where(torch.tensor(chosen, device=self.at.device), -1)

    def stop(self, replica: int, step: int, rule: str) -> None:
        """Freeze a running replica.

        Args:
            replica: Index of the replica.
            step: Number of steps that it has taken.
            rule: Name of the stopping rule.
        """
        assert self.at[replica] < 0
        self.at[replica] = step
        self.stopped_by[replica] = rule

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"at": self.at.cpu(), "stopped_by": dict(self.stopped_by)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.at, self.stopped_by = state["at"].clone(), dict(state["stopped_by"])


def warn_of_diverged(replicas: Sequence[Replica], frozen: FrozenReplicas, running_before: Sequence[int]) -> None:
    """Warn of each replica that has diverged since some were running.

    Args:
        replicas: Settings of the replicas.
        frozen: Which replicas are frozen now.
        running_before: Replicas that were running before.
    """
    diverged = sorted({*running_before} - {*frozen.running})
    for index in diverged:
        step = int(frozen.at[index])
        rank_zero_warn(f"replica {index} ({replicas[index]}) diverged at step {step}; it is frozen")
    if diverged and not frozen.valid:
        rank_zero_warn("all replicas have diverged; training stops")
