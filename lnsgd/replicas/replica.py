"""Which runs are executed together, and in what they differ."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import product
from typing import Literal

import numpy as np

EngineName = Literal["auto", "kernel", "general"]


@dataclass(frozen=True)
class Replica:
    """One of the runs that are executed together. What is ``None`` is as in the cell that they share.

    Attributes:
        seed: Key of its initialization, data, order and noise.
        noise: Level of its label noise: p or std.
        lr: Its learning rate, before any schedule.
        subset: Its number of training examples.
    """

    seed: int
    noise: float | None = None
    lr: float | None = None
    subset: int | None = None


@dataclass
class ReplicaGrid:
    """Every combination of the values given, as one run.

    Args:
        seeds: Seeds; a number stands for that many, counted from the run's own seed on.
        noise: Levels of the label noise: p or std. By default that of the config.
        lr: Learning rates, before any schedule. By default that of the config.
        subset: Numbers of training examples. By default that of the config.
        engine: ``kernel`` (one hidden layer or a matrix factorization, CPU), ``general`` (any network), or
            ``auto``: the kernel where it can.
        steps_per_call: SGD steps in one Trainer step at most; by default as many as take about a
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
        """The runs, those that differ in nothing but the seed beside each other.

        Args:
            seed: The run's own seed, from which a number of seeds is counted.
        """
        seeds = range(seed, seed + self.seeds) if isinstance(self.seeds, int) else self.seeds
        none = [None]
        settings = product(self.noise or none, self.lr or none, self.subset or none, seeds)
        return [Replica(s, noise, lr, subset) for noise, lr, subset, s in settings]


def groups(replicas: Sequence[Replica]) -> dict[str, list[int]]:
    """Indices of the replicas that differ in nothing but the seed, by a name such as ``noise=0.1,lr=0.01``.

    A name says only what differs between groups; a single group's is empty.

    Args:
        replicas: In the order of their indices.

    Example:
        >>> groups([Replica(0, noise=0.0), Replica(1, noise=0.0), Replica(0, noise=0.2)])
        {'noise=0.0': [0, 1], 'noise=0.2': [2]}
    """
    settings = [asdict(replica) for replica in replicas]
    differing = [f.name for f in fields(Replica) if f.name != "seed" and len({s[f.name] for s in settings}) > 1]
    found: dict[str, list[int]] = {}
    for index, setting in enumerate(settings):
        found.setdefault(",".join(f"{name}={setting[name]}" for name in differing), []).append(index)
    return found


def group_statistics(name: str, values: Mapping[int, float], members: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Mean and standard deviation of a number over each group, as ``name/group/mean`` and ``name/group/std``.

    Args:
        name: Name of the number.
        values: The number of each replica, by its index; those that are missing do not count.
        members: From `groups`.

    Returns:
        Nothing for a group without a value, and no standard deviation (n − 1) for one with a single value.
    """
    found: dict[str, float] = {}
    for group, indices in members.items():
        prefix = "/".join(filter(None, (name, group)))
        present = [values[index] for index in indices if index in values]
        if present:
            found[f"{prefix}/mean"] = float(np.mean(present))
        if len(present) > 1:
            found[f"{prefix}/std"] = float(np.std(present, ddof=1))
    return found
