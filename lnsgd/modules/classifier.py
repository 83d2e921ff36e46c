"""Classification with label noise."""

from torch import Tensor

from lnsgd.losses import CrossEntropy, check_compatible, num_classes_of
from lnsgd.modules.supervised import SupervisedModule
from lnsgd.modules.totals import ClassificationTotals


class Classifier(SupervisedModule):
    """Trains a network by SGD on noisy labels; every accuracy is on clean labels.

    Its arguments are those of `SupervisedModule`. The network has outputs (B, C), or (B, 1) for two classes; the
    default loss is `CrossEntropy`.

    Logs ``train/batch_loss`` every ``log_every_n_steps``, and per epoch ``train/loss`` (on the noisy
    targets), ``train/accuracy``, ``train/flip_rate`` (hard noise only), ``val/loss``, ``val/accuracy``,
    ``test/loss``, ``test/accuracy`` (on clean labels).

    Raises:
        ValueError: the loss is not defined for the targets that the noise gives; in training, a
            network whose outputs do not match the DataModule's classes.
    """

    default_loss = CrossEntropy
    totals_class = ClassificationTotals

    def check_noise(self) -> None:
        """Raise ValueError if the loss is not defined for the targets that the noise gives."""
        check_compatible(self.loss, self.label_noise)

    def num_classes(self, outputs: Tensor) -> int:
        """Return the number of classes C that outputs distinguish."""
        return num_classes_of(outputs)

    def check_outputs(self, outputs: Tensor, labels: Tensor, num_classes: int | None) -> None:
        """Raise ValueError if the network's outputs do not match the number of classes."""
        if labels.is_floating_point():
            raise ValueError("Classifier takes class labels, the data has real targets; use Regressor")
        if num_classes is not None and num_classes_of(outputs) != num_classes:
            raise ValueError(
                f"the network has {outputs.shape[-1]} outputs for {num_classes} classes; give it one per class, or for "
                "two classes a single one"
            )
        if self.label_noise.targets == "real" and outputs.shape[-1] == 1:
            raise ValueError("real noise on a single output needs real labels ±1; use two outputs, or UniformNoise")

    def counted(self, losses: Tensor, outputs: Tensor, labels: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Return losses, outputs, clean labels, and the labels trained on if they are hard."""
        return losses, outputs, labels, labels if targets.is_floating_point() else targets

    def shown(self, split: str) -> tuple[str, ...]:
        """Return loss and accuracy; in training with hard noise also the realized flip rate."""
        flips = split == "train" and self.label_noise.targets == "hard"
        return ("loss", "accuracy", "flip_rate") if flips else ("loss", "accuracy")
