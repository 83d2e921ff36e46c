"""The LightningModule of a replicated run."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from lnsgd import compat, lightning
from lnsgd.modules.resume import begin_loading
from lnsgd.modules.supervised import SupervisedModule
from lnsgd.replicas.call_length import CallLength
from lnsgd.replicas.checks import check_shapes, check_template, check_trainer
from lnsgd.replicas.data import EvaluationBatch, StepRange
from lnsgd.replicas.evaluation import EvaluationTotals
from lnsgd.replicas.frozen import FrozenReplicas, warn_of_diverged
from lnsgd.replicas.grid import EngineName, Replica
from lnsgd.replicas.groups import log_by_group
from lnsgd.replicas.sgd import ReplicatedSGD
from lnsgd.replicas.stacked_network import StackedNetwork
from lnsgd.schedules import log_spaced

_LOGS_TRAINING = log_spaced(10)


class ReplicatedModule(lightning.LightningModule):
    """Trains R replicas of a module as one program; each takes the same steps as it would alone.

    A training step of the Trainer is many SGD steps: it ends where a callback or a logger is due.
    ``trainer.global_step`` and ``max_steps`` count SGD steps. A replica whose outputs become NaN or
    infinite is frozen and reported; a replica that a stopping rule stops, `stop_replica`, keeps its weights and still
    counts in what is measured. The other replicas continue.

    Logs mean and standard deviation over the replicas that differ in the seed alone:
    ``train/loss`` (on noisy targets, over the steps taken since it was last logged) and ``train/flip_rate``
    (hard noise only), ten times per decade of steps and at the end of an epoch; what the
    template logs in validation and testing; ``diverged``, the number of replicas that have diverged.

    Args:
        template: The module that is replicated. Its optimizer must be SGD, its schedule ``StepLR`` or ``MultiStepLR``.
        replicas: Settings in which the replicas differ.
        engine: See `lnsgd.replicas.ReplicaGrid`.
        steps_per_call: See `lnsgd.replicas.ReplicaGrid`.

    Raises:
        ValueError: no replicas; another optimizer or schedule; a network without ``reset_parameters``; a template with
            ``channels_last`` or ``compile_mode``; before training, an engine that cannot run the network.
    """

    def __init__(
        self,
        template: LightningModule,
        replicas: Sequence[Replica],
        engine: EngineName = "auto",
        steps_per_call: int | None = None,
    ) -> None:
        super().__init__()
        own = copy.deepcopy(check_template(template, replicas))
        self.automatic_optimization = False
        self.replicas = list(replicas)
        self._templates = [own]  # in a list it is not a submodule: its weights are scratch
        self.stack = StackedNetwork(own.net, [replica.seed for replica in replicas])
        self.sgd = ReplicatedSGD(own, replicas, engine)
        self._call_length = CallLength(steps_per_call)

    @property
    def template(self) -> SupervisedModule:
        """The module that is replicated, with weights that mean nothing."""
        return self._templates[0].to(next(self.stack.parameters()))

    @property
    def frozen(self) -> FrozenReplicas:
        """Which replicas take no further step, and why."""
        return self.sgd.frozen

    def replica(self, index: int) -> SupervisedModule:
        """Return a new ordinary module with the weights, seed and label noise of a replica."""
        module, settings = copy.deepcopy(self.template), self.sgd.settings[index]
        module.seed, module.label_noise = settings.seed, settings.label_noise
        self.stack.load_into(module.net, index)
        return module

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the outputs (R, B, O) of all replicas on the same inputs (B, …)."""
        return self.stack(inputs, torch.arange(len(self.replicas), device=inputs.device))

    def configure_optimizers(self) -> list[Any]:
        """Return no optimizer: an engine takes the steps."""
        return []

    def setup(self, stage: str) -> None:
        """Check settings, data and network before anything is written."""
        check_shapes(self.template, self.stack, check_trainer(self.trainer))
        if stage == "fit":
            chosen, why, _ = self.sgd.choose(self.template, self.trainer.strategy.root_device)
            rank_zero_info(f"{len(self.replicas)} replicas, engine {chosen.name} ({why})")

    def on_fit_start(self) -> None:
        """Forget an earlier run of this module, before a callback may stop a replica."""
        if self.trainer.ckpt_path is None and self.trainer.global_step == 0:
            self.sgd.restart()

    def on_train_start(self) -> None:
        """Prepare to train the weights as they are now."""
        data, resumed = self.trainer.datamodule, bool(self.trainer.global_step)  # type: ignore[attr-defined]
        self.sgd.begin(self.template, self.stack.stacked_parameters(), data, self.device, resumed)
        self._end_if_all_frozen()

    def next_stop(self, step: int) -> int:
        """Return the step at which the next training step must end."""
        return min(step + self._call_length.steps, _LOGS_TRAINING.next_after(step))

    def training_step(self, batch: StepRange, batch_idx: int) -> None:
        """Take the SGD steps of a range."""
        running = self.frozen.running
        with self._call_length.timing(batch.number):
            self.sgd.take(batch.first, batch.number)
        compat.add_optimizer_steps(self.trainer, batch.number)
        warn_of_diverged(self.replicas, self.frozen, running)
        self._end_if_all_frozen()
        step = batch.first + batch.number
        if _LOGS_TRAINING(step):
            self._log(self.sgd.means_since_logged(step), ["train/loss"], step)

    def stop_replica(self, index: int, rule: str) -> None:
        """Freeze a running replica; training ends with the last running replica.

        Args:
            index: Index of the replica.
            rule: Name of the stopping rule, for the record.
        """
        self.frozen.stop(index, self.trainer.global_step, rule)
        self._end_if_all_frozen()

    def _end_if_all_frozen(self) -> None:
        if not self.frozen.running:
            self.trainer.should_stop = True

    def on_train_epoch_end(self) -> None:
        """Log the training loss, unless it was logged at this step."""
        step = self.trainer.global_step
        if not self.sgd.is_logged(step):
            self._log(self.sgd.means_since_logged(step), ["train/loss"], step)

    def _log(self, values: dict[str, dict[int, float]], prog_bar: Sequence[str], step: int | None = None) -> None:
        log_by_group(self, self.replicas, self.frozen.valid, values, prog_bar, step)

    def on_validation_epoch_start(self) -> None:
        """Start new totals."""
        self._totals = EvaluationTotals(self.template, len(self.replicas), self.device)

    def validation_step(self, batch: EvaluationBatch, batch_idx: int) -> None:
        """Add a batch to the totals of the replicas that share it."""
        self._totals.add(batch, self.stack(batch.inputs, batch.replicas))

    def on_validation_epoch_end(self) -> None:
        """Log the validation totals."""
        self._log(*self._totals.compute("val"))

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step

    def on_test_epoch_end(self) -> None:
        """Log the test totals."""
        self._log(*self._totals.compute("test"))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the velocity, the frozen replicas, and the sums that are not logged yet."""
        checkpoint["replicas"] = self.sgd.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` added."""
        begin_loading(self, checkpoint)
        self.sgd.load_state_dict(checkpoint["replicas"])
