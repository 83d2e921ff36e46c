"""The networks and the data of any LightningModule and DataModule, one by one.

Callbacks, analysis and sweeps ask here, so that they need not know whether a run is replicated: a
`lnsgd.replicas.ReplicatedModule` has R networks, any other module has one.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from torch import Tensor

from lnsgd.replicas.data import ReplicatedData
from lnsgd.replicas.frozen import FrozenReplicas
from lnsgd.replicas.grid import Replica
from lnsgd.replicas.groups import group_statistics, groups
from lnsgd.replicas.module import ReplicatedModule

# In the ``state_dict`` of a replicated run the tensors of all replicas are stacked, and this precedes their names.
STACK_PREFIX = "stack."


def networks_of(module: LightningModule) -> "Networks":
    """Return the networks that a module trains.

    Args:
        module: Any LightningModule. Of a `ReplicatedModule` the networks are its replicas; any other module is its own
            single network, number 0.
    """
    return ReplicaNetworks(module) if isinstance(module, ReplicatedModule) else Networks(module)


class Networks:
    """The one network of an ordinary run, number 0.

    Args:
        module: The LightningModule of the run.
    """

    is_replicated = False

    def __init__(self, module: LightningModule) -> None:
        self._module = module

    def __len__(self) -> int:
        """Return the number of networks R."""
        return 1

    @property
    def template(self) -> LightningModule:
        """The module whose structure all networks have; its weights may mean nothing."""
        return self._module

    @property
    def settings(self) -> list[Replica]:
        """Settings in which the networks differ, by number; empty for an ordinary run."""
        return []

    @property
    def seeds(self) -> list[int]:
        """Seed of each network, by number; 0 for that of an ordinary run."""
        return [0]

    @property
    def valid(self) -> list[int]:
        """Numbers of the networks that are measured: those that have not diverged."""
        return [0]

    @property
    def running(self) -> list[int]:
        """Numbers of the networks that still take steps."""
        return [0]

    @property
    def frozen_at(self) -> Mapping[int, int]:
        """Number of steps that a network had taken when it diverged or was stopped, without networks still running."""
        return {}

    @property
    def stopped_by(self) -> Mapping[int, str]:
        """Names of the stopping rules that ended single networks before the run, by number."""
        return {}

    @property
    def representatives(self) -> list[int]:
        """Numbers of the networks to draw: of each group that differs in the seed alone, the first valid one."""
        return [0]

    def __iter__(self) -> Iterator[tuple[int, LightningModule]]:
        """Yield every valid network with its number; a network may change when the next one is asked for."""
        yield 0, self._module

    def network(self, number: int) -> LightningModule:
        """Return one network that stays valid: a copy where networks share memory."""
        assert number == 0
        return self._module

    def stop(self, number: int, rule: str) -> None:
        """End the training of one network, and the run with the last one.

        Args:
            number: A network that is running.
            rule: Name of the stopping rule, for the records of the run.
        """
        assert number == 0
        self._module.trainer.should_stop = True

    def last_step(self, trainer: Trainer) -> int | None:
        """Return the step at which a run of a Trainer ends, if that is known."""
        steps = trainer.estimated_stepping_batches
        return int(steps) if steps not in (float("inf"), -1) else None

    def restore_frozen(self, checkpoint: Mapping[str, Any]) -> None:
        """Read which networks had diverged or were stopped, without restoring anything else.

        Args:
            checkpoint: Content of a checkpoint of Lightning, or an empty mapping for a file of weights alone, of which
                all networks are valid.
        """

    def weights(self, tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
        """Return the weights of each network by its own parameter names.

        Args:
            tensors: Weights of the whole module by the names in its ``state_dict``.
        """
        return {0: dict(tensors)}

    def prefix(self, number: int) -> str:
        """Return what precedes the name of a picture of one network: nothing, or for example ``replica3/``."""
        return ""

    def scalars(self, name: str, values: Mapping[int, float]) -> dict[str, float]:
        """Return what loggers get of one quantity.

        Args:
            name: Name of the quantity.
            values: Its value by network; networks without a value do not count.

        Returns:
            The value itself under ``name``; of replicas mean and standard deviation over each group, as
            `lnsgd.replicas.group_statistics` names them.
        """
        return {name: values[0]} if 0 in values else {}


class ReplicaNetworks(Networks):
    """The R networks of a replicated run.

    Args:
        module: The LightningModule of the run.
    """

    is_replicated = True

    def __init__(self, module: ReplicatedModule) -> None:
        super().__init__(module)
        self._replicated = module

    def __len__(self) -> int:
        """Return the number of networks R."""
        return len(self.settings)

    @property
    def template(self) -> LightningModule:
        """The module that is replicated, with weights that mean nothing."""
        return self._replicated.template

    @property
    def settings(self) -> list[Replica]:
        """Settings of each replica."""
        return self._replicated.replicas

    @property
    def seeds(self) -> list[int]:
        """Seed of each replica."""
        return [replica.seed for replica in self.settings]

    @property
    def valid(self) -> list[int]:
        """Replicas that have not diverged."""
        return self._replicated.frozen.valid

    @property
    def running(self) -> list[int]:
        """Replicas that are not frozen."""
        return self._replicated.frozen.running

    @property
    def frozen_at(self) -> Mapping[int, int]:
        """Number of steps that each frozen replica had taken."""
        return {index: step for index, step in enumerate(self._replicated.frozen.at.tolist()) if step >= 0}

    @property
    def stopped_by(self) -> Mapping[int, str]:
        """Name of the stopping rule of each replica that was stopped."""
        return self._replicated.frozen.stopped_by

    @property
    def representatives(self) -> list[int]:
        """The first valid replica of each group."""
        valid = set(self.valid)
        of_groups = [[index for index in group if index in valid] for group in groups(self.settings).values()]
        return [group[0] for group in of_groups if group]

    def __iter__(self) -> Iterator[tuple[int, LightningModule]]:
        """Yield every valid replica with its number, all in the template, one after the other."""
        template = self._replicated.template
        for index in self.valid:
            self._replicated.stack.load_into(template.net, index)
            yield index, template

    def network(self, number: int) -> LightningModule:
        """Return a copy of one replica with its weights, seed and label noise."""
        return self._replicated.replica(number)

    def stop(self, number: int, rule: str) -> None:
        """Freeze one replica; the run ends with the last one that is running."""
        self._replicated.stop_replica(number, rule)

    def last_step(self, trainer: Trainer) -> int | None:
        """Return the SGD step at which a run ends, if that is known."""
        ends = [trainer.max_steps] if trainer.max_steps >= 0 else []
        if trainer.max_epochs is not None and trainer.max_epochs >= 0:
            ends.append(trainer.max_epochs * trainer.datamodule.steps_per_epoch)  # type: ignore[attr-defined]
        return min(ends) if ends else None

    def restore_frozen(self, checkpoint: Mapping[str, Any]) -> None:
        """Read which replicas had diverged or were stopped."""
        frozen = FrozenReplicas(len(self))
        if "replicas" in checkpoint:
            frozen.load_state_dict(checkpoint["replicas"]["frozen"])
        self._replicated.sgd.frozen = frozen

    def weights(self, tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
        """Return the weights of each replica, from tensors that have a leading replica dimension."""
        names = [name for name, _ in self.template.named_parameters()]
        return {index: {name: tensors[STACK_PREFIX + name][index] for name in names} for index in range(len(self))}

    def prefix(self, number: int) -> str:
        """Return which replica a picture belongs to."""
        return f"replica{number}/"

    def scalars(self, name: str, values: Mapping[int, float]) -> dict[str, float]:
        """Return mean and standard deviation of one quantity over each group."""
        return group_statistics(name, values, groups(self.settings))


def single_data(data: Any) -> Any:
    """Return the DataModule of a single run.

    Args:
        data: The DataModule of a run. Of a `ReplicatedData` the one that it was built from is returned.
    """
    return data.data if isinstance(data, ReplicatedData) else data


def data_of_network(data: Any, number: int) -> LightningDataModule | Any:
    """Return the DataModule as one network sees it: replicas may have different examples.

    Args:
        data: The DataModule of a run, or ``None``.
        number: Number of the network in `networks_of`.
    """
    return data.of_replica(number) if isinstance(data, ReplicatedData) else data


def steps_of_hidden_epochs(data: Any) -> int | None:
    """Return the SGD steps of an epoch where the Trainer does not see epochs end, ``None`` where it does.

    A replicated run that is limited by ``max_steps`` alone is one epoch of the Trainer.

    Args:
        data: The DataModule of a run that a Trainer has set up.
    """
    return data.steps_per_epoch if isinstance(data, ReplicatedData) and data.endless else None
