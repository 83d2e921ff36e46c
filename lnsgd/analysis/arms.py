"""The networks of two sources, paired by their seeds."""

from typing import Any

from pytorch_lightning import Trainer

from lnsgd.analysis.source import Source
from lnsgd.analysis.weights import mismatch
from lnsgd.data import ReplicatedData
from lnsgd.modules import ReplicatedModule
from lnsgd.modules.replicated import Subject


class Arm:
    """The networks of a source's last checkpoint, by seed.

    Args:
        source: Whose networks; it is loaded.
        trainer: That they are measured in.

    Attributes:
        source: See above.
        digest: Of the checkpoint's weights.
        of_seed: Number of the replica by seed, without those that had diverged.

    Raises:
        ValueError: a seed stands for several networks.
    """

    def __init__(self, source: Source, trainer: Trainer) -> None:
        self.source = source
        checkpoint = source.checkpoints[-1]
        self.digest = checkpoint.digest
        module: Any = source.module
        module.trainer = trainer
        trainer.precision_plugin.convert_module(module)
        module.to(trainer.strategy.root_device)
        source.load(checkpoint)
        living = module.frozen.living if isinstance(module, ReplicatedModule) else [0]
        self.of_seed = {source.seeds[replica]: replica for replica in living}
        if len(self.of_seed) < len(living):
            raise ValueError(
                f"{source.name} has replicas that differ in more than their seed, so that it is not clear which are "
                "pairs; compare runs whose replicas differ in their seed alone"
            )

    def subject(self, seed: int, data: Any = None) -> Subject:
        """A network of its own, on some data; by default on that of its source."""
        module, replica = self.source.module, self.of_seed[seed]
        if not isinstance(module, ReplicatedModule):
            return Subject(module, self.source.data if data is None else data, replica)
        if data is None:
            assert isinstance(self.source.data, ReplicatedData)
            data = self.source.data.variant(replica)
        return Subject(module.replica(replica), data, replica)


def check_alike(first: Source, second: Source) -> None:
    """Raises ValueError where two sources are of networks of different structure; names what differs first."""
    wanted, found = (source.structure.state_dict() for source in (first, second))
    if wrong := mismatch(found, wanted):
        raise ValueError(
            f"{second.name} cannot be compared with {first.name}: of its {len(found)} tensors and the {len(wanted)} of "
            f"{first.name}, {wrong}; give two networks of one structure"
        )


def pairs(first: Arm, second: Arm) -> list[int]:
    """Seeds of which both have a network.

    Raises:
        ValueError: there is none.
    """
    if len(first.source.replicas) == len(second.source.replicas) == 0:
        return list(first.of_seed)
    seeds = [seed for seed in first.of_seed if seed in second.of_seed]
    if not seeds or not (first.source.replicas and second.source.replicas):
        raise ValueError(
            f"{first.source.name} has the seeds {sorted(first.of_seed)}, {second.source.name} has "
            f"{sorted(second.of_seed)}; give two networks, or two runs of replicas with seeds in common"
        )
    return seeds
