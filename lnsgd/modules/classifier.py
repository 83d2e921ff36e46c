"""Classification with label noise."""

from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lnsgd import rng
from lnsgd.data.batch import Batch
from lnsgd.label_noise import LabelNoise, NoNoise
from lnsgd.loggers.scalars import log_scalars
from lnsgd.losses import CrossEntropy, Loss, check_compatible, num_classes_of
from lnsgd.modules.totals import ClassificationTotals


class Classifier(LightningModule):
    """Trains a network by SGD on noisy labels; every accuracy is on clean labels.

    The noise of a batch is keyed by (seed, "noise", epoch, batch) and drawn for the global batch, so
    that neither a restart nor the number of processes changes it. The gradient is that of the mean
    loss over the global batch, also where processes hold shares of different size.

    Logs ``train/batch_loss`` every ``log_every_n_steps``, and per epoch ``train/loss`` (on the noisy
    targets), ``train/accuracy``, ``train/flip_rate`` (hard noise only), ``val/loss``, ``val/accuracy``,
    ``test/loss``, ``test/accuracy`` (on clean labels).

    Args:
        net: Network with outputs (B, C), or (B, 1) for two classes.
        loss: Per-example loss, see `lnsgd.losses`.
        label_noise: Noise on the training labels; none by default.
        optimizer: From parameters to optimizer.
        lr_scheduler: From optimizer to a schedule, stepped once per epoch; constant by default.
        seed: Key of the noise.

    Raises:
        ValueError: the loss is not defined for the targets that the noise gives; in training, a
            network whose outputs do not match the DataModule's classes.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: Loss | None = None,
        label_noise: LabelNoise | None = None,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        lr_scheduler: LRSchedulerCallable | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.net = net
        self.loss = loss or CrossEntropy()
        self.label_noise = label_noise or NoNoise()
        self.make_optimizer = optimizer
        self.make_lr_scheduler = lr_scheduler
        self.seed = seed
        self._random_state: dict[str, Tensor] | None = None
        self.totals = nn.ModuleDict({f"{split}_totals": ClassificationTotals() for split in ("train", "val", "test")})
        check_compatible(self.loss, self.label_noise)

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs of the network."""
        return self.net(inputs)

    def configure_optimizers(self) -> Any:
        """The optimizer over trainable parameters, with its schedule."""
        optimizer = self.make_optimizer([p for p in self.parameters() if p.requires_grad])
        return [optimizer], [self.make_lr_scheduler(optimizer)] if self.make_lr_scheduler else []

    def training_step(self, batch: Batch | Sequence[Tensor], batch_idx: int) -> Tensor:
        """This process's part of the mean loss over the global batch."""
        inputs, labels, global_size = Batch.of(batch, self.trainer.world_size)
        outputs = self(inputs)
        if batch_idx == 0:
            self._check(outputs)
            self._totals("train").restart()  # a checkpoint after an epoch's last batch brings that epoch's sums along
        targets = self.noisy_targets(labels, global_size, num_classes_of(outputs), batch_idx)
        losses = self.loss(outputs, targets)
        # Lightning averages gradients over processes; the factor turns that into the mean over examples.
        loss = losses.sum() * (self.trainer.world_size / global_size)
        hard = targets if self.label_noise.targets == "hard" else None
        self._totals("train").add(losses.detach(), outputs.detach(), labels, hard)
        self._log_batch_loss(loss.detach())
        return loss

    def on_train_start(self) -> None:
        """Goes on with the random state of the checkpoint, where there was one."""
        if self._random_state is not None:
            rng.set_global_state(self._random_state, self.device)
            self._random_state = None

    def noisy_targets(self, labels: Tensor, global_size: int, num_classes: int, batch_idx: int) -> Tensor:
        """Targets of this process's share (B,) of a global batch."""
        generator = rng.generator(self.seed, "noise", self.trainer.current_epoch, batch_idx, device=labels.device)
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        if world_size == 1:
            return self.label_noise(labels, generator, num_classes)
        # The noise depends on the shape of the labels alone (see LabelNoise), so those of the other
        # processes need not be known.
        everyones = labels.new_zeros(global_size)
        everyones[rank::world_size] = labels
        return self.label_noise(everyones, generator, num_classes)[rank::world_size]

    def validation_step(self, batch: Batch | Sequence[Tensor], batch_idx: int) -> None:
        """Adds a validation batch."""
        self._evaluate("val", batch, batch_idx)

    def test_step(self, batch: Batch | Sequence[Tensor], batch_idx: int) -> None:
        """Adds a test batch."""
        self._evaluate("test", batch, batch_idx)

    def on_train_epoch_end(self) -> None:
        """Logs the epoch's training totals."""
        shown = ("loss", "accuracy", "flip_rate") if self.label_noise.targets == "hard" else ("loss", "accuracy")
        self._log_totals("train", shown)

    def on_validation_epoch_end(self) -> None:
        """Logs the validation totals."""
        self._log_totals("val", ("loss", "accuracy"), prog_bar=("val/accuracy",))

    def on_test_epoch_end(self) -> None:
        """Logs the test totals."""
        self._log_totals("test", ("loss", "accuracy"))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the sums of an unfinished epoch, and the global random state (for networks with dropout)."""
        checkpoint["random_state"] = rng.global_state(self.device)
        totals, reduce = self._totals("train"), self.trainer.strategy.reduce
        totals.flush()
        checkpoint["train_totals"] = {
            name: reduce(getattr(totals, name).clone(), reduce_op="sum").cpu() for name in totals._defaults
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes them back."""
        self._random_state = checkpoint.get("random_state")
        if self._trainer is None or not self.trainer.is_global_zero:  # the sum of all processes goes on in one
            return
        totals = self._totals("train")
        for name, value in checkpoint.get("train_totals", {}).items():
            setattr(totals, name, value.to(totals.device))

    def _totals(self, split: str) -> ClassificationTotals:
        return self.totals[f"{split}_totals"]  # type: ignore[return-value]

    def _check(self, outputs: Tensor) -> None:
        classes = getattr(getattr(self.trainer, "datamodule", None), "num_classes", None)
        if classes is not None and num_classes_of(outputs) != classes:
            raise ValueError(
                f"the network has {outputs.shape[-1]} outputs for {classes} classes; give it one per class, or for two "
                "classes a single one"
            )
        if self.label_noise.targets == "real" and outputs.shape[-1] == 1:
            raise ValueError("real noise on a single output needs real labels ±1; use two outputs, or UniformNoise")

    def _evaluate(self, split: str, batch: Batch | Sequence[Tensor], batch_idx: int) -> None:
        inputs, labels = batch[0], batch[1]
        outputs = self(inputs)
        if batch_idx == 0:
            self._check(outputs)
        self._totals(split).add(self.loss(outputs, labels), outputs, labels)

    def _log_batch_loss(self, loss: Tensor) -> None:
        # Logged before the step is taken, so that a checkpoint of that step already has the row.
        step = self.trainer.global_step + 1
        if step % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            mean = self.trainer.strategy.reduce(loss.clone(), reduce_op="mean")  # in place
            named = {"train/batch_loss": mean.item()}
            log_scalars(self, named, prog_bar=named, step=step)

    def _log_totals(self, split: str, names: tuple[str, ...], prog_bar: tuple[str, ...] = ()) -> None:
        totals = self._totals(split)
        totals.flush()
        values = totals.compute()
        totals.restart()
        named = {f"{split}/{name}": values[name] for name in names}
        log_scalars(self, named, {name: named[name] for name in prog_bar})
