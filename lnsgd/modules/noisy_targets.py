"""The noisy targets of an ordinary run."""

from pytorch_lightning import Trainer
from torch import Tensor

from lnsgd.label_noise import LabelNoise
from lnsgd.streams import NoiseSchedule


def check_noise_steps(noise_steps: int | None, label_noise: LabelNoise) -> None:
    """Raise ValueError for a number of steps with noise that is negative, or that needs a level the noise has not.

    Args:
        noise_steps: Number of steps with noise; ``None`` for all steps.
        label_noise: The noise.
    """
    if noise_steps is None:
        return
    if noise_steps < 0:
        raise ValueError(f"noise_steps = {noise_steps}; give 0 or more, or null for noise on all steps")
    try:
        label_noise.at_level(0.0)
    except ValueError as error:
        raise ValueError(f"noise_steps = {noise_steps} ends at {error}") from None


class NoisyTargets:
    """Makes the training targets of a run, whose noise is one keyed sequence over its examples.

    Attributes:
        examples_seen: Number of examples of all processes whose targets were made since the run began.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin a new run."""
        self.examples_seen = 0
        self._schedule: NoiseSchedule | None = None

    def draw(
        self,
        trainer: Trainer,
        label_noise: LabelNoise,
        noise_steps: int | None,
        seed: int,
        labels: Tensor,
        global_size: int,
        num_classes: int | None,
    ) -> Tensor:
        """Make the targets of this process's share of the next global batch.

        Args:
            trainer: The Trainer of the run.
            label_noise: The noise, used from the first batch of a run on.
            noise_steps: Number of steps with noise; ``None`` for all steps.
            seed: Key of the noise.
            labels: Labels of the share.
            global_size: Number of examples in the global batch.
            num_classes: C; ``None`` for real targets.
        """
        if self._schedule is None:
            shape = tuple(labels.shape[1:])
            self._schedule = NoiseSchedule(label_noise, noise_steps, seed, shape, num_classes, labels.device)
        start = self.examples_seen
        self.examples_seen += global_size
        mine = slice(trainer.global_rank, None, trainer.world_size)
        return self._schedule.at(trainer.global_step).targets(labels, start, global_size, mine)
