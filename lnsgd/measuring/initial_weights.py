"""The initial weights of the networks of a run, kept while it is trained."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from lnsgd.measures import weights_in_use
from lnsgd.measuring.subject import Subject


class InitialWeights:
    """The initial weights θ₀ of the networks of a run: each weight as it was when it joined its network.

    Args:
        of_replica: θ₀ by number of the network, each by name of the weight.

    Attributes:
        of_replica: The same, with what was added.
    """

    def __init__(self, of_replica: Mapping[int, Mapping[str, Tensor]] | None = None) -> None:
        self.of_replica = {replica: dict(of) for replica, of in (of_replica or {}).items()}

    @classmethod
    def in_checkpoint(cls, checkpoint: Mapping[str, Any]) -> "InitialWeights | None":
        """Return θ₀ that any callback has kept in a checkpoint of Lightning; ``None`` if none has.

        Args:
            checkpoint: Content of the checkpoint.
        """
        for state in checkpoint.get("callbacks", {}).values():
            if isinstance(state, Mapping) and {"measured_at", "init"} <= set(state) and state["init"] is not None:
                return cls(state["init"])
        return None

    def add(self, subjects: Iterable[Subject], frozen_only: bool = False) -> list[str]:
        """Keep the present values of weights that are not known yet, and return their names.

        Args:
            subjects: The networks.
            frozen_only: Only those that need no gradient.
        """
        added = []
        for subject in subjects:
            known = self.of_replica.setdefault(subject.replica, {})
            weights = self._unknown(subject)
            if weights and frozen_only:
                trained = weights_in_use(subject.module, initialized_only=True, trainable_only=True)
                weights = {name: value for name, value in weights.items() if name not in trained}
            known |= {name: value.cpu().clone() for name, value in weights.items()}
            added += list(weights)
        return added

    def missing(self, subjects: Iterable[Subject]) -> list[str]:
        """Return the names of weights that are not known.

        Args:
            subjects: The networks.
        """
        return [name for subject in subjects for name in self._unknown(subject)]

    def _unknown(self, subject: Subject) -> dict[str, Tensor]:
        known = self.of_replica.get(subject.replica, {})
        weights = weights_in_use(subject.module, initialized_only=True)
        if weights.keys() <= known.keys():
            return {}
        given = weights_in_use(subject.module, known, initialized_only=True)
        return {name: value for name, value in weights.items() if name not in given}
