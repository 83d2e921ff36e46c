"""Groups of replicas that differ in the seed alone, and how their numbers are logged."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields

import numpy as np
from pytorch_lightning import LightningModule

from lnsgd.loggers.scalars import log_scalars
from lnsgd.replicas.grid import Replica


def groups(replicas: Sequence[Replica]) -> dict[str, list[int]]:
    """Return the indices of the replicas that differ in the seed alone, by a name such as ``noise=0.1,lr=0.01``.

    A name contains only what differs between groups; the name of a single group is empty.

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
    """Return mean and standard deviation of a number over each group, as ``name/group/mean`` and ``name/group/std``.

    Args:
        name: Name of the number.
        values: The number of each replica, by its index; missing replicas do not count.
        members: From `groups`.

    Returns:
        Nothing for a group without a value, and no standard deviation (n − 1) for a group with a single value.
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


def log_by_group(
    module: LightningModule,
    replicas: Sequence[Replica],
    valid: Sequence[int],
    values: Mapping[str, Mapping[int, float]],
    prog_bar: Sequence[str] = (),
    step: int | None = None,
) -> None:
    """Log statistics over each group, and how many of its replicas have diverged.

    Args:
        module: The module that logs.
        replicas: In the order of their indices.
        valid: Indices of the replicas that have not diverged; the values of other replicas do not count.
        values: Numbers by name and replica.
        prog_bar: Names of the numbers whose mean over all valid replicas is shown in the progress bar.
        step: See `lnsgd.loggers.scalars.log_scalars`.
    """
    members = groups(replicas)
    named: dict[str, float] = {}
    shown: dict[str, float] = {}
    for name, of_replica in values.items():
        counted = {index: value for index, value in of_replica.items() if index in set(valid)}
        named |= group_statistics(name, counted, members)
        if name in prog_bar and counted:
            shown[name] = sum(counted.values()) / len(counted)
    for group, indices in members.items():
        named["/".join(filter(None, ("diverged", group)))] = len(set(indices) - set(valid))
    log_scalars(module, named, shown, step)
