"""SGD with all replicas: settings, engine, batches, and what is kept of it in a checkpoint."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lnsgd.modules.supervised import SupervisedModule
from lnsgd.replicas.batch_stream import BatchStream, ReplicaSettings
from lnsgd.replicas.data import ReplicatedData
from lnsgd.replicas.engines.base import Engine, StepRule, TrainingState
from lnsgd.replicas.engines.choose import choose_engine
from lnsgd.replicas.frozen import FrozenReplicas
from lnsgd.replicas.grid import EngineName, Replica
from lnsgd.replicas.learning_rate import LearningRate, check_plain_sgd

# Batches are drawn for at most this many examples of all replicas together at a time.
_EXAMPLES_AT_ONCE = 2**20


class ReplicatedSGD:
    """Takes SGD steps with all replicas, and records their losses and flipped labels.

    Args:
        template: The module that is replicated.
        replicas: Settings of the replicas.
        engine: Name of the engine.

    Raises:
        ValueError: an optimizer or a schedule that replicas cannot have; a noise without levels for replicas with
            levels.

    Attributes:
        settings: Settings of each replica, complete.
        frozen: The replicas that take no further step.
        velocity: Velocities of the trained parameters by name, (R, …); empty without momentum and before training.
    """

    def __init__(self, template: SupervisedModule, replicas: Sequence[Replica], engine: EngineName) -> None:
        optimizer = template.make_optimizer([p for p in template.net.parameters() if p.requires_grad])
        options = check_plain_sgd(optimizer)
        schedule = template.make_lr_scheduler(optimizer) if template.make_lr_scheduler else None
        self._learning_rate = LearningRate(schedule)
        self._per_epoch = template.lr_scheduler_interval == "epoch"
        self.settings = _complete(replicas, template, options.get("initial_lr", options["lr"]))
        self._momentum = options["momentum"]
        self._engine_name = engine
        self._engine: Engine | None = None
        self.restart()

    def restart(self) -> None:
        """Forget all steps; the weights are kept elsewhere."""
        number = len(self.settings)
        self.frozen = FrozenReplicas(number)
        self.velocity: dict[str, Tensor] = {}
        self._losses = torch.zeros(number, dtype=torch.float64)
        self._flips = torch.zeros(number, 2, dtype=torch.int64)
        self._logged_at = 0

    def choose(self, template: SupervisedModule, device: torch.device) -> tuple[type[Engine], str, StepRule]:
        """Choose the engine for a device; see `choose_engine`.

        Args:
            template: The module that is replicated, of the type and on the device of the run.
            device: Device of the run.

        Returns:
            The engine, the reason in a few words, and the rule that it runs.
        """
        rule = StepRule(template.net, template.loss, template.label_noise.targets, self._momentum)
        return *choose_engine(self._engine_name, rule, device), rule

    def begin(
        self,
        template: SupervisedModule,
        parameters: dict[str, nn.Parameter],
        data: ReplicatedData,
        device: torch.device,
        resumed: bool,
    ) -> None:
        """Prepare to take steps.

        Args:
            template: The module that is replicated, of the type and on the device of the run.
            parameters: Stacked parameters of all replicas, which are changed in place.
            data: Data of the run.
            device: Device of the run.
            resumed: Whether the run has taken steps before.

        Raises:
            ValueError: a resumed run whose checkpoint has no velocity.
        """
        if self._momentum:
            self.velocity = _restored_velocity(parameters, self.velocity, resumed)
        inputs, training_sets = data.training_sets()
        self.frozen.at = self.frozen.at.to(device)
        state = TrainingState(parameters, self.velocity, self.frozen.at)
        engine, _, rule = self.choose(template, device)
        self._engine = engine(rule, state, inputs.to(device, next(iter(parameters.values())).dtype))
        self._stream = BatchStream(
            training_sets,
            self.settings,
            data.data.order,
            data.batch_size,
            data.num_classes,
            self._learning_rate,
            self._per_epoch,
            device,
        )
        self._stream.flips.copy_(self._flips)
        self._counts_flips = rule.targets == "hard" and bool(data.num_classes)

    def take(self, first_step: int, steps: int) -> None:
        """Take steps with the running replicas, until none is running.

        Args:
            first_step: Number of steps taken before.
            steps: Number of steps to take.
        """
        assert self._engine is not None
        at_once = max(1, _EXAMPLES_AT_ONCE // (len(self.settings) * self._stream.batch_size))
        for first in range(first_step, first_step + steps, at_once):
            if not (running := self.frozen.running):
                break
            count = min(at_once, first_step + steps - first)
            self._engine.run(self._stream.draw(first, count, running), self._losses)

    def is_logged(self, step: int) -> bool:
        """Return whether there is nothing new to log at a step."""
        return step <= self._logged_at

    def means_since_logged(self, step: int) -> dict[str, dict[int, float]]:
        """Return the mean losses and flip rates over the steps since the last call, by name and replica.

        Replicas that took no step since are missing.

        Args:
            step: Number of steps taken so far.
        """
        ends = self.frozen.at.cpu()
        steps = ends.where(ends >= 0, step) - self._logged_at
        means = {"train/loss": self._losses / steps}
        if self._counts_flips:
            means["train/flip_rate"] = self._stream.flip_rates()
        self._losses.zero_()
        self._logged_at = step
        moved = (steps > 0).nonzero()[:, 0].tolist()
        return {name: {index: values[index].item() for index in moved} for name, values in means.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint: velocity, frozen replicas, and sums that are not logged yet."""
        return {
            "velocity": {name: v.clone() for name, v in self.velocity.items()},
            "frozen": self.frozen.state_dict(),
            "losses": self._losses.clone(),
            "logged_at": self._logged_at,
            "flips": self._stream.flips.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.velocity = state["velocity"]
        self.frozen.load_state_dict(state["frozen"])
        self._losses = state["losses"]
        self._logged_at = state["logged_at"]
        self._flips = state["flips"]


def _complete(replicas: Sequence[Replica], template: SupervisedModule, lr: float) -> list[ReplicaSettings]:
    """Complete the settings of replicas by those of the template and its learning rate."""
    noise = template.label_noise
    return [
        ReplicaSettings(
            replica.seed,
            noise if replica.noise is None else noise.at_level(replica.noise),
            lr if replica.lr is None else replica.lr,
            template.noise_steps,
        )
        for replica in replicas
    ]


def _restored_velocity(
    parameters: dict[str, nn.Parameter], restored: dict[str, Tensor], resumed: bool
) -> dict[str, Tensor]:
    """Return the velocities of the trained parameters: those of a checkpoint, or zeros at the start of a run."""
    if resumed and not restored:
        raise ValueError("the checkpoint has no velocity: it was written by a run without momentum")
    velocity = {name: torch.zeros_like(p) for name, p in parameters.items() if p.requires_grad}
    for name, value in restored.items():
        velocity[name].copy_(value)
    return velocity
