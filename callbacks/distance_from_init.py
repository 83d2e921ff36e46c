"""Logs how far the weights have travelled."""

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from lnsgd import measures
from lnsgd.callbacks.measure import MeasureCallback, subjects
from lnsgd.callbacks.measurements import Measurement
from lnsgd.modules.replicated import Subject


class DistanceFromInit(MeasureCallback):
    """Logs ‖θ − θ₀‖₂ as ``distance_from_init`` and, per tensor, ``distance_from_init/<tensor>``.

    θ₀ (of every replica) is taken before the first step and kept in every checkpoint, so that a resumed run measures
    from the same point.

    Args:
        per_tensor: Log each tensor's distance too.
        schedule: See `MeasureCallback`.

    Raises:
        ValueError: on resume, the checkpoint was written without this callback: θ₀ is unknown.
    """

    headline = ("distance_from_init", "distance")

    def __init__(self, per_tensor: bool = True, **schedule: Any) -> None:
        super().__init__(**schedule)
        self.per_tensor = per_tensor
        self._init: dict[int, dict[str, Tensor]] | None = None

    @property
    def state_identity(self) -> dict[str, Any]:
        """The same for every schedule: θ₀ must be found again when a run goes on with another one."""
        return {"per_tensor": self.per_tensor}

    def state_dict(self) -> dict[str, Any]:
        """θ₀, and the step of the last measurement."""
        return {**super().state_dict(), "init": self._init}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes them back."""
        super().load_state_dict(state_dict)
        self._init = state_dict["init"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps θ₀."""
        if trainer.global_step == 0:
            self._init = {
                subject.replica: {
                    name: p.cpu().clone() for name, p in measures.trainable_parameters(subject.module).items()
                }
                for subject in subjects(trainer, pl_module)
            }
        elif self._init is None:
            raise ValueError(
                "DistanceFromInit: the checkpoint holds no initial weights; it was written by a run without this "
                "callback: start a new run, or resume without it"
            )
        super().on_train_start(trainer, pl_module)

    def measure(self, trainer: Trainer, subject: Subject) -> list[Measurement]:
        """Total distance and that of each tensor."""
        assert self._init is not None
        distance = measures.distance_from_init(
            measures.trainable_parameters(subject.module), self._init[subject.replica]
        )
        found = [Measurement("distance_from_init", "", "", distance.total)]
        if self.per_tensor:
            found += [Measurement("distance_from_init", "", name, d) for name, d in distance.per_tensor.items()]
        return found
