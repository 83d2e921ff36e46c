"""What all modules share: SGD on noisy targets, totals on clean ones, exact resume."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.distributed as dist
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lnsgd import rng
from lnsgd.checkpoints import begin_next_epoch
from lnsgd.data.batch import Batch
from lnsgd.label_noise import LabelNoise, NoNoise
from lnsgd.loggers.scalars import log_scalars
from lnsgd.losses import Loss
from lnsgd.measures.precision import at_least_single, full_precision
from lnsgd.modules.compiled import CompileMode, check_compilable, check_mode, compiled
from lnsgd.modules.totals import LossTotals
from lnsgd.streams import NoiseSchedule


class SupervisedModule(LightningModule):
    """Base of the modules: trains a network by SGD on noisy targets.

    The noise of a run is one keyed sequence over its examples (`lnsgd.streams.NoiseSchedule`), so that
    neither a restart nor the number of processes changes it. The gradient is that of the mean loss
    over the global batch, also where processes hold shares of different size.

    Outputs are float32 where the network computes in half precision, and noise and loss are computed in at least
    single precision whatever the Trainer's ``precision``; so the noise of bf16-mixed, 16-mixed and bf16-true is that of
    32-true. Under bf16-true the Trainer rounds the data too, real targets included.

    Args:
        net: Network with outputs (B, O).
        loss: Per-example loss, see `lnsgd.losses`.
        label_noise: Noise on the training targets; none by default.
        optimizer: From parameters to optimizer.
        lr_scheduler: From optimizer to a schedule; constant by default.
        lr_scheduler_interval: Step the schedule after each ``epoch`` or after each ``step``.
        seed: Key of the noise.
        noise_steps: Number of optimizer steps with noise, from the first on; the further ones are taken on the
            same noise at level 0, so that the network settles. By default noise acts on all steps.
        channels_last: Keep the network's 4-d weights, and give it images, in ``torch.channels_last`` memory format:
            the same numbers up to the order of sums.
        compile_mode: Compile the forward and backward pass of training by `torch.compile` in this mode, at the first
            step and again for each other size of a batch: the same numbers up to rounding. Weights and their names,
            checkpoints and random numbers of training stay as they are, but for dropout's, which are others.
            Validation, testing and measures run the network as it is. With ``max-autotune`` kernels are chosen by
            their speed, so that a repeated or resumed run may round differently.

    Raises:
        ValueError: negative ``noise_steps``, or any with a noise that has no level; ``channels_last`` for a network
            without 4-d weights; an unknown ``compile_mode``; before training, one that cannot run here.
    """

    totals_class: ClassVar[type[LossTotals]]

    def __init__(
        self,
        net: nn.Module,
        loss: Loss,
        label_noise: LabelNoise | None = None,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_scheduler_interval: Literal["epoch", "step"] = "epoch",
        seed: int = 0,
        noise_steps: int | None = None,
        channels_last: bool = False,
        compile_mode: CompileMode | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.channels_last = channels_last
        if channels_last:
            _lay_out_channels_last(net)
        check_mode(compile_mode)
        self.compile_mode: CompileMode | None = compile_mode
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self.loss = loss
        self.label_noise = label_noise or NoNoise()
        self.noise_steps = noise_steps
        if noise_steps is not None:
            _check_noise_steps(noise_steps, self.label_noise)
        self.make_optimizer = optimizer
        self.make_lr_scheduler = lr_scheduler
        self.lr_scheduler_interval = lr_scheduler_interval
        self.seed = seed
        self._random_states: list[dict[str, Tensor]] = []
        self._examples_seen = 0
        self._noise: NoiseSchedule | None = None
        self.totals = nn.ModuleDict({f"{split}_totals": self.totals_class() for split in ("train", "val", "test")})

    @abstractmethod
    def check_outputs(self, outputs: Tensor, labels: Tensor, num_classes: int | None) -> None:
        """Raises ValueError where outputs do not fit labels, or the data's number of classes where that is known."""

    @abstractmethod
    def num_classes(self, outputs: Tensor) -> int | None:
        """Number of classes C that outputs distinguish; ``None`` for real targets."""

    @abstractmethod
    def counted(self, losses: Tensor, outputs: Tensor, labels: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """What a batch adds to its totals: the arguments of ``totals_class.update``."""

    @abstractmethod
    def shown(self, split: str) -> tuple[str, ...]:
        """Names of the totals of a split that are logged."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs of the network, in at least single precision."""
        if self.channels_last and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return at_least_single(self.net(inputs))

    def __getstate__(self) -> dict[str, Any]:
        """Without the compiled forward pass, which a copy makes anew."""
        return {**super().__getstate__(), "_compiled": None}

    def setup(self, stage: str) -> None:
        """Checks what can be checked before anything is written."""
        if stage == "fit" and self.compile_mode is not None:
            check_compilable(self.compile_mode, self.trainer)

    def configure_optimizers(self) -> Any:
        """The optimizer over trainable parameters, with its schedule."""
        optimizer = self.make_optimizer([p for p in self.parameters() if p.requires_grad])
        if self.make_lr_scheduler is None:
            return optimizer
        schedule = {"scheduler": self.make_lr_scheduler(optimizer), "interval": self.lr_scheduler_interval}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def training_step(self, batch: Batch | Sequence[Tensor], batch_idx: int) -> Tensor:
        """This process's part of the mean loss over the global batch."""
        inputs, labels, global_size = Batch.of(batch, self.trainer.world_size)
        outputs = self._outputs_to_train(inputs)
        if batch_idx == 0:
            self._check(outputs, labels)
            self._totals("train").restart()  # a checkpoint after an epoch's last batch brings that epoch's sums along
        with full_precision(outputs.device.type):
            targets = self._noisy_targets(labels, global_size, self.num_classes(outputs))
            losses = self.loss(outputs, targets)
        # Lightning averages gradients over processes; the factor turns that into the mean over examples.
        loss = losses.sum() * (self.trainer.world_size / global_size)
        self._totals("train").add(*self.counted(losses.detach(), outputs.detach(), labels, targets))
        self._log_batch_loss(loss.detach())
        return loss

    def _outputs_to_train(self, inputs: Tensor) -> Tensor:
        if self.compile_mode is None:
            return self(inputs)
        if self._compiled is None:
            self._compiled = compiled(self.forward, self.compile_mode)
        return self._compiled(inputs)

    def on_train_start(self) -> None:
        """Starts the noise anew in a new run; else goes on with the random state of the checkpoint."""
        if self.trainer.global_step == 0:
            self._examples_seen, self._noise = 0, None
        elif self._examples_seen == 0:
            raise ValueError("the checkpoint does not say how many examples were seen; it is not one of this module")
        self._take_random_state()

    def _take_random_state(self) -> None:
        """That of the checkpoint; where it has none, a process but the first gets one of its own, for dropout."""
        rank = self.trainer.global_rank
        if rank < len(self._random_states):
            rng.set_global_state(self._random_states[rank], self.device)
        elif rank > 0:  # all started from the same seed, which would drop the same units
            rng.seed_globals(self.seed, "dropout", rank, self.trainer.global_step)
        self._random_states = []

    def _noisy_targets(self, labels: Tensor, global_size: int, num_classes: int | None) -> Tensor:
        """Targets of this process's share of a global batch."""
        if self._noise is None:
            shape = tuple(labels.shape[1:])
            noise, steps = self.label_noise, self.noise_steps
            self._noise = NoiseSchedule(noise, steps, self.seed, shape, num_classes, labels.device)
        start = self._examples_seen
        self._examples_seen += global_size
        mine = slice(self.trainer.global_rank, None, self.trainer.world_size)
        return self._noise.at(self.trainer.global_step).targets(labels, start, global_size, mine)

    def validation_step(self, batch: Batch | Sequence[Tensor], batch_idx: int) -> None:
        """Adds a validation batch."""
        self._evaluate("val", batch, batch_idx)

    def test_step(self, batch: Batch | Sequence[Tensor], batch_idx: int) -> None:
        """Adds a test batch."""
        self._evaluate("test", batch, batch_idx)

    def on_train_epoch_end(self) -> None:
        """Logs the epoch's training totals."""
        self._log_totals("train")

    def on_validation_epoch_end(self) -> None:
        """Logs the validation totals."""
        self._log_totals("val")

    def on_test_epoch_end(self) -> None:
        """Logs the test totals."""
        self._log_totals("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the place in the noise, and of each process the sums of an unfinished epoch and the random state."""
        totals = self._totals("train")
        totals.flush()
        sums = {name: getattr(totals, name).clone().cpu() for name in totals._defaults}
        checkpoint["examples_seen"] = self._examples_seen
        of_all = _of_all_processes((rng.global_state(self.device), sums))
        checkpoint["random_states"], checkpoint["train_totals"] = map(list, zip(*of_all))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes them back. Other processes than before go on with the sum of all in the first."""
        self._random_states = checkpoint.get("random_states", [])
        self._examples_seen = checkpoint.get("examples_seen", 0)
        saved = checkpoint.get("train_totals", [])
        if self._trainer is None:
            return
        if self.trainer.max_steps != -1 and "loops" in checkpoint:
            begin_next_epoch(checkpoint)
        # Lightning loads weights before it gives the module its type, and so would round those of 64-true.
        self.trainer.precision_plugin.convert_module(self)
        if not saved:
            return
        if self.trainer.world_size == len(saved):
            mine = saved[self.trainer.global_rank]  # a sum that was made in two parts would round differently
        elif self.trainer.is_global_zero:
            mine = {name: sum(sums[name] for sums in saved) for name in saved[0]}
        else:
            return
        totals = self._totals("train")
        for name, value in mine.items():
            setattr(totals, name, value.to(totals.device))

    def _totals(self, split: str) -> LossTotals:
        return self.totals[f"{split}_totals"]  # type: ignore[return-value]

    def _check(self, outputs: Tensor, labels: Tensor) -> None:
        data = getattr(self.trainer, "datamodule", None)
        self.check_outputs(outputs, labels, getattr(data, "num_classes", None))

    def _evaluate(self, split: str, batch: Batch | Sequence[Tensor], batch_idx: int) -> None:
        inputs, labels = batch[0], batch[1]
        outputs = self(inputs)
        if batch_idx == 0:
            self._check(outputs, labels)
        with full_precision(outputs.device.type):
            losses = self.loss(outputs, labels)
        self._totals(split).add(*self.counted(losses, outputs, labels, labels))

    def _log_batch_loss(self, loss: Tensor) -> None:
        # Logged before the step is taken, so that a checkpoint of that step already has the row.
        step = self.trainer.global_step + 1
        if step % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            mean = self.trainer.strategy.reduce(loss.clone(), reduce_op="mean")  # in place
            named = {"train/batch_loss": mean.item()}
            log_scalars(self, named, prog_bar=named, step=step)

    def _log_totals(self, split: str) -> None:
        totals = self._totals(split)
        totals.flush()
        values = totals.compute()
        totals.restart()
        named = {f"{split}/{name}": values[name] for name in self.shown(split)}
        log_scalars(
            self, named, {name: value for name, value in named.items() if split == "val" and "/loss" not in name}
        )


def _lay_out_channels_last(net: nn.Module) -> None:
    if all(p.ndim != 4 for p in net.parameters()):
        raise ValueError(
            f"channels_last = True: {type(net).__name__} has no 4-d weights (nn.Conv2d) to lay out; leave it out"
        )
    net.to(memory_format=torch.channels_last)


def _check_noise_steps(noise_steps: int, label_noise: LabelNoise) -> None:
    if noise_steps < 0:
        raise ValueError(f"noise_steps = {noise_steps}; give 0 or more, or null for noise on all steps")
    try:
        label_noise.at_level(0.0)
    except ValueError as error:
        raise ValueError(f"noise_steps = {noise_steps} ends at {error}") from None


def _of_all_processes(mine: Any) -> list[Any]:
    """An object of each process, by rank."""
    if not (dist.is_available() and dist.is_initialized()):
        return [mine]
    found = [None] * dist.get_world_size()
    dist.all_gather_object(found, mine)
    return found
