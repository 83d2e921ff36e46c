"""Regression with label noise."""

from typing import Any

import torch
from torch import Tensor, nn

from lnsgd.label_noise import LabelNoise, NoNoise
from lnsgd.losses import Loss, SquaredLoss
from lnsgd.modules.supervised import OptimizerCallable, SupervisedModule
from lnsgd.modules.totals import LossTotals


class Regressor(SupervisedModule):
    """Trains a network by SGD on noisy real targets; validation and test losses are on clean targets.

    With `lnsgd.losses.SquaredLoss` and `lnsgd.label_noise.GaussianNoise` it is the setting of Blanc et
    al., batch one (``batch_size=1, replacement=True``) or full batch (``batch_size=None``).

    Logs ``train/batch_loss`` every ``log_every_n_steps``, and per epoch ``train/loss`` (on the noisy
    targets), ``val/loss`` and ``test/loss`` (on clean targets).

    Args:
        net: Network with outputs (B, O); the targets have the same shape.
        loss: Per-example loss for real targets; `SquaredLoss` by default.
        label_noise: `GaussianNoise`; by default none.
        optimizer: Function from parameters to an optimizer.
        options: Further arguments of `SupervisedModule`.

    Raises:
        ValueError: a loss or a noise that is not defined for real targets; in training, targets of
            another shape than the outputs.
    """

    default_loss = SquaredLoss
    totals_class = LossTotals

    def __init__(
        self,
        net: nn.Module,
        loss: Loss | None = None,
        label_noise: LabelNoise | None = None,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.SGD(parameters, lr=0.01),
        **options: Any,
    ) -> None:
        super().__init__(net, loss, label_noise, optimizer, **options)

    def check_noise(self) -> None:
        """Raise ValueError for a loss or a noise that is not defined for real targets."""
        if "real" not in self.loss.accepts:
            raise ValueError(f"Regressor: {type(self.loss).__name__} is not defined for real targets; use SquaredLoss")
        if self.label_noise.targets != "real" and not isinstance(self.label_noise, NoNoise):
            noise = type(self.label_noise).__name__
            raise ValueError(f"Regressor: {noise} is not defined for real targets; use GaussianNoise")

    def num_classes(self, outputs: Tensor) -> None:
        """Return ``None``: there are no classes."""

    def check_outputs(self, outputs: Tensor, labels: Tensor, num_classes: int | None) -> None:
        """Raise ValueError if the targets are class labels, or of another shape than the outputs."""
        if not labels.is_floating_point():
            raise ValueError("Regressor takes real targets, the data has class labels; use Classifier")
        if labels.shape != outputs.shape:
            raise ValueError(
                f"Regressor: targets of shape {tuple(labels.shape[1:])} an example for outputs of shape "
                f"{tuple(outputs.shape[1:])}; give targets (n, {', '.join(map(str, outputs.shape[1:]))})"
            )

    def counted(self, losses: Tensor, outputs: Tensor, labels: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Return the losses."""
        return (losses,)

    def shown(self, split: str) -> tuple[str, ...]:
        """Return the loss."""
        return ("loss",)
