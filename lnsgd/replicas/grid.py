"""The settings in which the replicas of a run differ."""

from dataclasses import dataclass
from itertools import product
from typing import Literal

EngineName = Literal["auto", "kernel", "general"]
"""Name of an engine; ``auto`` is the kernel if it can run the network, and else the general engine."""


@dataclass(frozen=True)
class Replica:
    """Settings of one replica. A setting that is ``None`` is as in the template.

    Attributes:
        seed: Key of the initial weights, the data, their order and the label noise.
        noise: Level of the label noise: p or std.
        lr: Learning rate, before any schedule.
        subset: Number of training examples.
    """

    seed: int
    noise: float | None = None
    lr: float | None = None
    subset: int | None = None


@dataclass
class ReplicaGrid:
    """Replicas with every combination of some values.

    Args:
        seeds: Seeds, or a number of seeds, which are counted from the run's own seed on.
        noise: Levels of the label noise: p or std. By default the level of the config.
        lr: Learning rates, before any schedule. By default the rate of the config.
        subset: Numbers of training examples. By default the number of the config.
        engine: ``kernel`` (one hidden layer or a matrix factorization, CPU), ``general`` (any network), or
            ``auto`` for the kernel if it can run the network.
        steps_per_call: Largest number of SGD steps in one Trainer step; by default as many as take about a
            quarter of a second. Results do not depend on it.

    Raises:
        ValueError: an empty list, a repeated value, or a number of seeds or steps below 1.
    """

    seeds: int | list[int] = 1
    noise: list[float] | None = None
    lr: list[float] | None = None
    subset: list[int] | None = None
    engine: EngineName = "auto"
    steps_per_call: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.seeds, int) and self.seeds < 1:
            raise ValueError(f"replicas.seeds = {self.seeds}; give at least 1, or a list of seeds")
        if self.steps_per_call is not None and self.steps_per_call < 1:
            raise ValueError(f"replicas.steps_per_call = {self.steps_per_call}; give at least 1")
        for name in ("seeds", "noise", "lr", "subset"):
            values = getattr(self, name)
            if isinstance(values, list) and (not values or len(set(values)) < len(values)):
                raise ValueError(f"replicas.{name} = {values}; give one or more different values")

    def replicas(self, seed: int) -> list[Replica]:
        """Return the replicas; replicas that differ in the seed alone are next to each other.

        Args:
            seed: The run's own seed, from which a number of seeds is counted.
        """
        seeds = range(seed, seed + self.seeds) if isinstance(self.seeds, int) else self.seeds
        none = [None]
        settings = product(self.noise or none, self.lr or none, self.subset or none, seeds)
        return [Replica(s, noise, lr, subset) for noise, lr, subset, s in settings]
