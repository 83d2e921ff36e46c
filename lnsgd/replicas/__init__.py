"""Many runs of one module, trained together as one program: its replicas.

A replica differs from others in its `Replica` settings alone; a `ReplicaGrid` lists them. `ReplicatedModule` and
`ReplicatedData` are made from the module (the template) and the data of a single run. `StackedNetwork` holds the
weights; an `Engine` takes the SGD steps on the `Batches` that a `BatchStream` draws. `networks_of` gives the networks
of any module one by one.
"""

from lnsgd.replicas.batch_stream import BatchStream, ReplicaSettings, TrainingSet
from lnsgd.replicas.data import ReplicatedData
from lnsgd.replicas.engines.base import Batches, Engine, StepRule, TrainingState
from lnsgd.replicas.engines.choose import choose_engine
from lnsgd.replicas.grid import EngineName, Replica, ReplicaGrid
from lnsgd.replicas.groups import group_statistics, groups
from lnsgd.replicas.learning_rate import LearningRate, check_plain_sgd
from lnsgd.replicas.module import ReplicatedModule
from lnsgd.replicas.networks import Networks, data_of_network, networks_of, single_data, steps_of_hidden_epochs
from lnsgd.replicas.stacked_network import StackedNetwork

__all__ = [
    "BatchStream",
    "Batches",
    "Engine",
    "EngineName",
    "LearningRate",
    "Networks",
    "Replica",
    "ReplicaGrid",
    "ReplicaSettings",
    "ReplicatedData",
    "ReplicatedModule",
    "StackedNetwork",
    "StepRule",
    "TrainingSet",
    "TrainingState",
    "check_plain_sgd",
    "choose_engine",
    "data_of_network",
    "group_statistics",
    "groups",
    "networks_of",
    "single_data",
    "steps_of_hidden_epochs",
]
