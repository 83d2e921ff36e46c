"""Logs the test error of matrix sensing."""

from pytorch_lightning import Trainer

from lnsgd import measures
from lnsgd.callbacks.measure import MeasureCallback
from lnsgd.callbacks.measurements import Measurement
from lnsgd.data import MatrixSensing
from lnsgd.models import MatrixFactorization
from lnsgd.modules.replicated import Subject


class RecoveryError(MeasureCallback):
    """Logs ``recovery_error``, the exact test error of a `MatrixFactorization` on `MatrixSensing`.

    See `lnsgd.measures.recovery_error`. For its arguments see `lnsgd.callbacks.measure.MeasureCallback`.

    Raises:
        ValueError: on measuring, another network or other data.
    """

    headline = ("recovery_error", "recovery")

    def measure(self, trainer: Trainer, subject: Subject) -> list[Measurement]:
        """One number."""
        net, data = subject.module.net, subject.data
        if not (isinstance(net, MatrixFactorization) and isinstance(data, MatrixSensing)):
            raise ValueError(
                f"RecoveryError is for a MatrixFactorization trained on MatrixSensing, not for a {type(net).__name__} "
                f"on {type(data).__name__}; remove the callback"
            )
        return [Measurement("recovery_error", "", "", measures.recovery_error(net.factor, data.target))]
