"""Which replicas of a run take no further step, since when, and why."""

from typing import Any

import torch
from torch import Tensor


class Frozen:
    """Replicas that were stopped, and those that diverged.

    A stopped replica has reached its end: it still counts in all measures. A diverged one counts in none.

    Args:
        replicas: Their number R; at first all move.

    Attributes:
        at: Steps that a replica had taken when it was frozen, −1 for those that move. Shape (R,), int64. Engines
            freeze those that diverge in this tensor, in place.
        stopped_by: By index of those that were stopped, the name of what did it.
    """

    def __init__(self, replicas: int) -> None:
        self.at = torch.full((replicas,), -1)
        self.stopped_by: dict[int, str] = {}

    @property
    def moving(self) -> list[int]:
        """Replicas that take steps."""
        return [index for index, step in enumerate(self.at.tolist()) if step < 0]

    @property
    def living(self) -> list[int]:
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

    def stop(self, replica: int, step: int, by: str) -> None:
        """Stops a replica that moves."""
        assert self.at[replica] < 0
        self.at[replica] = step
        self.stopped_by[replica] = by

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"at": self.at.cpu(), "stopped_by": dict(self.stopped_by)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes it back."""
        self.at, self.stopped_by = state["at"].clone(), dict(state["stopped_by"])
