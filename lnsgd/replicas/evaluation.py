"""Validation and test totals of the replicas."""

import torch
from torch import Tensor

from lnsgd.modules.supervised import SupervisedModule
from lnsgd.replicas.data import EvaluationBatch


class EvaluationTotals:
    """Sums over the examples of a split, of each replica.

    Args:
        template: The module that is replicated, which says what is summed.
        replicas: Number of replicas.
        device: Device of the run.
    """

    def __init__(self, template: SupervisedModule, replicas: int, device: torch.device) -> None:
        self._template = template
        self._totals = [template.totals_class().to(device) for _ in range(replicas)]

    def add(self, batch: EvaluationBatch, outputs: Tensor) -> None:
        """Add a batch.

        Args:
            batch: The batch.
            outputs: Outputs of the replicas that share it, (S, B, O).
        """
        for index, own in zip(batch.replicas.tolist(), outputs):
            losses = self._template.loss(own, batch.labels)
            self._totals[index].update(*self._template.counted(losses, own, batch.labels, batch.labels))

    def compute(self, split: str) -> tuple[dict[str, dict[int, float]], list[str]]:
        """Compute the totals that are logged.

        Args:
            split: ``val`` or ``test``.

        Returns:
            Totals by name, such as ``val/loss``, and replica, and the names for the progress bar. Replicas without an
            example are missing: Lightning's check before training uses a few batches only.
        """
        computed = {index: totals.compute() for index, totals in enumerate(self._totals) if totals.examples}
        values = {
            f"{split}/{name}": {index: of_replica[name] for index, of_replica in computed.items()}
            for name in self._template.shown(split)
        }
        return values, [name for name in values if split == "val" and not name.endswith("/loss")]
