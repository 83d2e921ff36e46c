"""Checks before a replicated run starts."""

from collections.abc import Sequence

import torch
from pytorch_lightning import LightningModule, Trainer

from lnsgd.modules.supervised import SupervisedModule
from lnsgd.replicas.data import ReplicatedData
from lnsgd.replicas.grid import Replica
from lnsgd.replicas.stacked_network import StackedNetwork


def check_template(template: LightningModule, replicas: Sequence[Replica]) -> SupervisedModule:
    """Return the template.

    Args:
        template: The module to replicate.
        replicas: Settings of the replicas.

    Raises:
        ValueError: no replicas, or a module that cannot be replicated.
    """
    if not isinstance(template, SupervisedModule):
        raise ValueError(
            f"replicas need a module of lnsgd.modules (Classifier, Regressor), not {type(template).__name__}"
        )
    if not replicas:
        raise ValueError("replicas: the list is empty; give at least one")
    for name in ("channels_last", "compile_mode"):
        if value := getattr(template, name):
            raise ValueError(f"{name} = {value}: replicas are compiled by an engine of their own; leave {name} out")
    return template


def check_trainer(trainer: Trainer) -> ReplicatedData:
    """Check that a Trainer can train replicas, and return its data.

    Args:
        trainer: The Trainer of a replicated run.

    Raises:
        ValueError: settings or data that replicas cannot have.
    """
    if trainer.world_size > 1:
        raise ValueError("replicas run in one process; use trainer.devices = 1")
    if trainer.precision not in ("32-true", "64-true"):
        raise ValueError(f"trainer.precision = {trainer.precision}: replicas run in 32-true or 64-true")
    for name, default in (("limit_train_batches", 1.0), ("overfit_batches", 0.0), ("val_check_interval", 1.0)):
        if (given := getattr(trainer, name)) != default:
            raise ValueError(f"trainer.{name} = {given} would count calls of many steps; use trainer.max_steps")
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, ReplicatedData):
        raise ValueError("a ReplicatedModule is trained on lnsgd.replicas.ReplicatedData with the same replicas")
    return data


def check_shapes(template: SupervisedModule, stack: StackedNetwork, data: ReplicatedData) -> None:
    """Raise ValueError if the network's outputs do not fit the labels, by one training example of the first replica.

    Args:
        template: The module that is replicated.
        stack: Its networks.
        data: Data of the run.
    """
    inputs, labels, _ = next(iter(data.of_replica(0).measurement_dataloader("train", 1)))
    kind = next(stack.parameters())
    outputs = stack(inputs.to(kind), torch.zeros(1, dtype=torch.int64, device=kind.device))[0]
    template.check_outputs(outputs, labels, data.num_classes)
    template.loss(outputs, labels.to(kind.device))
