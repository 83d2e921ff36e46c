"""Regression with label noise."""

from typing import Literal

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lnsgd.label_noise import LabelNoise, NoNoise
from lnsgd.losses import Loss, SquaredLoss
from lnsgd.modules.compiled import CompileMode
from lnsgd.modules.supervised import SupervisedModule
from lnsgd.modules.totals import LossTotals


class Regressor(SupervisedModule):
    """Trains a network by SGD on noisy real targets; validation and test losses are on clean ones.

    With `lnsgd.losses.SquaredLoss` and `lnsgd.label_noise.GaussianNoise` it is the setting of Blanc et
    al., batch one (``batch_size=1, replacement=True``) or full batch (``batch_size=None``).

    Logs ``train/batch_loss`` every ``log_every_n_steps``, and per epoch ``train/loss`` (on the noisy
    targets), ``val/loss`` and ``test/loss`` (on clean ones).

    Args:
        net: Network with outputs (B, O); the targets have the same shape.
        loss: Per-example loss that takes real targets; `SquaredLoss` by default.
        label_noise: `GaussianNoise` or, by default, none.
        optimizer: From parameters to optimizer.
        lr_scheduler: From optimizer to a schedule; constant by default.
        lr_scheduler_interval: Step the schedule after each ``epoch`` or after each ``step``.
        seed: Key of the noise.
        noise_steps: Number of optimizer steps with noise, see `SupervisedModule`; all by default.
        channels_last: Memory format of images and convolutions, see `SupervisedModule`.
        compile_mode: Train by `torch.compile` in this mode, see `SupervisedModule`; not by default.

    Raises:
        ValueError: a loss or a noise that is not defined for real targets; in training, targets of
            another shape than the outputs.
    """

    totals_class = LossTotals

    def __init__(
        self,
        net: nn.Module,
        loss: Loss | None = None,
        label_noise: LabelNoise | None = None,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.SGD(parameters, lr=0.01),
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_scheduler_interval: Literal["epoch", "step"] = "epoch",
        seed: int = 0,
        noise_steps: int | None = None,
        channels_last: bool = False,
        compile_mode: CompileMode | None = None,
    ) -> None:
        loss = loss or SquaredLoss()
        schedule = (lr_scheduler, lr_scheduler_interval)
        super().__init__(net, loss, label_noise, optimizer, *schedule, seed, noise_steps, channels_last, compile_mode)
        if "real" not in self.loss.accepts:
            raise ValueError(f"Regressor: {type(self.loss).__name__} is not defined for real targets; use SquaredLoss")
        if self.label_noise.targets != "real" and not isinstance(self.label_noise, NoNoise):
            noise = type(self.label_noise).__name__
            raise ValueError(f"Regressor: {noise} is not defined for real targets; use GaussianNoise")

    def num_classes(self, outputs: Tensor) -> None:
        """There are none."""

    def check_outputs(self, outputs: Tensor, labels: Tensor, num_classes: int | None) -> None:
        """Raises ValueError where the targets are class labels, or of another shape than the outputs."""
        if not labels.is_floating_point():
            raise ValueError("Regressor takes real targets, the data has class labels; use Classifier")
        if labels.shape != outputs.shape:
            raise ValueError(
                f"Regressor: targets of shape {tuple(labels.shape[1:])} an example for outputs of shape "
                f"{tuple(outputs.shape[1:])}; give targets (n, {', '.join(map(str, outputs.shape[1:]))})"
            )

    def counted(self, losses: Tensor, outputs: Tensor, labels: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """The losses."""
        return (losses,)

    def shown(self, split: str) -> tuple[str, ...]:
        """The loss."""
        return ("loss",)
