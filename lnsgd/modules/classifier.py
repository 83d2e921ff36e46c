"""Classification with label noise."""

from typing import Literal

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lnsgd.label_noise import LabelNoise
from lnsgd.losses import CrossEntropy, Loss, check_compatible, num_classes_of
from lnsgd.modules.compiled import CompileMode
from lnsgd.modules.supervised import SupervisedModule
from lnsgd.modules.totals import ClassificationTotals


class Classifier(SupervisedModule):
    """Trains a network by SGD on noisy labels; every accuracy is on clean labels.

    Logs ``train/batch_loss`` every ``log_every_n_steps``, and per epoch ``train/loss`` (on the noisy
    targets), ``train/accuracy``, ``train/flip_rate`` (hard noise only), ``val/loss``, ``val/accuracy``,
    ``test/loss``, ``test/accuracy`` (on clean labels).

    Args:
        net: Network with outputs (B, C), or (B, 1) for two classes.
        loss: Per-example loss, see `lnsgd.losses`; `CrossEntropy` by default.
        label_noise: Noise on the training labels; none by default.
        optimizer: From parameters to optimizer.
        lr_scheduler: From optimizer to a schedule; constant by default.
        lr_scheduler_interval: Step the schedule after each ``epoch`` or after each ``step``.
        seed: Key of the noise.
        noise_steps: Number of optimizer steps with noise, see `SupervisedModule`; all by default.
        channels_last: Memory format of images and convolutions, see `SupervisedModule`.
        compile_mode: Train by `torch.compile` in this mode, see `SupervisedModule`; not by default.

    Raises:
        ValueError: the loss is not defined for the targets that the noise gives; in training, a
            network whose outputs do not match the DataModule's classes.
    """

    totals_class = ClassificationTotals

    def __init__(
        self,
        net: nn.Module,
        loss: Loss | None = None,
        label_noise: LabelNoise | None = None,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_scheduler_interval: Literal["epoch", "step"] = "epoch",
        seed: int = 0,
        noise_steps: int | None = None,
        channels_last: bool = False,
        compile_mode: CompileMode | None = None,
    ) -> None:
        loss = loss or CrossEntropy()
        schedule = (lr_scheduler, lr_scheduler_interval)
        super().__init__(net, loss, label_noise, optimizer, *schedule, seed, noise_steps, channels_last, compile_mode)
        check_compatible(self.loss, self.label_noise)

    def num_classes(self, outputs: Tensor) -> int:
        """Number of classes C that outputs distinguish."""
        return num_classes_of(outputs)

    def check_outputs(self, outputs: Tensor, labels: Tensor, num_classes: int | None) -> None:
        """Raises ValueError where the network's outputs do not match the number of classes."""
        if labels.is_floating_point():
            raise ValueError("Classifier takes class labels, the data has real targets; use Regressor")
        if num_classes is not None and num_classes_of(outputs) != num_classes:
            raise ValueError(
                f"the network has {outputs.shape[-1]} outputs for {num_classes} classes; give it one per class, or for "
                "two classes a single one"
            )
        if self.label_noise.targets == "real" and outputs.shape[-1] == 1:
            raise ValueError("real noise on a single output needs real labels ±1; use two outputs, or UniformNoise")

    def counted(self, losses: Tensor, outputs: Tensor, labels: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Losses, outputs, clean labels, and the labels trained on where those are hard."""
        return losses, outputs, labels, labels if targets.is_floating_point() else targets

    def shown(self, split: str) -> tuple[str, ...]:
        """Loss and accuracy; in training with hard noise also the realized flip rate."""
        flips = split == "train" and self.label_noise.targets == "hard"
        return ("loss", "accuracy", "flip_rate") if flips else ("loss", "accuracy")
