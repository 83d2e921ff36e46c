"""Many runs of one module, trained together."""

import copy
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from pytorch_lightning import LightningDataModule, LightningModule
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lnsgd.checkpoints import begin_next_epoch
from lnsgd.data.replicated import ReplicatedData, SharedBatch, Steps
from lnsgd.loggers.scalars import log_scalars
from lnsgd.modules.frozen import Frozen
from lnsgd.modules.supervised import SupervisedModule
from lnsgd.modules.totals import LossTotals
from lnsgd.replicas import (
    Engine,
    EngineName,
    Feed,
    LearningRate,
    Recipe,
    Replica,
    ReplicaSettings,
    Stack,
    State,
    check_plain_sgd,
    choose_engine,
    group_statistics,
    groups,
)
from lnsgd.schedules import log_spaced

# A call of about this long is short enough for a progress bar and long enough that what Lightning does
# around it does not count.
_SECONDS_PER_CALL = 0.25

# Batches are drawn for this many examples at once, of all replicas together, at most.
_EXAMPLES_AT_ONCE = 2**20

_TRAINING_LOSS = log_spaced(10)


class Subject(NamedTuple):
    """One network to be measured.

    Attributes:
        module: It, with its loss.
        data: What its run sees.
        replica: Its number, 0 in an ordinary run.
    """

    module: LightningModule
    data: LightningDataModule | None
    replica: int = 0


