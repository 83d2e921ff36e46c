"""Base of the modules: SGD on noisy targets, totals on clean targets, exact resume."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Literal

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lnsgd import rng
from lnsgd.label_noise import LabelNoise, NoNoise
from lnsgd.loggers.scalars import log_scalars
from lnsgd.losses import Loss
from lnsgd.measures.precision import at_least_single, full_precision
from lnsgd.measuring import Batch
from lnsgd.modules.compiled import CompileMode, TrainingForward
from lnsgd.modules.evaluated import EvaluatedModule
from lnsgd.modules.noisy_targets import NoisyTargets, check_noise_steps
from lnsgd.modules.resume import ResumedRandomState, begin_loading, gathered

# The same types as in ``pytorch_lightning.cli``, which would import the parser of the command into every project.
OptimizerCallable = Callable[[Iterable[nn.Parameter]], Optimizer]
LRSchedulerCallable = Callable[[Optimizer], LRScheduler]


class SupervisedModule(EvaluatedModule):
    """Base of the modules, which train a network by SGD on noisy targets.

    The noise of a run is one keyed sequence over its examples (`lnsgd.streams.NoiseSchedule`), so that
    neither a restart nor the number of processes changes it. The gradient is the gradient of the mean loss
    over the global batch, also if processes hold shares of different size.

    Outputs are float32 if the network computes in half precision, and noise and loss are computed in at least
    single precision whatever the Trainer's ``precision``; so the noise in bf16-mixed, 16-mixed and bf16-true is the
    noise in 32-true. In bf16-true the Trainer rounds the data too, real targets included.

    Args:
        net: Network with outputs (B, C) or (B, O). A `Classifier` also takes one output (B, 1) for two classes; a
            `Regressor` needs targets of the outputs' shape.
        loss: Per-example loss, see `lnsgd.losses`; by default `CrossEntropy` for a `Classifier`, `SquaredLoss` for a
            `Regressor`.
        label_noise: Noise on the training targets; none by default.
        optimizer: Function from parameters to an optimizer.
        lr_scheduler: Function from an optimizer to a schedule; a constant learning rate by default.
        lr_scheduler_interval: Step the schedule after each ``epoch`` or after each ``step``.
        seed: Key of the noise.
        noise_steps: Number of optimizer steps with noise, from the first step on; further steps are taken on the
            same noise at level 0, so that the network settles. By default noise acts on all steps.
        channels_last: Keep the network's 4-d weights, and give it images, in ``torch.channels_last`` memory format:
            the same numbers up to the order of sums.
        compile_mode: Compile the forward and backward pass of training by `torch.compile` in this mode, at the first
            step and again for each other size of a batch: the same numbers up to rounding. Weights and their names,
            checkpoints and the random numbers of training stay as they are, except the random numbers of dropout.
            Validation, testing and measures run the network as it is. With ``max-autotune`` kernels are chosen by
            their speed, so that a repeated or resumed run may round differently. By default nothing is compiled.

    Raises:
        ValueError: a loss or a noise that does not fit the targets; negative ``noise_steps``, or any with a noise that
            has no level; ``channels_last`` for a network without 4-d weights; an unknown ``compile_mode``; before
            training, a ``compile_mode`` that cannot run here; in training, outputs that do not fit the data.
    """

    default_loss: ClassVar[type[Loss]]

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
        super().__init__(loss or self.default_loss())
        self.net = net
        self.channels_last = channels_last
        if channels_last:
            _lay_out_channels_last(net)
        self.compile_mode = compile_mode
        self._training_forward = TrainingForward(compile_mode)
        self.label_noise = label_noise or NoNoise()
        self.noise_steps = noise_steps
        check_noise_steps(noise_steps, self.label_noise)
        self.make_optimizer = optimizer
        self.make_lr_scheduler = lr_scheduler
        self.lr_scheduler_interval = lr_scheduler_interval
        self.seed = seed
        self._random_state = ResumedRandomState()
        self.noisy_targets = NoisyTargets()
        self.check_noise()

    @abstractmethod
    def check_noise(self) -> None:
        """Raise ValueError if the loss is not defined for the targets that the noise gives."""

    @abstractmethod
    def num_classes(self, outputs: Tensor) -> int | None:
        """Return the number of classes C that outputs distinguish; ``None`` for real targets."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the outputs of the network, in at least single precision."""
        if self.channels_last and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return at_least_single(self.net(inputs))

    def setup(self, stage: str) -> None:
        """Check the settings of the Trainer before anything is written."""
        if stage == "fit":
            self._training_forward.check(self.trainer)

    def configure_optimizers(self) -> Any:
        """Return the optimizer of the trainable parameters, with its schedule."""
        optimizer = self.make_optimizer([p for p in self.parameters() if p.requires_grad])
        if self.make_lr_scheduler is None:
            return optimizer
        schedule = {"scheduler": self.make_lr_scheduler(optimizer), "interval": self.lr_scheduler_interval}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def on_train_start(self) -> None:
        """Begin the noise of a new run, or continue with the noise and the random state of the checkpoint."""
        if self.trainer.global_step == 0:
            self.noisy_targets.restart()
        elif self.noisy_targets.examples_seen == 0:
            raise ValueError("the checkpoint does not say how many examples were seen; it is not one of this module")
        self._random_state.restore(self.trainer, self.device, self.seed)

    def training_step(self, batch: Batch | Sequence[Tensor], batch_idx: int) -> Tensor:
        """Return this process's part of the mean loss over the global batch."""
        inputs, labels, global_size = Batch.of(batch, self.trainer.world_size)
        outputs = self._training_forward(self, inputs)
        if batch_idx == 0:
            self.check_batch(outputs, labels)
            self.totals["train"].restart()  # a checkpoint after an epoch's last batch brings that epoch's sums along
        with full_precision(outputs.device.type):
            noise, classes = (self.label_noise, self.noise_steps, self.seed), self.num_classes(outputs)
            targets = self.noisy_targets.draw(self.trainer, *noise, labels, global_size, classes)
            losses = self.loss(outputs, targets)
        # Lightning averages gradients over processes; the factor turns that into the mean over examples.
        loss = losses.sum() * (self.trainer.world_size / global_size)
        self.totals["train"].add(*self.counted(losses.detach(), outputs.detach(), labels, targets))
        _log_batch_loss(self, loss.detach())
        return loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the position in the noise, and of each process the sums of an unfinished epoch and the random state."""
        checkpoint["examples_seen"] = self.noisy_targets.examples_seen
        of_all = gathered((rng.global_state(self.device), self.totals["train"].sums()))
        checkpoint["random_states"], checkpoint["train_totals"] = map(list, zip(*of_all))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` added; with another number of processes the first takes all sums."""
        self._random_state.load(checkpoint.get("random_states", []))
        self.noisy_targets.examples_seen = checkpoint.get("examples_seen", 0)
        if begin_loading(self, checkpoint):
            sums = checkpoint.get("train_totals", [])
            self.totals["train"].load_sums(sums, self.trainer.global_rank, self.trainer.world_size)


def _log_batch_loss(module: LightningModule, loss: Tensor) -> None:
    # Logged before the step is taken, so that a checkpoint of that step already has the row.
    trainer = module.trainer
    step = trainer.global_step + 1
    if step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
        mean = trainer.strategy.reduce(loss.clone(), reduce_op="mean")  # in place
        named = {"train/batch_loss": mean.item()}
        log_scalars(module, named, prog_bar=named, step=step)


def _lay_out_channels_last(net: nn.Module) -> None:
    if all(p.ndim != 4 for p in net.parameters()):
        raise ValueError(
            f"channels_last = True: {type(net).__name__} has no 4-d weights (nn.Conv2d) to lay out; leave it out"
        )
    net.to(memory_format=torch.channels_last)
