"""Many independent runs of one model as one program."""

from lnsgd.replicas.choose import choose_engine
from lnsgd.replicas.compiler import check_cxx_compiler
from lnsgd.replicas.engine import Chunk, Engine, Recipe, State
from lnsgd.replicas.feed import Feed, ReplicaData, ReplicaSettings
from lnsgd.replicas.learning_rate import LearningRate, check_plain_sgd
from lnsgd.replicas.replica import EngineName, Replica, ReplicaGrid, group_statistics, groups
from lnsgd.replicas.stack import Stack

__all__ = [
    "Chunk",
    "Engine",
    "EngineName",
    "Feed",
    "LearningRate",
    "Recipe",
    "Replica",
    "ReplicaData",
    "ReplicaGrid",
    "ReplicaSettings",
    "Stack",
    "State",
    "check_cxx_compiler",
    "check_plain_sgd",
    "choose_engine",
    "group_statistics",
    "groups",
]