class ReplicatedModule(LightningModule):
    """Trains R replicas of a module as one program; each takes the same steps as it would alone.

    A Trainer step is many SGD steps: it ends where a callback or a logger wants to look.
    ``trainer.global_step`` and ``max_steps`` count SGD steps. A replica whose outputs become NaN or
    infinite is frozen and reported; one that a callback stops, `stop_replica`, stays as it is and still
    counts in what is measured. The others go on.

    Logs mean and standard deviation over the replicas that differ in nothing but the seed:
    ``train/loss`` (on noisy targets, over the steps taken since it was last logged), ``train/flip_rate``
    (hard noise only), ten times per decade of steps and at the end of an epoch; what the
    module logs in validation and testing; ``diverged``, their number.

    Attributes:
        frozen: Which replicas take no further step.

    Args:
        cell: The module that is replicated. Its optimizer must be SGD, its schedule ``StepLR`` or ``MultiStepLR``.
        replicas: In what the replicas differ.
        engine: See `lnsgd.replicas.ReplicaGrid`.
        steps_per_call: The same.

    Raises:
        ValueError: no replicas; another optimizer or schedule; a network without ``reset_parameters``; a cell with
            ``channels_last`` or ``compile_mode``; before training, an engine that cannot run the network.
    """

    def __init__(
        self,
        cell: LightningModule,
        replicas: Sequence[Replica],
        engine: EngineName = "auto",
        steps_per_call: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(cell, SupervisedModule):
            raise ValueError(
                f"replicas need a module of lnsgd.modules (Classifier, Regressor), not {type(cell).__name__}"
            )
        if not replicas:
            raise ValueError("replicas: there are none; give at least one")
        for name in ("channels_last", "compile_mode"):
            if value := getattr(cell, name):
                raise ValueError(f"{name} = {value}: replicas are compiled by an engine of their own; leave {name} out")
        self.automatic_optimization = False
        self.replicas = list(replicas)
        self.engine_name = engine
        self._cells = [copy.deepcopy(cell)]  # in a list it is not a submodule: its weights are scratch
        self.stack = Stack(cell.net, [replica.seed for replica in replicas])
        self._settings, self._momentum, self._learning_rate = self._read_optimizer()
        self._steps_per_call = steps_per_call
        self._seconds_per_step: float | None = None
        self._start_anew()
        self._totals: list[LossTotals] = []
        self._engine: Engine | None = None

    def _start_anew(self) -> None:
        """Where a run stands before its first step, but for the weights."""
        self.frozen = Frozen(len(self.replicas))
        self._velocity: dict[str, Tensor] = {}
        self._losses = torch.zeros(len(self.replicas), dtype=torch.float64)
        self._flips = torch.zeros(len(self.replicas), 2, dtype=torch.int64)
        self._logged_at = 0

    @property
    def cell(self) -> SupervisedModule:
        """The module that is replicated, with weights that mean nothing."""
        return self._cells[0].to(next(self.stack.parameters()))

    def _read_optimizer(self) -> tuple[list[ReplicaSettings], float, LearningRate]:
        parameters = [p for p in self.cell.net.parameters() if p.requires_grad]
        optimizer = self.cell.make_optimizer(parameters)
        settings = check_plain_sgd(optimizer)
        schedule = self.cell.make_lr_scheduler(optimizer) if self.cell.make_lr_scheduler else None
        base, noise = settings.get("initial_lr", settings["lr"]), self.cell.label_noise
        each = [
            ReplicaSettings(
                replica.seed,
                noise if replica.noise is None else noise.at_level(replica.noise),
                base if replica.lr is None else replica.lr,
                self.cell.noise_steps,
            )
            for replica in self.replicas
        ]
        return each, settings["momentum"], LearningRate(schedule)

    # -- one of them

    def replica(self, index: int) -> SupervisedModule:
        """An ordinary module of its own with a replica's weights, seed and label noise."""
        module = copy.deepcopy(self.cell)
        module.seed, module.label_noise = self._settings[index].seed, self._settings[index].label_noise
        self.stack.load_into(module.net, index)
        return module

    def subjects(self) -> Iterator[Subject]:
        """Every replica that has not diverged, to be measured; the module is valid until the next is asked for."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        module = self.cell
        for index in self.frozen.living:
            self.stack.load_into(module.net, index)
            yield Subject(module, data.variant(index), index)

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs (R, B, O) of all replicas on the same inputs (B, …)."""
        return self.stack(inputs, torch.arange(len(self.replicas), device=inputs.device))

    # -- training

    def configure_optimizers(self) -> list[Any]:
        """None: an engine takes the steps."""
        return []

    def setup(self, stage: str) -> None:
        """Checks what can be checked before anything is written."""
        if self.trainer.world_size > 1:
            raise ValueError("replicas run in one process; use trainer.devices = 1")
        if self.trainer.precision not in ("32-true", "64-true"):
            raise ValueError(f"trainer.precision = {self.trainer.precision}: replicas run in 32-true or 64-true")
        for name, default in (("limit_train_batches", 1.0), ("overfit_batches", 0.0), ("val_check_interval", 1.0)):
            if (given := getattr(self.trainer, name)) != default:
                raise ValueError(f"trainer.{name} = {given} would count calls of many steps; use trainer.max_steps")
        if not isinstance(self.trainer.datamodule, ReplicatedData):  # type: ignore[attr-defined]
            raise ValueError("a ReplicatedModule is trained on lnsgd.data.ReplicatedData with the same replicas")
        self._check_shapes(self.trainer.datamodule)  # type: ignore[attr-defined]
        if stage == "fit":
            chosen, why = choose_engine(self.engine_name, self._recipe(), self.trainer.strategy.root_device)
            rank_zero_info(f"{len(self.replicas)} replicas, engine {chosen.name} ({why})")

    def _recipe(self) -> Recipe:
        return Recipe(self.cell.net, self.cell.loss, self.cell.label_noise.targets, self._momentum)

    def on_fit_start(self) -> None:
        """Forgets an earlier run of this module, before a callback may stop a replica."""
        if self.trainer.ckpt_path is None and self.trainer.global_step == 0:
            self._start_anew()

    def on_train_start(self) -> None:
        """Builds the engine on the weights as they are now."""
        parameters = self.stack.stacked_parameters()
        trained = {name: p for name, p in parameters.items() if p.requires_grad}
        if self._momentum:
            restored = self._velocity
            if self.trainer.global_step and not restored:
                raise ValueError("the checkpoint has no velocity: it was written by a run without momentum")
            self._velocity = {name: torch.zeros_like(p) for name, p in trained.items()}
            for name, value in restored.items():
                self._velocity[name].copy_(value)
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        pool, parts = data.training_pool()
        self.frozen.at = self.frozen.at.to(self.device)
        chosen, _ = choose_engine(self.engine_name, self._recipe(), self.device)
        state = State(parameters, self._velocity, self.frozen.at)
        self._engine = chosen(self._recipe(), state, pool.to(self.device, next(iter(parameters.values())).dtype))
        self._feed = Feed(
            parts,
            self._settings,
            data.data.order,
            data.batch_size,
            data.num_classes,
            self._learning_rate,
            self.cell.lr_scheduler_interval == "epoch",
            self.device,
        )
        self._feed.flips.copy_(self._flips)
        self._end_if_none_moves()

    def _check_shapes(self, data: ReplicatedData) -> None:
        inputs, labels, _ = next(iter(data.variant(0).measurement_dataloader("train", 1)))
        kind = next(self.parameters())
        outputs = self.stack(inputs.to(kind), torch.zeros(1, dtype=torch.int64, device=kind.device))[0]
        self.cell.check_outputs(outputs, labels, data.num_classes)
        self.cell.loss(outputs, labels.to(kind.device))

    def next_stop(self, step: int) -> int:
        """Where the call that starts at a step must end, for the module's own sake."""
        if self._steps_per_call is not None:
            many = self._steps_per_call
        elif self._seconds_per_step is None:
            many = 100
        else:
            many = max(1, round(_SECONDS_PER_CALL / self._seconds_per_step))
        return min(step + many, _TRAINING_LOSS.next_after(step))

    def training_step(self, batch: Steps, batch_idx: int) -> None:
        """Takes the SGD steps of one call."""
        assert self._engine is not None
        started = time.perf_counter()
        moved = self.frozen.moving
        at_once = max(1, _EXAMPLES_AT_ONCE // (len(self.replicas) * self._feed.batch_size))
        for first in range(batch.first, batch.first + batch.number, at_once):
            if not (moving := self.frozen.moving):
                break
            count = min(at_once, batch.first + batch.number - first)
            self._engine.run(self._feed.chunk(first, count, moving), self._losses)
        self._seconds_per_step = (time.perf_counter() - started) / batch.number
        self._count_steps(batch.number)
        self._report_diverged(moved)
        step = batch.first + batch.number
        if _TRAINING_LOSS(step):
            self._log_training(step)

    def _count_steps(self, steps: int) -> None:
        """Lightning counts the steps of optimizers, of which there are none here."""
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        for counter in (progress.total, progress.current):
            counter.ready += steps
            counter.completed += steps

    def _report_diverged(self, moved: Sequence[int]) -> None:
        diverged = sorted({*moved} - {*self.frozen.moving})
        for index in diverged:
            step = int(self.frozen.at[index])
            rank_zero_warn(f"replica {index} ({self.replicas[index]}) diverged at step {step}; frozen")
        if diverged and not self.frozen.living:
            rank_zero_warn("all replicas have diverged; training stops")
        self._end_if_none_moves()

    def stop_replica(self, index: int, by: str) -> None:
        """Lets a replica that moves take no further step. Training ends with the last of them.

        Args:
            index: The replica.
            by: Name of what stops it, for the record.
        """
        self.frozen.stop(index, self.trainer.global_step, by)
        self._end_if_none_moves()

    def _end_if_none_moves(self) -> None:
        if not self.frozen.moving:
            self.trainer.should_stop = True

    def on_train_epoch_end(self) -> None:
        """Logs the training loss."""
        if self.trainer.global_step > self._logged_at:
            self._log_training(self.trainer.global_step)

    def _log_training(self, step: int) -> None:
        ends = self.frozen.at.cpu()
        steps = ends.where(ends >= 0, step) - self._logged_at
        values = {"train/loss": self._losses / steps}
        if self.cell.label_noise.targets == "hard" and self.trainer.datamodule.num_classes:  # type: ignore[attr-defined]
            values["train/flip_rate"] = self._feed.flip_rates()
        self._losses.zero_()
        self._logged_at = step
        took = (steps > 0).nonzero()[:, 0].tolist()
        self._log_groups(
            {name: {r: value[r].item() for r in took} for name, value in values.items()}, ["train/loss"], step
        )

    def _log_groups(
        self, values: dict[str, dict[int, float]], shown: Sequence[str] = (), step: int | None = None
    ) -> None:
        """Logs statistics of numbers that are given by name and replica; those of diverged replicas do not count."""
        members = groups(self.replicas)
        living = set(self.frozen.living)
        named: dict[str, float] = {}
        prog_bar: dict[str, float] = {}
        for name, of_replica in values.items():
            counted = {index: value for index, value in of_replica.items() if index in living}
            named |= group_statistics(name, counted, members)
            if name in shown and counted:
                prog_bar[name] = sum(counted.values()) / len(counted)
        for group, indices in members.items():
            named["/".join(filter(None, ("diverged", group)))] = len(set(indices) - living)
        log_scalars(self, named, prog_bar, step)

    # -- evaluation

    def validation_step(self, batch: SharedBatch, batch_idx: int) -> None:
        """Adds a validation batch to the replicas that share it."""
        self._evaluate(batch)

    def test_step(self, batch: SharedBatch, batch_idx: int) -> None:
        """Adds a test batch to the replicas that share it."""
        self._evaluate(batch)

    def on_validation_epoch_start(self) -> None:
        """Empties the totals."""
        self._totals = [self.cell.totals_class().to(self.device) for _ in self.replicas]

    def on_test_epoch_start(self) -> None:
        """Empties the totals."""
        self.on_validation_epoch_start()

    def _evaluate(self, batch: SharedBatch) -> None:
        outputs = self.stack(batch.inputs, batch.replicas)
        for index, own in zip(batch.replicas.tolist(), outputs):
            losses = self.cell.loss(own, batch.labels)
            self._totals[index].update(*self.cell.counted(losses, own, batch.labels, batch.labels))

    def on_validation_epoch_end(self) -> None:
        """Logs the validation totals."""
        self._log_totals("val")

    def on_test_epoch_end(self) -> None:
        """Logs the test totals."""
        self._log_totals("test")

    def _log_totals(self, split: str) -> None:
        # With few batches, as in Lightning's check before training, there may be none for some replicas.
        computed = {index: totals.compute() for index, totals in enumerate(self._totals) if totals.examples}
        values = {
            f"{split}/{name}": {index: of_replica[name] for index, of_replica in computed.items()}
            for name in self.cell.shown(split)
        }
        self._log_groups(values, shown=[name for name in values if split == "val" and not name.endswith("/loss")])

    # -- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the velocity, which replicas are frozen, and the sums of losses not logged yet."""
        checkpoint["replicas"] = {
            "velocity": {name: v.clone() for name, v in self._velocity.items()},
            "frozen": self.frozen.state_dict(),
            "losses": self._losses.clone(),
            "logged_at": self._logged_at,
            "flips": self._feed.flips.clone(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes them back."""
        if self._trainer is not None:  # see `SupervisedModule.on_load_checkpoint`
            if self.trainer.max_steps != -1 and "loops" in checkpoint:
                begin_next_epoch(checkpoint)
            self.trainer.precision_plugin.convert_module(self)
        kept = checkpoint["replicas"]
        self._velocity = kept["velocity"]
        self.frozen.load_state_dict(kept["frozen"])
        self._losses = kept["losses"]
        self._logged_at = kept["logged_at"]
        self._flips = kept["flips"]
